//! The known answer is the answer: every step of the chain is counted, function by function.
//!
//! A second binary is made of the guest's, in which each multiplication adds one to a counter of its function. Running it
//! gives the steps of every function exactly, with no clock involved.

use std::collections::BTreeMap;

use flamewalk_guests::{
    GUEST_STEPS_PER_ROUND, GeneratedGuest, Guest, HOST_CALL_SHARE, KNOWN_ANSWER, KNOWN_LINES, Place, SEED,
    STRAIGHT_STEPS, chain,
};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, ConstExpr, ExportKind, ExportSection, GlobalSection, GlobalType, ValType};
use wasmparser::{KnownCustom, Name, Operator, Parser, Payload};
use wasmtime::{Engine, Instance, Linker, Module, Store};

use crate::host::{End, run_command};

const ROUNDS: u32 = 3;

#[test]
fn shares_add_up_to_the_whole() {
    let guest: f64 = KNOWN_ANSWER.iter().map(|(_, share)| share).sum();
    assert!((guest + HOST_CALL_SHARE - 1.0).abs() < 1e-12);
}

#[test]
fn each_function_does_its_share_of_the_steps() {
    let binary = std::fs::read(Guest::KnownAnswerHost.path()).unwrap();
    let mut run = Run::of(&counting(&binary));
    let host_steps = run.burnt();
    let all = (GUEST_STEPS_PER_ROUND * u64::from(ROUNDS) + host_steps) as f64;
    assert_eq!(host_steps as f64 / all, HOST_CALL_SHARE);

    let mut steps = BTreeMap::new();
    for (index, name) in function_names(&binary) {
        let counted = run.counter(index);
        if counted > 0 {
            steps.insert(name, counted as f64 / all);
        }
    }
    let expected = KNOWN_ANSWER.iter().map(|(name, share)| (name.to_string(), *share)).collect();
    assert_eq!(steps, expected);
}

/// The guest proper, without the counters, arrives at the value that the same number of steps gives natively.
#[test]
fn no_step_is_left_out_or_folded() {
    let truth = chain(SEED, GUEST_STEPS_PER_ROUND * u64::from(ROUNDS));
    let run = Run::of(&std::fs::read(Guest::KnownAnswerHost.path()).unwrap());
    assert_eq!(run.result, truth);

    let command = run_command(
        &std::fs::read(Guest::KnownAnswer.path()).unwrap(),
        &["--rounds", &ROUNDS.to_string()],
        None,
    );
    assert_eq!(command.end, End::Returned);
    assert_eq!(command.stdout.lines().next(), Some(format!("chain {truth}").as_str()));
}

#[test]
fn both_variants_have_the_same_functions() {
    let functions = |guest: Guest| {
        let binary = std::fs::read(guest.path()).unwrap();
        let names = function_names(&binary);
        let bodies = bodies(&binary);
        let of = |wanted: &str| {
            let index = names.iter().find(|(_, name)| *name == wanted).map(|(index, _)| *index).unwrap();
            operators(&binary, bodies[&index].clone())
        };
        KNOWN_ANSWER.iter().map(|(name, _)| (*name, of(name))).collect::<BTreeMap<_, _>>()
    };
    // Operator by operator but for the indices in calls, which the imports shift.
    let (command, library) = (functions(Guest::KnownAnswer), functions(Guest::KnownAnswerHost));
    for (name, _) in KNOWN_ANSWER {
        assert_eq!(command[name], library[name], "{name}");
    }
    let straight = &command["straight"];
    assert_eq!(straight.iter().filter(|operator| *operator == "I64Mul").count() as u64, STRAIGHT_STEPS);
    assert!(!straight.iter().any(|operator| operator.starts_with("Loop") || operator.starts_with("Call")));
    assert!(command["loopy"].iter().any(|operator| operator.starts_with("Loop")));
}

#[test]
fn each_function_of_a_generated_guest_does_its_steps() {
    let guests = [
        GeneratedGuest::shapes(),
        GeneratedGuest::call_sites(),
        GeneratedGuest::delayed(0),
        GeneratedGuest::delayed(100),
        GeneratedGuest::in_step(),
    ];
    for guest in guests {
        let binary = guest.binary();
        let steps = guest.steps_per_round() * u64::from(ROUNDS);
        assert_eq!(Run::of(&binary).result, chain(SEED, steps), "{}", guest.name);

        let mut expected = BTreeMap::new();
        for &(place, steps) in &guest.parts {
            let (Place::Function(function) | Place::CallSite { function, .. }) = place;
            *expected.entry(function.to_owned()).or_default() += steps * u64::from(ROUNDS);
        }
        // The counters are added to a section that is there.
        let text = guest.text.replace("(func $run ", "(global i32 (i32.const 0))\n(func $run ");
        let mut run = Run::of(&counting(&wat::parse_str(text).unwrap()));
        let counted = function_names(&binary).into_iter().map(|(index, name)| (name, run.counter(index)));
        let counted: BTreeMap<String, u64> = counted.filter(|(_, steps)| *steps > 0).collect();
        assert_eq!(counted, expected, "{}", guest.name);
    }
}

#[test]
fn the_lines_do_all_of_their_steps() {
    let shares: f64 = KNOWN_LINES.iter().map(|(_, share)| share).sum();
    assert!((shares - 1.0).abs() < 1e-12);
    let run = Run::of(&std::fs::read(Guest::Lines.path()).unwrap());
    assert_eq!(run.result, chain(SEED, 10_000 * u64::from(ROUNDS)));
    // Each line is where the source has it.
    let source = include_str!("../../sources/lines.c");
    for (line, share) in KNOWN_LINES {
        let text = source.lines().nth(*line as usize - 1).unwrap();
        let steps = format!("{:.0}", share * 10_000.0);
        assert!(text.contains(&steps) || (text.contains("once(x)") && steps == "3000"), "{line}: {text}");
    }
}

/// A run of the library variant for some rounds.
struct Run {
    store: Store<u64>,
    instance: Instance,
    result: u64,
}

impl Run {
    fn of(binary: &[u8]) -> Run {
        let engine = Engine::default();
        let mut linker = Linker::new(&engine);
        let count =
            |mut caller: wasmtime::Caller<'_, u64>, steps: u32| *caller.data_mut() += u64::from(steps);
        linker.func_wrap("env", "burn", count).unwrap();
        linker.func_wrap("env", "wait", || {}).unwrap();
        let mut store = Store::new(&engine, 0);
        let instance = linker.instantiate(&mut store, &Module::new(&engine, binary).unwrap()).unwrap();
        let run = instance.get_typed_func::<u32, u64>(&mut store, "run").unwrap();
        let result = run.call(&mut store, ROUNDS).unwrap();
        Run { store, instance, result }
    }

    /// Steps that the guest has asked of the host.
    fn burnt(&self) -> u64 {
        *self.store.data()
    }

    /// Steps that the function has done itself; the binary has to be a [`counting`] one.
    fn counter(&mut self, function: u32) -> u64 {
        let name = format!("steps of {function}");
        let Some(global) = self.instance.get_global(&mut self.store, &name) else { return 0 };
        global.get(&mut self.store).i64().unwrap() as u64
    }
}

/// The module with an exported counter for each function that it defines, `steps of INDEX`.
fn counting(binary: &[u8]) -> Vec<u8> {
    struct Counting {
        first_function: u32,
        functions: u32,
        first_counter: u32,
        seen: u32,
    }

    impl Reencode for Counting {
        type Error = std::convert::Infallible;

        fn parse_global_section(
            &mut self,
            globals: &mut GlobalSection,
            section: wasmparser::GlobalSectionReader<'_>,
        ) -> Result<(), reencode::Error> {
            reencode::utils::parse_global_section(self, globals, section)?;
            self.first_counter = globals.len();
            for _ in 0..self.functions {
                let kind = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
                globals.global(kind, &ConstExpr::i64_const(0));
            }
            Ok(())
        }

        fn parse_export_section(
            &mut self,
            exports: &mut ExportSection,
            section: wasmparser::ExportSectionReader<'_>,
        ) -> Result<(), reencode::Error> {
            reencode::utils::parse_export_section(self, exports, section)?;
            for number in 0..self.functions {
                let name = format!("steps of {}", self.first_function + number);
                exports.export(&name, ExportKind::Global, self.first_counter + number);
            }
            Ok(())
        }

        fn parse_function_body(
            &mut self,
            code: &mut CodeSection,
            body: wasmparser::FunctionBody<'_>,
        ) -> Result<(), reencode::Error> {
            let counter = self.first_counter + self.seen;
            self.seen += 1;
            let mut function = self.new_function_with_parsed_locals(&body)?;
            let mut operators = body.get_operators_reader()?;
            while !operators.eof() {
                let instruction = self.parse_instruction(&mut operators)?;
                if matches!(instruction, wasm_encoder::Instruction::I64Mul) {
                    function.instructions().global_get(counter).i64_const(1).i64_add().global_set(counter);
                }
                function.instruction(&instruction);
            }
            code.function(&function);
            Ok(())
        }
    }

    let bodies = bodies(binary);
    let first_function = *bodies.keys().next().unwrap();
    let functions = bodies.len() as u32;
    let mut module = wasm_encoder::Module::new();
    Counting { first_function, functions, first_counter: 0, seen: 0 }
        .parse_core_module(&mut module, Parser::new(0), binary)
        .unwrap();
    module.finish()
}

/// The names in the name section by function index.
fn function_names(binary: &[u8]) -> Vec<(u32, String)> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(binary) {
        let Payload::CustomSection(section) = payload.unwrap() else { continue };
        let KnownCustom::Name(section) = section.as_known() else { continue };
        for subsection in section {
            let Name::Function(map) = subsection.unwrap() else { continue };
            names.extend(
                map.into_iter().map(Result::unwrap).map(|naming| (naming.index, naming.name.to_owned())),
            );
        }
    }
    names
}

/// Where the code of each function that the module defines lies, by function index.
fn bodies(binary: &[u8]) -> BTreeMap<u32, std::ops::Range<usize>> {
    let mut bodies = BTreeMap::new();
    let mut imported = 0;
    for payload in Parser::new(0).parse_all(binary) {
        match payload.unwrap() {
            // All imports of these guests are functions.
            Payload::ImportSection(section) => imported = section.count(),
            Payload::CodeSectionEntry(body) => {
                bodies.insert(imported + bodies.len() as u32, body.range());
            }
            _ => {}
        }
    }
    bodies
}

/// The names of a function's operators, with what they are about unless that is a function.
fn operators(binary: &[u8], range: std::ops::Range<usize>) -> Vec<String> {
    let reader = wasmparser::BinaryReader::new(&binary[range.clone()], range.start);
    let reader = wasmparser::FunctionBody::new(reader).get_operators_reader().unwrap();
    reader
        .into_iter()
        .map(|operator| match operator.unwrap() {
            Operator::Call { .. } => "Call".to_owned(),
            operator => format!("{operator:?}"),
        })
        .collect()
}

//! At random times, too, no sampled stack is one that the guest's call graph rules out.
//!
//! The guest calls more than it does anything else, so that a good part of the samples falls into prologues and
//! epilogues. No function of it calls itself or one that its callees call: a stack in which a caller is missing, or is
//! there twice, is impossible.

use std::collections::{BTreeMap, BTreeSet};

use flamewalk::profile::{FrameKind, Metadata, Profile};
use flamewalk::{Guest, Options, Profiler};
use wasmparser::{ElementItems, ExternalKind, Operator, Parser, Payload, TypeRef};
use wasmtime::{Engine, Instance, Module, Store};

/// Four functions in a ring, each of which calls the next one twice, directly and through the table, and a function of
/// its own in between. The types differ, so that an indirect call has one possible callee.
const GUEST: &str = r#"
(module
  (type $of_zero (func (param i32) (result i32)))
  (type $of_one (func (param i32 i32) (result i32)))
  (type $of_two (func (param i32 i64) (result i32)))
  (type $of_three (func (param i32 i64 i64 i64 i64 i64 i64 i64) (result i32)))
  (table 4 4 funcref)
  (elem (i32.const 0) func $zero $one $two $three)
  (func $zero_leaf (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func $one_leaf (param i32) (result i32) (i32.xor (local.get 0) (i32.const 2)))
  (func $two_leaf (param i32) (result i32) (i32.sub (local.get 0) (i32.const 3)))
  (func $three_leaf (param i64 i64 i64 i64 i64 i64 i64 i32) (result i32) (i32.rotl (local.get 7) (i32.const 4)))
  (func $zero (type $of_zero)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 1)) (then (i32.const 1)) (else
      (i32.add
        (call $one (i32.sub (local.get 0) (i32.const 1)) (call $zero_leaf (local.get 0)))
        (call_indirect (type $of_one) (i32.sub (local.get 0) (i32.const 2)) (i32.const 7) (i32.const 1))))))
  (func $one (type $of_one)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 1)) (then (i32.const 1)) (else
      (i32.add
        (call_indirect (type $of_two)
          (i32.sub (local.get 0) (i32.const 1))
          (i64.extend_i32_u (call $one_leaf (local.get 1)))
          (i32.const 2))
        (call $two (i32.sub (local.get 0) (i32.const 2)) (i64.const 7))))))
  (func $two (type $of_two)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 1)) (then (i32.const 1)) (else
      (i32.add
        (call $three (i32.sub (local.get 0) (i32.const 1)) (local.get 1) (i64.const 2) (i64.const 3) (i64.const 4)
          (i64.const 5) (i64.const 6) (i64.const 7))
        (call_indirect (type $of_three) (i32.sub (local.get 0) (i32.const 2)) (local.get 1) (i64.const 2)
          (i64.const 3) (i64.const 4) (i64.const 5) (i64.const 6)
          (i64.extend_i32_u (call $two_leaf (local.get 0))) (i32.const 3))))))
  (func $three (type $of_three)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 1)) (then (i32.const 1)) (else
      (i32.add
        (call $zero (i32.sub (local.get 0) (i32.const 1)))
        (call_indirect (type $of_zero)
          (i32.sub (call $three_leaf (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)
            (local.get 6) (local.get 7) (i32.rotr (local.get 0) (i32.const 4))) (i32.const 2))
          (i32.const 0))))))
  (func (export "run") (param i32) (result i32) (call $zero (local.get 0))))
"#;

/// In Hz.
const RATE: u32 = 9_997;
const SAMPLES: u64 = 100_000;
/// How deep the guest calls: some milliseconds of calls.
const DEPTH: i32 = 27;
/// Calls between two looks at how many samples there are: about a second of them.
const CALLS: usize = 300;

/// What a guest's functions can call, by the binary alone.
#[derive(Debug, Default)]
struct CallGraph {
    edges: BTreeSet<(u32, u32)>,
    exports: BTreeMap<String, u32>,
}

impl CallGraph {
    fn of(wasm: &[u8]) -> Self {
        let mut graph = Self::default();
        let (mut types, mut elements) = (Vec::new(), Vec::new());
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.unwrap() {
                Payload::ImportSection(imports) => {
                    let imports = imports.into_imports().map(Result::unwrap);
                    types.extend(imports.filter_map(|import| match import.ty {
                        TypeRef::Func(ty) => Some(ty),
                        _ => None,
                    }));
                }
                Payload::FunctionSection(functions) => {
                    types.extend(functions.into_iter().map(Result::unwrap))
                }
                Payload::ElementSection(section) => {
                    for element in section {
                        if let ElementItems::Functions(functions) = element.unwrap().items {
                            elements.extend(functions.into_iter().map(Result::unwrap));
                        }
                    }
                }
                Payload::ExportSection(exports) => {
                    let exports = exports.into_iter().map(Result::unwrap);
                    let functions = exports.filter(|export| export.kind == ExternalKind::Func);
                    graph.exports = functions.map(|export| (export.name.to_owned(), export.index)).collect();
                }
                Payload::CodeSectionEntry(body) => bodies.push(body),
                _ => {}
            }
        }
        let first = types.len() - bodies.len();
        for (caller, body) in (first as u32..).zip(bodies) {
            for operator in body.get_operators_reader().unwrap() {
                match operator.unwrap() {
                    Operator::Call { function_index } => {
                        graph.edges.insert((caller, function_index));
                    }
                    Operator::CallIndirect { type_index, .. } => {
                        let callees = elements.iter().filter(|callee| types[**callee as usize] == type_index);
                        graph.edges.extend(callees.map(|callee| (caller, *callee)));
                    }
                    Operator::ReturnCall { .. } | Operator::ReturnCallIndirect { .. } => {
                        panic!("tail calls are not followed")
                    }
                    _ => {}
                }
            }
        }
        graph
    }

    /// Whether each of `stack`, oldest first, can call the next, and the first is exported.
    fn allows(&self, stack: &[u32]) -> bool {
        let entered = stack.first().is_some_and(|first| self.exports.values().any(|export| export == first));
        entered && stack.windows(2).all(|pair| self.edges.contains(&(pair[0], pair[1])))
    }
}

/// The functions of each sampled stack, oldest first, and how many samples have it.
fn stacks(profile: &Profile) -> BTreeMap<Vec<u32>, u64> {
    let mut stacks = BTreeMap::new();
    for stack in profile.stacks() {
        let functions = stack.frames.iter().map(|id| {
            let frame = profile.frame(*id);
            assert_eq!(frame.kind, FrameKind::Guest, "{frame:?}");
            frame.function_index.expect("a function of the guest")
        });
        *stacks.entry(functions.collect()).or_insert(0) += stack.tally.samples;
    }
    stacks
}

#[test]
fn no_sampled_stack_is_impossible_in_the_guests_call_graph() {
    let wasm = wat::parse_str(GUEST).unwrap();
    let graph = CallGraph::of(&wasm);
    let engine = Engine::default();
    let module = Module::new(&engine, &wasm).unwrap();
    let mut store = Store::new(&engine, ());

    let mut options = Options::default();
    options.rate = RATE;
    let profiler = Profiler::new(options).unwrap();
    profiler.register_module(&module, Guest::named("ring").binary(wasm)).unwrap();
    profiler.attach(&mut store).unwrap();
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
    profiler.start().unwrap();
    while profiler.statistics().unwrap().delivered.samples < SAMPLES {
        (0..CALLS).for_each(|_| assert!(run.call(&mut store, DEPTH).unwrap() > 0));
    }
    let profile = profiler.stop(Metadata::default()).unwrap();

    let statistics = &profile.metadata.statistics;
    statistics.check().unwrap();
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    let stacks = stacks(&profile);
    let samples: u64 = stacks.values().sum();
    assert!(samples >= SAMPLES, "{samples}");
    let impossible: BTreeMap<_, _> = stacks.iter().filter(|(stack, _)| !graph.allows(stack)).collect();
    assert!(impossible.is_empty(), "{impossible:?}");

    // The check is known to be able to fail: the same stacks without one caller, or with one twice, are all impossible.
    let mut mutants = 0;
    for stack in stacks.keys() {
        for index in 0..stack.len().saturating_sub(1) {
            let mut missing = stack.clone();
            missing.remove(index);
            let mut twice = stack.clone();
            twice.insert(index, stack[index]);
            assert!(!graph.allows(&missing) && !graph.allows(&twice), "{stack:?} at {index}");
            mutants += 2;
        }
    }
    println!("{samples} samples of {} stacks, all possible; {mutants} changed ones, none", stacks.len());
}

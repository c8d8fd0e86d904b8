//! What a call out of the guest went to, against the bytecode of every call in every guest.

use std::collections::HashMap;

use flamewalk_guests::Guest;
use flamewalk_handler::code::CodeKind;
use flamewalk_symbolizer::{GuestBinary, HostCall, Symbolizer};
use wasmparser::{Operator, Parser, Payload, TypeRef};
use wasmtime::{Engine, Inlining, Module, Strategy};

use crate::support::{COMPONENT, compile, engine, guest, parse};

fn import(module: &str, name: &str) -> HostCall {
    HostCall::Import { module: module.into(), name: name.into() }
}

fn builtin(name: &str) -> HostCall {
    HostCall::Builtin { name: name.into() }
}

/// The imported functions of a core module, and what its instructions at each offset call, if they call out.
fn calls(binary: &[u8]) -> (Vec<HostCall>, HashMap<u32, HostCall>) {
    let mut imports = Vec::new();
    let mut calls = HashMap::new();
    for payload in Parser::new(0).parse_all(binary) {
        match payload.expect("a valid guest") {
            Payload::ImportSection(section) => {
                for item in section.into_imports() {
                    let item = item.expect("a valid import");
                    if matches!(item.ty, TypeRef::Func(_)) {
                        imports.push(import(item.module, item.name));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().expect("operators").into_iter_with_offsets() {
                    let (operator, offset) = operator.expect("a valid operator");
                    let called = match operator {
                        Operator::Call { function_index } => imports.get(function_index as usize).cloned(),
                        Operator::MemoryGrow { .. } => Some(builtin("memory.grow")),
                        Operator::MemoryCopy { .. } => Some(builtin("memory.copy")),
                        Operator::MemoryFill { .. } => Some(builtin("memory.fill")),
                        Operator::TableGrow { .. } => Some(builtin("table.grow")),
                        _ => None,
                    };
                    calls.extend(called.map(|called| (offset as u32, called)));
                }
            }
            _ => {}
        }
    }
    (imports, calls)
}

struct Seen {
    imports: usize,
    builtins: usize,
}

/// Takes every text offset in the code of every call for a return address: it cannot be one of anything else.
fn check(engine: &Engine, binary: &[u8], with_binary: bool) -> Seen {
    let module = Module::new(engine, binary).expect("the guest compiles");
    let image = parse(&module.serialize().expect("an image"));
    let source = with_binary.then(|| GuestBinary::from(binary.to_vec()));
    let mut symbolizer = Symbolizer::new(image, "guest", source, None).expect("no symbols");
    let (imports, calls) = calls(binary);
    let map: Vec<_> = module.address_map().expect("an address map").collect();
    let mut seen = Seen { imports: 0, builtins: 0 };
    for pair in map.windows(2) {
        let [(start, Some(bytecode)), (end, _)] = *pair else { continue };
        let Some(expected) = calls.get(&bytecode) else { continue };
        let named: Vec<HostCall> = (start + 1..=end)
            .map(|address| symbolizer.host_call(u32::try_from(address).expect("a small image"), None))
            .collect();
        match expected {
            // Where the machine code holds the call itself, it names the builtin; nothing else may name another.
            HostCall::Builtin { .. } => {
                let builtins: Vec<_> =
                    named.iter().filter(|call| matches!(call, HostCall::Builtin { .. })).collect();
                assert!(builtins.iter().all(|call| *call == expected), "{named:?} at {bytecode:#x}");
                seen.builtins += builtins.len();
            }
            expected if with_binary || imports.len() == 1 => {
                assert!(named.iter().all(|call| call == expected), "{named:?} at {bytecode:#x}");
                seen.imports += 1;
            }
            _ => assert!(named.iter().all(|call| *call == HostCall::Unknown), "{named:?} at {bytecode:#x}"),
        }
    }
    seen
}

#[test]
fn direct_calls_are_named_by_their_bytecode() {
    let strategies = [
        engine(|_| ()),
        engine(|config| {
            config.strategy(Strategy::Winch);
        }),
    ];
    for (engine, name) in strategies.iter().flat_map(|engine| Guest::ALL.map(|name| (engine, name))) {
        for with_binary in [true, false] {
            let binary = guest(name);
            let seen = check(engine, &binary, with_binary);
            let (imports, calls) = calls(&binary);
            let has = |wanted: fn(&HostCall) -> bool| calls.values().any(wanted);
            let named = with_binary || imports.len() == 1;
            assert_eq!(
                seen.imports > 0,
                named && has(|call| matches!(call, HostCall::Import { .. })),
                "{name:?}"
            );
            assert_eq!(seen.builtins > 0, has(|call| matches!(call, HostCall::Builtin { .. })), "{name:?}");
        }
    }
}

/// Wasmtime gives no bytecode offset to code that it inlined: such a call must not be taken for the one before it.
#[test]
fn calls_that_wasmtime_inlined_are_not_named_wrongly() {
    let engine = engine(|config| {
        config.compiler_inlining(Inlining::Yes);
    });
    let text = r#"(module
        (import "env" "a" (func)) (import "env" "b" (func (param i32)))
        (memory 1)
        (func $inlined i32.const 1 call 1 i32.const 1 memory.grow drop)
        (func (export "run") call 0 call $inlined call $inlined))"#;
    let binary = wat::parse_str(text).expect("valid text");
    check(&engine, &binary, true);
    let module = Module::new(&engine, &binary).expect("the guest compiles");
    let source = GuestBinary::from(binary);
    let image = parse(&module.serialize().expect("an image"));
    let mut symbolizer = Symbolizer::new(image, "guest", Some(source), None).expect("no symbols");
    let run = module.functions().nth(1).expect("two functions");
    let mut named: Vec<_> = (run.offset + 1..=run.offset + run.len)
        .map(|address| symbolizer.host_call(u32::try_from(address).expect("a small image"), None).to_string())
        .collect();
    named.dedup();
    assert_eq!(
        named.iter().filter(|name| *name == "[builtin] memory.grow").count(),
        2,
        "inlined twice: {named:?}"
    );
    assert_eq!(named.iter().filter(|name| *name == "[host] env.a").count(), 1, "{named:?}");
    assert_eq!(named.iter().filter(|name| *name == "[host] env.b").count(), 0, "{named:?}");
}

#[test]
fn indirect_calls_are_unknown_unless_there_is_one_import() {
    let engine = engine(|_| ());
    for (imports, expected) in [(1, import("env", "f0")), (2, HostCall::Unknown), (0, HostCall::Unknown)] {
        let imported: String =
            (0..imports).map(|index| format!("(import \"env\" \"f{index}\" (func))")).collect();
        let text = format!(
            "(module {imported} (table 1 funcref) (func (export \"run\") i32.const 0 call_indirect))"
        );
        let binary = wat::parse_str(text).expect("valid text");
        let module = Module::new(&engine, &binary).expect("the guest compiles");
        let image = parse(&module.serialize().expect("an image"));
        let source = GuestBinary::from(binary);
        let mut symbolizer = Symbolizer::new(image, "guest", Some(source), None).expect("no symbols");
        let function = module.functions().next().expect("a function");
        let end = u32::try_from(function.offset + function.len).expect("a small image");
        assert_eq!(symbolizer.host_call(end, None), expected);
    }
}

#[test]
fn trampolines_name_what_is_behind_them() {
    let engine = engine(|_| ());
    let binary = wat::parse_str(COMPONENT).expect("valid text");
    let image = compile(&engine, &binary);
    for source in [Some(GuestBinary::from(binary.clone())), None] {
        let mut symbolizer = Symbolizer::new(parse(&image), "app", source, None).expect("no symbols");
        let functions = symbolizer.image().functions().to_vec();
        let named: Vec<String> = functions
            .iter()
            .filter(|function| {
                matches!(function.kind, CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline)
            })
            .map(|function| symbolizer.host_call(0, Some(function.start)).to_string())
            .collect();
        assert_component_imports_are_named(&named);
    }
}

/// A core module of a component imports by names of its own; what it calls is the component's import. Cranelift calls
/// its trampoline directly, Winch through the instance.
#[test]
fn calls_in_components_name_the_components_imports() {
    let winch = engine(|config| {
        config.strategy(Strategy::Winch);
    });
    let binary = wat::parse_str(COMPONENT).expect("valid text");
    for engine in [engine(|_| ()), winch] {
        let image = parse(&compile(&engine, &binary));
        let source = GuestBinary::from(binary.clone());
        let mut symbolizer = Symbolizer::new(image, "app", Some(source), None).expect("no symbols");
        let functions = symbolizer.image().functions().to_vec();
        let guests = functions.iter().filter(|function| function.kind == CodeKind::Guest);
        let named: Vec<String> = guests
            .flat_map(|function| function.start + 1..=function.end())
            .map(|address| symbolizer.host_call(address, None).to_string())
            .collect();
        assert_component_imports_are_named(&named);
        assert!(named.iter().all(|name| !name.contains("s.") && !name.contains("x.")), "{named:?}");
    }
}

/// All that [`COMPONENT`] calls of its host and of the runtime.
fn assert_component_imports_are_named(named: &[String]) {
    for expected in [
        "[host] beep",
        "[host] host:log/sink@1.0.0.write",
        "[host] host:log/sink@1.0.0.flush",
        "[builtin] resource.drop",
    ] {
        assert!(named.iter().any(|name| name == expected), "{expected} in {named:?}");
    }
}

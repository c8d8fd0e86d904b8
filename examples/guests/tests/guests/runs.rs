//! Our own guests do what their documentation tells.

use std::path::Path;

use flamewalk_guests::{Error, Guest, as_component, chain};
use wasmtime::{Engine, Instance, Module, Store, Trap};

use crate::host::{End, run_command, run_component};

fn binary(guest: Guest) -> Vec<u8> {
    std::fs::read(guest.path()).unwrap()
}

#[test]
fn inlined_draws_the_same_picture_everywhere() {
    let run = run_command(&binary(Guest::Inlined), &[], None);
    assert_eq!((run.end, run.stdout.as_str()), (End::Returned, "brightness 3133965\n"));
}

#[test]
fn exits_ends_as_it_is_told() {
    let exits = binary(Guest::Exits);
    let end = |arguments: &[&str]| run_command(&exits, arguments, None).end;
    assert_eq!(end(&["return"]), End::Returned);
    assert_eq!(end(&["recurse", "3000"]), End::Returned);
    assert_eq!(end(&["exit", "3"]), End::Exited(3));
    assert_eq!(end(&["trap"]), End::Trapped(Trap::MemoryOutOfBounds));
    assert_eq!(end(&["overflow"]), End::Trapped(Trap::StackOverflow));
    assert_eq!(end(&["dance"]), End::Exited(2));
}

#[test]
fn exits_forever_goes_on_until_it_is_stopped() {
    let mut config = wasmtime::Config::new();
    config.consume_fuel(true);
    let engine = Engine::new(&config).unwrap();
    let mut linker = wasmtime::Linker::new(&engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |context| context).unwrap();
    let context = wasmtime_wasi::WasiCtxBuilder::new().args(&["exits", "forever"]).build_p1();
    let mut store = Store::new(&engine, context);
    store.set_fuel(100_000_000).unwrap();
    let instance =
        linker.instantiate(&mut store, &Module::new(&engine, binary(Guest::Exits)).unwrap()).unwrap();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
    let error = start.call(&mut store, ()).unwrap_err();
    assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::OutOfFuel));
}

#[test]
fn host_calls_writes_and_reads() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("sources");
    let file_bytes = std::fs::metadata(sources.join("host_calls.c")).unwrap().len();
    let host_calls = binary(Guest::HostCalls);
    let run = run_command(&host_calls, &["100", "host_calls.c", "3"], Some(&sources));
    assert_eq!(run.end, End::Returned);
    assert_eq!(run.stdout, "a short line\n".repeat(100));
    assert_eq!(run.stderr, format!("bytes read {}\n", 3 * file_bytes));
    assert_eq!(run_command(&host_calls, &["0", "absent", "1"], Some(&sources)).end, End::Exited(1));
}

#[test]
fn memory_grow_reaches_its_limit_and_goes_on_asking() {
    let (mut store, instance) = library(Guest::MemoryGrow);
    let grow = instance.get_typed_func::<u32, ()>(&mut store, "grow").unwrap();
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    grow.call(&mut store, 10).unwrap();
    assert_eq!(memory.size(&store), 11);
    grow.call(&mut store, 5000).unwrap();
    assert_eq!(memory.size(&store), 4096);
}

#[test]
fn reactor_takes_parameters_of_every_number_type() {
    let (mut store, instance) = library(Guest::Reactor);
    macro_rules! call {
        ($name:literal, $parameters:ty => $result:ty, $values:expr) => {
            instance
                .get_typed_func::<$parameters, $result>(&mut store, $name)
                .unwrap()
                .call(&mut store, $values)
        };
    }
    assert_eq!(call!("fibonacci", u32 => u32, 20).unwrap(), 6765);
    assert_eq!(call!("chain", (u64, u32) => u64, (1, 1000)).unwrap(), chain(1, 1000));
    assert_eq!(call!("scale_f32", (f32, i32) => f32, (1.5, -3)).unwrap(), -4.5);
    assert_eq!(call!("scale_f64", (f64, i64) => f64, (2.5, 4)).unwrap(), 10.0);
    call!("no_result", u32 => (), 1000).unwrap();
    assert_eq!(call!("divide", (i32, i32) => i32, (-7, 2)).unwrap(), -3);
    let error = call!("divide", (i32, i32) => i32, (1, 0)).unwrap_err();
    assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::IntegerDivisionByZero));
}

#[test]
fn nothing_returns_at_once() {
    assert_eq!(run_command(&binary(Guest::Nothing), &[], None).end, End::Returned);
}

#[test]
fn missing_import_names_what_is_missing() {
    let engine = Engine::default();
    let module = Module::new(&engine, binary(Guest::MissingImport)).unwrap();
    let imports: Vec<_> = module.imports().map(|import| (import.module(), import.name())).collect();
    assert_eq!(imports, [("env", "not_there")]);
}

#[test]
fn a_component_does_what_its_command_did() {
    let component = as_component(&binary(Guest::Exits)).unwrap();
    assert_eq!(run_component(&component, &["return"]).end, End::Returned);
    assert_eq!(run_component(&component, &["trap"]).end, End::Trapped(Trap::MemoryOutOfBounds));
    let component = as_component(&binary(Guest::KnownAnswer)).unwrap();
    let run = run_component(&component, &["--rounds", "2"]);
    let command = run_command(&binary(Guest::KnownAnswer), &["--rounds", "2"], None);
    assert_eq!(run.end, End::Returned);
    assert_eq!(run.stdout.lines().next().unwrap(), command.stdout.lines().next().unwrap());
}

/// Symbols are what a profile of a component needs.
#[test]
fn a_component_keeps_names_and_dwarf() {
    let component = as_component(&binary(Guest::Inlined)).unwrap();
    let mut sections = std::collections::BTreeSet::new();
    for payload in wasmparser::Parser::new(0).parse_all(&component) {
        if let wasmparser::Payload::CustomSection(section) = payload.unwrap() {
            sections.insert(section.name().to_owned());
        }
    }
    for name in ["name", ".debug_info", ".debug_line", ".debug_abbrev", ".debug_str", ".debug_ranges"] {
        assert!(sections.contains(name), "{name} is not in {sections:?}");
    }
}

#[test]
fn what_is_no_command_makes_no_component() {
    for bad in [b"not wasm".to_vec(), binary(Guest::MissingImport), binary(Guest::KnownAnswerHost)] {
        assert!(matches!(as_component(&bad), Err(Error::Component { .. })));
    }
}

/// A guest without WASI or other imports.
fn library(guest: Guest) -> (Store<()>, Instance) {
    let engine = Engine::default();
    let module = Module::new(&engine, binary(guest)).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    (store, instance)
}

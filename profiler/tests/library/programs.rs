//! SQLite: a real program with complete DWARF.

use flamewalk::profile::{FrameKind, Names};
use flamewalk::{Guest as Registered, Profiler};
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};

use crate::support::{alone, options, stop};

#[test]
fn sqlite_has_names_and_lines() {
    let _alone = alone();
    let binary = std::fs::read(flamewalk_guests::sqlite().unwrap()).unwrap();
    let module = Module::new(&Engine::default(), &binary).unwrap();
    let profiler = Profiler::new(options("cpu", 997)).unwrap();
    profiler.register_module(&module, Registered::named("sqlite").binary(binary)).unwrap();
    let mut linker = Linker::new(module.engine());
    add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi).unwrap();
    let wasi = WasiCtxBuilder::new().arg("sqlite").build_p1();
    let mut store = Store::new(module.engine(), wasi);
    profiler.attach(&mut store).unwrap();
    let instance = linker.instantiate(&mut store, &module).unwrap();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
    profiler.start().unwrap();
    start.call(&mut store, ()).unwrap();
    let profile = stop(&profiler);

    assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
    assert_eq!(profile.metadata.notices, Vec::<String>::new());
    let (mut all, mut named) = (0, 0);
    for stack in profile.stacks() {
        let guests = stack.frames.iter().rev().map(|&id| profile.frame(id));
        let youngest = guests.into_iter().find(|frame| frame.kind == FrameKind::Guest).unwrap();
        let line = youngest.location.as_ref().map_or(0, |location| location.line);
        all += stack.tally.samples;
        if !youngest.name.starts_with("wasm-function[") && line > 0 {
            named += stack.tally.samples;
        } else {
            println!("{} without name or line: {youngest:?}", stack.tally);
        }
    }
    assert!(all >= 1_000, "{all}");
    assert!(named as f64 >= 0.999 * all as f64, "{named} of {all}");

    let names = Names::new(&profile);
    let mut functions = profile.functions(&names);
    functions.sort_by_key(|function| std::cmp::Reverse(function.self_tally.weight));
    let hottest: Vec<_> = functions.iter().take(5).map(|function| names.text(function.name)).collect();
    assert!(hottest.contains(&"sqlite3VdbeExec"), "{hottest:?}");
}

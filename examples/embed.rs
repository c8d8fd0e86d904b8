//! The smallest embedding that profiles its guest: `cargo run --bin embed [OUT.svg]`.
//!
//! The guest spends 60 % of its time in straight-line code, which a profiler that samples where the guest polls for
//! interrupts never sees, and the rest in loops, recursion and calls.

use std::error::Error;
use std::fs::File;

use flamewalk::profile::Metadata;
use flamewalk::{Guest, Options, Profiler};
use flamewalk_flamegraphs::{hottest, svg};
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};

fn main() -> Result<(), Box<dyn Error>> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "embed.svg".to_owned());

    // An embedding as any other: an engine, a guest and a store.
    let wasm = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/wasm/known_answer.wasm"))?;
    let engine = Engine::default();
    let module = Module::new(&engine, &wasm)?;
    let mut linker = Linker::new(&engine);
    add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
    let wasi = WasiCtxBuilder::new().inherit_stdio().arg("known_answer").build_p1();
    let mut store = Store::new(&engine, wasi);

    // What profiling adds to it.
    let profiler = Profiler::new(Options::default())?;
    profiler.register_module(&module, Guest::named("known_answer").binary(wasm))?;
    profiler.attach(&mut store)?;
    profiler.start()?;
    let instance = linker.instantiate(&mut store, &module)?;
    instance.get_typed_func::<(), ()>(&mut store, "_start")?.call(&mut store, ())?;
    let profile = profiler.stop(Metadata::default())?;

    print!("{}", hottest(&profile, 10));
    svg(&profile, &Default::default(), File::create(&output)?)?;
    println!("wrote {output}");
    Ok(())
}

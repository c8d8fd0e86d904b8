//! Several threads, each with guests of its own, and one profile of all: `cargo run --bin threads [OUT.svg]`.
//!
//! A thread is set up when it first enters a guest of an attached store. Pools that run something on each thread as it
//! starts can do that beforehand, with `Profiler::attach_thread`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::thread;

use flamewalk::profile::Metadata;
use flamewalk::{Guest, Options, Profiler};
use flamewalk_flamegraphs::{hottest, svg};
use wasmtime::{Engine, Linker, Module, Store};

type Failure = Box<dyn Error + Send + Sync>;

const THREADS: u32 = 4;

fn main() -> Result<(), Failure> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "threads.svg".to_owned());
    let wasm = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/wasm/known_answer_host.wasm"))?;
    let engine = Engine::default();
    let module = Module::new(&engine, &wasm)?;
    let mut linker = Linker::new(&engine);
    // The host's share of the work.
    linker.func_wrap("env", "burn", |steps: u32| {
        std::hint::black_box((0..steps).fold(1u64, |value, step| value.rotate_left(5) ^ u64::from(step)));
    })?;

    let profiler = Profiler::new(Options::default())?;
    profiler.register_module(&module, Guest::named("known_answer").binary(wasm))?;
    profiler.start()?;
    thread::scope(|scope| {
        let (profiler, linker, module) = (&profiler, &linker, &module);
        let threads: Vec<_> = (1..=THREADS)
            .map(|number| {
                let work = move || -> Result<(), Failure> {
                    profiler.attach_thread()?;
                    // The later threads do more, in one store after the other.
                    for _ in 0..number {
                        let mut store = Store::new(module.engine(), ());
                        profiler.attach(&mut store)?;
                        let instance = linker.instantiate(&mut store, module)?;
                        let run = instance.get_typed_func::<u32, u64>(&mut store, "run")?;
                        run.call(&mut store, 100)?;
                    }
                    Ok(())
                };
                thread::Builder::new().name(format!("worker-{number}")).spawn_scoped(scope, work)
            })
            .collect::<Result<_, _>>()?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("no worker panics"))
    })?;
    let profile = profiler.stop(Metadata::default())?;

    let mut totals = BTreeMap::new();
    for sample in profile.samples() {
        let thread = sample.origin.thread.map(|thread| profile.thread(thread));
        let name = thread.and_then(|thread| thread.name.as_deref()).unwrap_or("unknown").to_owned();
        *totals.entry(name).or_insert(0) += sample.tally.weight;
    }
    for (name, nanoseconds) in &totals {
        println!("{name:12} {:8.1} ms", *nanoseconds as f64 / 1e6);
    }
    print!("{}", hottest(&profile, 5));
    svg(&profile, &Default::default(), File::create(&output)?)?;
    println!("wrote {output}");
    Ok(())
}

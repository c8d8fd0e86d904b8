//! A profile every few seconds, for as long as the process runs, of which a folder keeps the last ones:
//! `cargo run --bin continuous [FOLDER [SECONDS [KEPT [WINDOWS]]]]`.
//!
//! With `PYROSCOPE_URL=http://localhost:4040` each is also sent to Pyroscope, and with `OTLP_URL=http://localhost:4318` to a
//! collector of OpenTelemetry's. A server that is down, or slow, costs neither memory without end nor the guests' time.
//!
//! Memory is bounded: each profile is taken out of the profiler, which goes on sampling with nothing. A tick that falls
//! while a profile is taken is in the next one.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use flamewalk::profile::Metadata;
use flamewalk::{Guest, Profiler};
use flamewalk_push::{Endpoint, Folder, Otlp, Pusher, Pyroscope, Series, Sink};
use wasmtime::{Engine, Linker, Module, Store};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let folder = argument(1, "profiles".to_owned())?;
    let window = Duration::from_secs_f64(argument(2, 10.0)?);
    let kept = argument(3, 6usize)?;
    let windows = argument(4, usize::MAX)?;

    let wasm = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/wasm/known_answer_host.wasm"))?;
    let engine = Engine::default();
    let module = Module::new(&engine, &wasm)?;
    let profiler = Arc::new(Profiler::new(flamewalk::Options::default())?);
    profiler.register_module(&module, Guest::named("known_answer").binary(wasm))?;
    profiler.start()?;

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&profiler, &module, &done));
        let (told, taken) = mpsc::channel();
        let taking = Arc::clone(&profiler);
        let take = move || {
            let mut metadata = Metadata::default();
            metadata.guest = Some("known_answer".to_owned());
            let profile = taking.take(metadata)?;
            let ticks = profile.metadata.statistics.ticks;
            // Nobody listens any more once there were as many as were asked for.
            let _ = told.send(format!("{} samples of {} ticks", profile.total().samples, ticks.samples));
            Ok(profile)
        };
        let mut options = flamewalk_push::Options::default();
        options.window = window;
        let pusher = sinks(&folder, kept).and_then(|sinks| Ok(Pusher::start(options, sinks, take)?));
        let result = pusher.map(|pusher| {
            taken.iter().take(windows).for_each(|line| println!("{line}"));
            for (sink, statistics) in pusher.stop(Duration::from_secs(5)).sinks {
                println!("{sink}: {statistics:?}");
            }
        });
        done.store(true, Ordering::Relaxed);
        server.join().expect("the server does not panic")?;
        result
    })
}

/// Where the profiles go.
fn sinks(folder: &str, kept: usize) -> Result<Vec<Box<dyn Sink>>, Failure> {
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(Folder::new(folder)?.max_files(kept))];
    let series = Series::new("known_answer")?.label("process", std::process::id().to_string())?;
    if let Ok(url) = std::env::var("PYROSCOPE_URL") {
        sinks.push(Box::new(Pyroscope::new(Endpoint::new(&url)?, series.clone())));
    }
    if let Ok(url) = std::env::var("OTLP_URL") {
        sinks.push(Box::new(Otlp::new(Endpoint::new(&url)?, series)));
    }
    Ok(sinks)
}

/// What the process is there for: here, a guest that is run over and over.
fn serve(profiler: &Profiler, module: &Module, done: &AtomicBool) -> Result<(), Failure> {
    let mut linker = Linker::new(module.engine());
    linker.func_wrap("env", "burn", |steps: u32| {
        std::hint::black_box((0..steps).fold(1u64, |value, step| value.rotate_left(5) ^ u64::from(step)));
    })?;
    while !done.load(Ordering::Relaxed) {
        let mut store = Store::new(module.engine(), ());
        profiler.attach(&mut store)?;
        let instance = linker.instantiate(&mut store, module)?;
        instance.get_typed_func::<u32, u64>(&mut store, "run")?.call(&mut store, 50)?;
    }
    Ok(())
}

/// A command-line argument, or its default.
fn argument<T: FromStr<Err: Error + Send + Sync + 'static>>(index: usize, default: T) -> Result<T, Failure> {
    Ok(std::env::args().nth(index).map(|argument| argument.parse()).transpose()?.unwrap_or(default))
}

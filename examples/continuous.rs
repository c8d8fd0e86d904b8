//! A profile every few seconds, for as long as the process runs, of which a folder keeps the last ones:
//! `cargo run --bin continuous [FOLDER [SECONDS [KEPT [PROFILES]]]]`.
//!
//! Memory is bounded: each profile is taken out of the profiler, which goes on sampling with nothing. A tick that falls
//! while a profile is taken is in the next one.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flamewalk::profile::format::{Format, write};
use flamewalk::profile::{Metadata, Profile};
use flamewalk::{Guest, Options, Profiler};
use wasmtime::{Engine, Linker, Module, Store};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let folder = PathBuf::from(argument(1, "profiles".to_owned())?);
    let interval = Duration::from_secs_f64(argument(2, 10.0)?);
    let kept = argument(3, 6usize)?;
    let profiles = argument(4, u64::MAX)?;
    std::fs::create_dir_all(&folder)?;

    let wasm = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/wasm/known_answer_host.wasm"))?;
    let engine = Engine::default();
    let module = Module::new(&engine, &wasm)?;
    let profiler = Profiler::new(Options::default())?;
    profiler.register_module(&module, Guest::named("known_answer").binary(wasm))?;
    profiler.start()?;

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&profiler, &module, &done));
        let mut next = Instant::now();
        let result = (1..=profiles).try_for_each(|number| {
            next += interval;
            thread::sleep(next.saturating_duration_since(Instant::now()));
            let mut metadata = Metadata::default();
            metadata.guest = Some("known_answer".to_owned());
            save(&profiler.take(metadata)?, &folder, number, kept)
        });
        done.store(true, Ordering::Relaxed);
        server.join().expect("the server does not panic")?;
        result
    })
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

/// Writes a profile, under its own name only once it is whole, and removes the one that is too many.
fn save(profile: &Profile, folder: &Path, number: u64, kept: usize) -> Result<(), Failure> {
    let path = |number| folder.join(format!("{number:06}.pb.gz"));
    let unfinished = folder.join("unfinished");
    write(profile, Format::Pprof, &mut std::fs::File::create(&unfinished)?)?;
    std::fs::rename(&unfinished, path(number))?;
    if let Some(oldest) = number.checked_sub(kept as u64).filter(|&oldest| oldest > 0) {
        std::fs::remove_file(path(oldest))?;
    }
    let ticks = profile.metadata.statistics.ticks;
    println!("{}: {} samples of {} ticks", path(number).display(), profile.total().samples, ticks.samples);
    Ok(())
}

/// A command-line argument, or its default.
fn argument<T: FromStr<Err: Error + Send + Sync + 'static>>(index: usize, default: T) -> Result<T, Failure> {
    Ok(std::env::args().nth(index).map(|argument| argument.parse()).transpose()?.unwrap_or(default))
}

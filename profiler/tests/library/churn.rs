//! Modules that are loaded, run and dropped without end, at addresses that are used again at once.
//!
//! Each generation of the module has its number in the names of all its functions. Six threads take turns, so that a
//! sample's thread tells which generations it can be of, by another way than the profiler's: generation `n` runs on the
//! thread with number `n` modulo 6, and two threads that follow each other use the same addresses.
//!
//! `FLAMEWALK_CHURN` sets the number of generations: 100,000 take half a minute.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use flamewalk::profile::{FrameKind, Metadata, Profile};
use flamewalk::{ProfiledCodeMemory, Profiler};
use wasmtime::{Caller, Config, Engine, Linker, Module, Store};

use crate::support::{alone, check_sums, options, stop};

/// Two threads load modules side by side, and each has three to run them.
const LOADERS: usize = 2;
const RUNNERS: usize = 3;
const CLASSES: usize = LOADERS * RUNNERS;

/// Stands for the number, and is as long.
const PLACEHOLDER: &str = "g0000000";

fn name_of(generation: usize) -> String {
    format!("g{generation:07}")
}

fn text() -> String {
    format!(
        "(module $module_{PLACEHOLDER}
           (import \"host\" \"which\" (func $which (param i32) (result i32)))
           (func $inner_{PLACEHOLDER} (param i32) (result i32) (local i32)
             (loop
               (local.set 1 (i32.rotl (i32.add (local.get 1) (local.get 0)) (i32.const 5)))
               (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
             (call $which (local.get 1)))
           (func $outer_{PLACEHOLDER} (export \"run\") (param i32) (result i32)
             (i32.add (call $inner_{PLACEHOLDER} (local.get 0)) (call $inner_{PLACEHOLDER} (local.get 0)))))"
    )
}

/// One generation's image: that of the first, with another number in its place.
fn image_of(first: &[u8], places: &[Range<usize>], generation: usize) -> Vec<u8> {
    let mut image = first.to_vec();
    for place in places {
        image[place.clone()].copy_from_slice(name_of(generation).as_bytes());
    }
    image
}

fn find_places(image: &[u8]) -> Vec<Range<usize>> {
    let is_place = |start: &usize| image[*start..].starts_with(PLACEHOLDER.as_bytes());
    (0..image.len()).filter(is_place).map(|start| start..start + PLACEHOLDER.len()).collect()
}

/// Runs a generation, which says its number in its host call.
fn run(profiler: &Profiler, generation: usize, module: &Module) {
    let mut linker = Linker::new(module.engine());
    let number = i32::try_from(generation).unwrap();
    let mut store = Store::new(module.engine(), number);
    linker.func_wrap("host", "which", |caller: Caller<'_, i32>, _: i32| *caller.data()).unwrap();
    profiler.attach(&mut store).unwrap();
    let instance = linker.instantiate(&mut store, module).unwrap();
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").unwrap();
    assert_eq!(run.call(&mut store, 60_000).unwrap(), 2 * number);
}

/// The generation in a name such as `inner_g0000017`.
fn generation_in(name: &str) -> usize {
    let number = name.rsplit_once("_g").unwrap_or_else(|| panic!("{name:?} has no generation")).1;
    number.parse().unwrap()
}

/// How many samples there are; each names one generation, and one that can have run on its thread.
fn check(profile: &Profile) -> u64 {
    check_sums(profile);
    let statistics = &profile.metadata.statistics;
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    for sample in profile.samples() {
        let stack = profile.stack(sample.stack);
        let frames: Vec<_> = stack.frames.iter().map(|id| profile.frame(*id)).collect();
        let of_guest = frames.iter().filter(|frame| frame.kind == FrameKind::Guest);
        let names: Vec<&str> =
            of_guest.flat_map(|frame| [&*frame.name, frame.module.as_deref().unwrap()]).collect();
        let generation = generation_in(names[0]);
        assert!(names.iter().all(|name| generation_in(name) == generation), "{names:?}");
        assert!(names[0].starts_with("outer_"), "{names:?}");
        let thread = profile.thread(sample.origin.thread.unwrap()).name.as_deref().unwrap();
        assert_eq!(thread, format!("class {}", generation % CLASSES), "{names:?}");
    }
    profile.total().samples
}

/// Memory in use, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn executable_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(" r-xp ")).count()
}

#[test]
fn modules_come_and_go_without_a_wrong_name_or_a_trace() {
    let _alone = alone();
    let generations = match std::env::var("FLAMEWALK_CHURN") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => 10_000usize,
    };
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(ProfiledCodeMemory::new())));
    let engine = Engine::new(&config).unwrap();
    let first = engine.precompile_module(text().as_bytes()).unwrap();
    let places = find_places(&first);
    assert!(places.len() >= 3, "{places:?}");
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    // SAFETY: bytes that Wasmtime has just made.
    run(&profiler, 0, &unsafe { Module::deserialize(&engine, &first) }.unwrap());
    let mappings = executable_mappings();
    profiler.start().unwrap();

    let started = Instant::now();
    let mut memory: Vec<usize> = Vec::new();
    let mut samples = 0;
    std::thread::scope(|scope| {
        let (tick, ticks) = channel();
        for loader in 0..LOADERS {
            let (tick, profiler, engine, first, places) = (tick.clone(), &profiler, &engine, &first, &places);
            scope.spawn(move || {
                let (done, is_done) = channel();
                let runners: Vec<Sender<(usize, Module)>> = (0..RUNNERS)
                    .map(|runner| {
                        let (to_runner, to_run) = channel::<(usize, Module)>();
                        let done = done.clone();
                        let class = loader * RUNNERS + runner;
                        std::thread::Builder::new()
                            .name(format!("class {class}"))
                            .spawn_scoped(scope, move || {
                                for (generation, module) in to_run {
                                    run(profiler, generation, &module);
                                    drop(module);
                                    done.send(()).unwrap();
                                }
                            })
                            .unwrap();
                        to_runner
                    })
                    .collect();
                for generation in (0..generations).filter(|number| number % CLASSES / RUNNERS == loader) {
                    let image = image_of(first, places, generation);
                    // SAFETY: bytes that Wasmtime has made, with other names.
                    let module = unsafe { Module::deserialize(engine, image) }.unwrap();
                    runners[generation % RUNNERS].send((generation, module)).unwrap();
                    is_done.recv().unwrap();
                    tick.send(()).unwrap();
                }
            });
        }
        drop(tick);
        for (count, ()) in ticks.iter().enumerate() {
            if (count + 1) % (generations / 20) == 0 {
                samples += check(&profiler.take(Metadata::default()).unwrap());
                memory.push(resident());
            }
        }
    });
    let last = stop(&profiler);
    samples += check(&last);
    println!(
        "{generations} generations in {:?}, {samples} samples, resident KiB: {memory:?}",
        started.elapsed()
    );
    assert!(samples as usize > generations / 10, "{samples}");
    // Half of the generations come after the warm-up. One that left 1 KiB behind would show.
    let (early, late) = (memory[memory.len() / 2], *memory.last().unwrap());
    let allowed = (generations / 2).max(4_096);
    assert!(late < early + allowed, "resident KiB: {memory:?}");
    assert_eq!(executable_mappings(), mappings, "code stays mapped");
}

//! Engines that are set up in ways that change the machine code: the right functions, with the right shares.

use std::collections::BTreeSet;

use flamewalk::profile::{Names, Profile};
use flamewalk::{Guest, Profiler};
use flamewalk_guests::{GUEST_STEPS_PER_ROUND, HOST_CALL_SHARE, KNOWN_ANSWER, SEED, chain};
use wasmtime::{Config, Engine, Inlining, Instance, Module, Store};

use crate::support::{KnownAnswer, Stolen, alone, names, options, share, stop, thread_cpu_time};

const RATE: u32 = 4_999;
/// Half a second.
const SAMPLES: u64 = 2_500;

fn engine(configure: impl FnOnce(&mut Config) -> &mut Config) -> Engine {
    let mut config = Config::new();
    Engine::new(configure(&mut config)).unwrap()
}

/// A store whose guests are not stopped by what the engine meters.
fn unlimited(store: &mut Store<()>) {
    store.set_epoch_deadline(u64::MAX / 2);
    // Engines without fuel refuse it.
    let _ = store.set_fuel(u64::MAX);
}

/// The guest's profile, and what was stolen of it.
fn known_answer(engine: &Engine) -> (Profile, f64) {
    let guest = KnownAnswer::compile_in(engine);
    let profiler = Profiler::new(options("cpu", RATE)).unwrap();
    guest.register(&profiler);
    let (mut store, run) = guest.instantiate(|| {});
    unlimited(&mut store);
    profiler.attach(&mut store).unwrap();
    profiler.start().unwrap();
    let stolen = Stolen::begin();
    while profiler.statistics().unwrap().ticks.samples < SAMPLES {
        assert_eq!(run.call(&mut store, 100).unwrap(), chain(SEED, 100 * GUEST_STEPS_PER_ROUND));
    }
    let stolen = stolen.share();
    let profile = stop(&profiler);
    let statistics = &profile.metadata.statistics;
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    (profile, stolen)
}

/// Profiles the guest in each engine, and looks at what comes of it.
fn in_each(engines: &[(&str, Engine)], look: impl Fn(&str, &Profile, f64)) {
    let _alone = alone();
    for (what, engine) in engines {
        let (profile, stolen) = known_answer(engine);
        look(what, &profile, stolen);
    }
}

/// What only changes what lies beside the code, or how memory is reserved, leaves the shares as they are.
#[test]
fn shares_are_known_whatever_lies_beside_the_code() {
    let engines = [
        ("debug information for native debuggers", engine(|config| config.debug_info(true))),
        ("no unwind information", engine(|config| config.native_unwind_info(false))),
        ("traps by calls", engine(|config| config.signals_based_traps(false))),
    ];
    in_each(&engines, |what, profile, stolen| {
        let innermost = |stack: &[&str]| {
            let known = |frame: &&str| KNOWN_ANSWER.iter().map(|known| known.0).find(|name| name == frame);
            stack.iter().rev().find_map(known)
        };
        let host = ("[host] env.burn", HOST_CALL_SHARE);
        for &(name, expected) in KNOWN_ANSWER.iter().chain([&host]) {
            let found = share(profile, |stack| {
                if name == host.0 { stack.last() == Some(&name) } else { innermost(stack) == Some(name) }
            });
            // Two points, as everywhere, and four standard deviations of so few samples; see also `Stolen`.
            let tolerance = 0.02 + stolen + 4.0 * (expected * (1.0 - expected) / SAMPLES as f64).sqrt();
            assert!((found - expected).abs() < tolerance, "{what}: {name} has {found}, not {expected}");
        }
    });
}

/// What the engine counts costs the guest time, loops more than straight code: the functions are known, their shares not.
#[test]
fn functions_are_known_when_the_guest_is_metered() {
    let engines = [
        ("epochs", engine(|config| config.epoch_interruption(true))),
        ("fuel", engine(|config| config.consume_fuel(true))),
    ];
    in_each(&engines, |what, profile, _| {
        for (name, _) in KNOWN_ANSWER {
            let found = share(profile, |stack| stack.contains(name));
            assert!(found > 0.01, "{what}: {name} has {found}");
        }
    });
}

/// `leaf` is small, and inlined by engines that inline; `apart` calls itself, which is not inlined. The memory has 64-bit
/// addresses.
const INLINED: &str = r#"(module $guest
  (memory i64 1)
  (func $leaf (param i64) (result i64)
    (i64.rotl (i64.mul (local.get 0) (i64.const 6364136223846793005)) (i64.const 7)))
  (func $apart (param i64 i32) (result i64)
    (i64.store (i64.and (local.get 0) (i64.const 0xff8)) (local.get 0))
    (if (result i64) (i32.eqz (local.get 1))
      (then (local.get 0))
      (else (call $apart (i64.div_u (local.get 0) (i64.const 3)) (i32.sub (local.get 1) (i32.const 1))))))
  (func $caller (export "run") (param i32) (result i64) (local i64)
    (loop
      (local.set 1 (call $leaf (local.get 1)))
      (local.set 1 (call $leaf (i64.add (local.get 1) (i64.const 1))))
      (if (i32.eqz (i32.and (local.get 0) (i32.const 63)))
        (then (local.set 1 (call $apart (local.get 1) (i32.const 8)))))
      (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1)))"#;

/// The stacks of that guest; calls of itself are one frame.
fn stacks_of_inlined(inlining: Inlining) -> BTreeSet<Vec<String>> {
    let engine = engine(|config| config.compiler_inlining(inlining).wasm_memory64(true));
    let binary = wat::parse_str(INLINED).unwrap();
    let module = Module::new(&engine, &binary).unwrap();
    let profiler = Profiler::new(options("cpu", RATE)).unwrap();
    profiler.register_module(&module, Guest::named("guest").binary(binary)).unwrap();
    let mut store = Store::new(&engine, ());
    profiler.attach(&mut store).unwrap();
    let run = Instance::new(&mut store, &module, &[]).unwrap();
    let run = run.get_typed_func::<i32, i64>(&mut store, "run").unwrap();
    profiler.start().unwrap();
    while profiler.statistics().unwrap().ticks.samples < SAMPLES {
        run.call(&mut store, 1_000_000).unwrap();
    }
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0, "{:?}", profile.metadata.statistics);
    let all = Names::new(&profile);
    let stacks = profile.stacks().map(|stack| {
        let mut stack: Vec<_> = names(&all, &stack).into_iter().map(str::to_owned).collect();
        stack.dedup();
        stack
    });
    stacks.collect()
}

/// Engines that inline were refused by the start-up check. What they have inlined has no bytecode offset in Wasmtime 48,
/// and counts for the function that it is inlined into.
#[test]
fn functions_that_wasmtime_inlines_count_for_those_that_run() {
    let _alone = alone();
    let expected = |stacks: &[&[&str]]| -> BTreeSet<Vec<String>> {
        stacks.iter().map(|stack| stack.iter().map(|name| (*name).to_owned()).collect()).collect()
    };
    let apart = stacks_of_inlined(Inlining::No);
    assert_eq!(apart, expected(&[&["caller"], &["caller", "leaf"], &["caller", "apart"]]));
    let inlined = stacks_of_inlined(Inlining::Yes);
    assert_eq!(inlined, expected(&[&["caller"], &["caller", "apart"]]));
}

/// It once was that a host with two engines had one of them checked anew, which compiles and runs guests, for each store that it
/// attached.
#[test]
fn engines_that_take_turns_are_not_checked_again_and_again() {
    const STORES: usize = 1_000;
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", RATE)).unwrap();
    let engines = [(); 4].map(|()| Engine::default());
    let attach = |engine: &Engine| profiler.attach(&mut Store::new(engine, ())).unwrap();
    engines.iter().for_each(|engine| _ = attach(engine));
    let taken_with = |engines: &[Engine]| {
        let begun = thread_cpu_time();
        engines.iter().cycle().take(STORES).for_each(|engine| _ = attach(engine));
        thread_cpu_time() - begun
    };
    let (one, four) = (taken_with(&engines[..1]), taken_with(&engines));
    println!("{STORES} stores of one engine took {one} s, of four {four} s");
    // A check takes hundreds of times as long as attaching.
    assert!(four < 10.0 * one, "{four} of {one} s");
}

//! Guests that are suspended, in `wall` time: each with the host call that it waits in, for as long as it waits.
//!
//! The truth is what the host functions measure themselves: the time from the first to the last poll of each wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flamewalk::profile::{Metadata, Names, Profile};
use flamewalk::{Event, Guest, Options, Profiler};
use tokio::sync::oneshot;
use wasmtime::{Caller, Config, Engine, Linker, Module, Store};

/// `visit` waits in each of three ways, so that a stack shows which call of which function is waited in.
const GUEST: &str = r#"(module
    (import "env" "short" (func $short))
    (import "env" "long" (func $long))
    (import "env" "block" (func $block))
    (import "env" "forever" (func $forever))
    (memory 1)
    (func $left (call $short))
    (func $right (call $long))
    (func $sync (call $block))
    (func $visit (export "visit") (param i32)
        (loop $again
            (call $left) (call $right) (call $sync)
            (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
    (func $stuck (call $forever))
    (func $hang (export "hang") (call $stuck))
    (func $spin (export "spin") (param i32)
        (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#;

/// One profiler is in a process at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What the host functions have measured, in nanoseconds.
#[derive(Default)]
struct Truth {
    short: AtomicU64,
    long: AtomicU64,
}

struct World {
    profiler: Profiler,
    engine: Engine,
    module: Module,
    linker: Linker<()>,
    truth: Arc<Truth>,
    runtime: tokio::runtime::Runtime,
}

/// A host function that sleeps, and measures for how long.
fn sleeping(
    linker: &mut Linker<()>,
    name: &str,
    millis: u64,
    truth: &Arc<Truth>,
    of: fn(&Truth) -> &AtomicU64,
) {
    let truth = Arc::clone(truth);
    linker
        .func_wrap_async("env", name, move |_: Caller<'_, ()>, (): ()| {
            let truth = Arc::clone(&truth);
            Box::new(async move {
                let start = Instant::now();
                tokio::time::sleep(Duration::from_millis(millis)).await;
                of(&truth).fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            })
        })
        .unwrap();
}

impl World {
    fn new(options: Options) -> Self {
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let binary = wat::parse_str(GUEST).unwrap();
        let module = Module::new(&engine, &binary).unwrap();
        let profiler = Profiler::new(options).unwrap();
        profiler.register_module(&module, Guest::named("guest").binary(binary)).unwrap();
        let truth = Arc::default();
        let mut linker = Linker::new(&engine);
        sleeping(&mut linker, "short", 3, &truth, |truth| &truth.short);
        sleeping(&mut linker, "long", 9, &truth, |truth| &truth.long);
        linker.func_wrap("env", "block", || std::thread::sleep(Duration::from_millis(1))).unwrap();
        linker
            .func_wrap_async("env", "forever", |_: Caller<'_, ()>, (): ()| {
                Box::new(std::future::pending::<()>())
            })
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        Self { profiler, engine, module, linker, truth, runtime: runtime.unwrap() }
    }

    /// A store with labels, and what runs `function` in it.
    fn visit(
        &self,
        label: Option<&str>,
        function: &'static str,
        argument: i32,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut store = Store::new(&self.engine, ());
        let labels = self.profiler.attach(&mut store).unwrap();
        if let Some(label) = label {
            labels.set([("tenant", label.to_owned())].into_iter().collect());
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let (linker, module) = (self.linker.clone(), self.module.clone());
        async move {
            let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
            if let Ok(run) = instance.get_typed_func::<i32, ()>(&mut store, function) {
                run.call_async(&mut store, argument).await.unwrap();
            } else {
                let run = instance.get_typed_func::<(), ()>(&mut store, function).unwrap();
                run.call_async(&mut store, ()).await.unwrap();
            }
        }
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.event = Event::Wall;
    options.suspended = true;
    // A busy machine may keep the collector from draining it for seconds.
    options.ring_words = 1 << 20;
    options
}

/// The weight of samples of suspended guests, by their stack and the label `tenant`.
fn suspended(profile: &Profile) -> BTreeMap<(String, String), u64> {
    let names = Names::new(profile);
    let mut found = BTreeMap::new();
    for sample in profile.samples() {
        let thread = sample.origin.thread.map(|thread| profile.thread(thread));
        if thread.and_then(|thread| thread.name.as_deref()) != Some("suspended") {
            continue;
        }
        let frames = &profile.stack(sample.stack).frames;
        let stack: Vec<_> = frames.iter().map(|&frame| names.of(frame).to_owned()).collect();
        let tenant = profile.labels(sample.origin.labels).get("tenant").unwrap_or_default().to_owned();
        *found.entry((stack.join(";"), tenant)).or_default() += sample.tally.weight;
    }
    found
}

fn with_stack(found: &BTreeMap<(String, String), u64>, stack: &str) -> u64 {
    found.iter().filter(|((of, _), _)| of == stack).map(|(_, weight)| weight).sum()
}

#[test]
fn waits_have_their_weight_and_their_stack() {
    let _only = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new(options());
    world.profiler.start().unwrap();
    // More than are looked at in one tick, so that some stand for others.
    let tasks: Vec<_> = (0..300)
        .map(|index| world.visit(Some(if index % 3 == 0 { "a" } else { "b" }), "visit", 12))
        .map(|visit| world.runtime.spawn(visit))
        .collect();
    world.runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    let profile = world.profiler.stop(Metadata::default()).unwrap();
    let statistics = &profile.metadata.statistics;
    statistics.check().unwrap();
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");

    let found = suspended(&profile);
    let expected = ["visit;left;[host] env.short", "visit;right;[host] env.long"];
    for (stack, _) in found.keys() {
        assert!(expected.contains(&stack.as_str()), "nobody waits there: {stack}");
    }
    let truths = [&world.truth.short, &world.truth.long].map(|truth| truth.load(Ordering::Relaxed));
    for (stack, truth) in expected.into_iter().zip(truths) {
        let ratio = with_stack(&found, stack) as f64 / truth as f64;
        println!("{stack}: {ratio:.4} of {truth} ns");
        // About ten thousand samples of each, of which those of a tick are much alike: runs differ by 1 %; five times that.
        // And the moments in which a wait is polled are in the truth, and are not suspended.
        assert!((0.95..=1.05).contains(&ratio), "{stack}: {ratio}");
    }
    let of_a: u64 = found.iter().filter(|((_, tenant), _)| tenant == "a").map(|(_, weight)| weight).sum();
    let share = of_a as f64 / found.values().sum::<u64>() as f64;
    println!("tenant a: {share:.4}");
    assert!((share - 1.0 / 3.0).abs() < 0.02, "{share}");
}

#[test]
fn a_stuck_guest_is_found_even_if_it_was_stuck_before() {
    let _only = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new(options());
    let hang = world.runtime.spawn(world.visit(Some("stuck"), "hang", 0));
    // The guest has been suspended when another one that came later has been through.
    world.runtime.block_on(world.visit(None, "visit", 1));
    let stack = ("hang;stuck;[host] env.forever".to_owned(), "stuck".to_owned());

    let start = Instant::now();
    world.profiler.start().unwrap();
    let seen = |profile: &Profile| suspended(profile).get(&stack).copied();
    let weight = loop {
        let before = start.elapsed();
        let snapshot = world.profiler.snapshot(Metadata::default()).unwrap();
        let (weight, after) = (seen(&snapshot).unwrap_or_default(), start.elapsed());
        assert!(Duration::from_nanos(weight) <= after, "{weight} in {after:?}");
        if before > Duration::from_millis(50) && weight > 0 {
            break weight;
        }
    };
    // Paused, nothing is added but what had passed before.
    world.profiler.pause().unwrap();
    // The thread that looks at guests has heard of it when others have been through.
    world.runtime.block_on(world.visit(None, "visit", 5));
    let paused = start.elapsed();
    world.runtime.block_on(world.visit(None, "visit", 20));
    world.profiler.resume().unwrap();
    let resumed = start.elapsed();
    world.profiler.set_rate(97).unwrap();
    let later = loop {
        let later = seen(&world.profiler.snapshot(Metadata::default()).unwrap()).unwrap();
        if later > weight {
            break later;
        }
    };
    let sampled = start.elapsed() - (resumed - paused);
    assert!(Duration::from_nanos(later) <= sampled, "{later} of {sampled:?}");

    // A guest that is given up is not suspended any more.
    hang.abort();
    let cancelled = world.runtime.block_on(hang);
    assert!(cancelled.unwrap_err().is_cancelled());
    world.profiler.take(Metadata::default()).unwrap();
    world.runtime.block_on(world.visit(None, "visit", 5));
    let profile = world.profiler.stop(Metadata::default()).unwrap();
    assert_eq!(seen(&profile), None);
}

#[test]
fn a_guest_that_yields_waits_in_the_runtime() {
    let _only = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new(options());
    world.profiler.start().unwrap();
    let (end, mut ended) = oneshot::channel::<()>();
    let ticker = std::thread::spawn({
        let engine = world.engine.clone();
        move || {
            while ended.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                engine.increment_epoch();
                // Guests are to get on between two epochs.
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    });
    // More guests than threads: who yields has to wait for the others.
    let guests: Vec<_> =
        (0..20).map(|_| world.runtime.spawn(world.visit(None, "spin", 20_000_000))).collect();
    world.runtime.block_on(async {
        for guest in guests {
            guest.await.unwrap();
        }
    });
    end.send(()).unwrap();
    ticker.join().unwrap();
    let profile = world.profiler.stop(Metadata::default()).unwrap();
    let found = suspended(&profile);
    println!("{found:?}");
    assert!(found.keys().all(|(stack, _)| stack.starts_with("spin;[builtin]")), "{found:?}");
    assert!(!found.is_empty());
}

#[test]
fn other_events_say_that_they_have_no_such_time() {
    let _only = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut options = options();
    options.event = Event::Cpu;
    let world = World::new(options);
    world.profiler.start().unwrap();
    world.runtime.block_on(world.visit(None, "visit", 5));
    let profile = world.profiler.stop(Metadata::default()).unwrap();
    assert!(suspended(&profile).is_empty());
    let notices = &profile.metadata.notices;
    assert!(notices.iter().any(|notice| notice.contains("only `wall` time")), "{notices:?}");
}

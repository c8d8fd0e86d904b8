//! Every tick is delivered, outside the guest, or lost for a cause that is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flamewalk::profile::{FrameKind, Metadata, Stack};
use flamewalk::{Error, Event, Guest as Registered, Profiler};
use flamewalk_guests::Guest;
use wasmtime::{Engine, Instance, Module, Store};

use crate::support::{KnownAnswer, SetOnDrop, alone, check_sums, kinds, options, stop, thread_cpu_time};

#[test]
fn sums_agree_for_every_event() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let mut sampled = Vec::new();
    for event in Event::names() {
        let profiler = Profiler::new(options(event, 4_999)).unwrap();
        let (mut store, run) = guest.attached_to(&profiler);
        match profiler.start() {
            Ok(()) => {}
            // No such counter on this machine, or not for us.
            Err(Error::NoEvent { .. } | Error::EventRefused { .. }) => continue,
            Err(error) => panic!("{event}: {error}"),
        }
        run.call(&mut store, 100).unwrap();
        let profile = stop(&profiler);
        assert_eq!(profile.metadata.event.name, event);
        sampled.push(event);
    }
    for event in ["cpu", "cpu-timer", "wall"] {
        assert!(sampled.contains(&event), "{sampled:?}");
    }
}

/// A ring for a few samples that is not emptied while the guest runs.
#[test]
fn what_does_not_fit_into_the_ring_is_counted() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let mut options = options("cpu", 4_999);
    options.ring_words = 256;
    options.collector.drain_interval = Some(Duration::from_secs(3_600));
    let profiler = Profiler::new(options).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    profiler.start().unwrap();
    run.call(&mut store, 1_000).unwrap();
    let profile = stop(&profiler);
    let statistics = &profile.metadata.statistics;
    assert!(profile.total().samples > 0, "{statistics:?}");
    assert!(statistics.lost["ring full"].samples > profile.total().samples, "{statistics:?}");
    assert_eq!(statistics.lost.len(), 1, "{statistics:?}");
}

/// Stacks of 1,024 frames at 9,997 Hz were more than the default ring holds for the 20 ms that it was drained after: a third
/// was lost. It is drained as often as the rate needs now, also if that is raised while the collector sleeps for longer.
#[test]
fn the_deepest_stacks_at_the_highest_rate_are_not_lost() {
    const GUEST: &str = r#"(module (func $run (export "run") (param $depth i32) (param $turns i32)
      (if (local.get $depth)
        (then (call $run (i32.sub (local.get $depth) (i32.const 1)) (local.get $turns)) (return)))
      (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))))"#;
    let _alone = alone();
    let module = Module::new(&Engine::default(), wat::parse_str(GUEST).unwrap()).unwrap();
    let profiler = Profiler::new(options("cpu", 1)).unwrap();
    profiler.register_module(&module, Registered::named("recursion")).unwrap();
    let mut store = Store::new(module.engine(), ());
    profiler.attach(&mut store).unwrap();
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<(u32, u32), ()>(&mut store, "run").unwrap();
    profiler.start().unwrap();
    run.call(&mut store, (0, 1)).unwrap();
    profiler.set_rate(9_997).unwrap();
    let before = thread_cpu_time();
    while thread_cpu_time() < before + 1.0 {
        run.call(&mut store, (1_100, 50_000_000)).unwrap();
    }
    let statistics = stop(&profiler).metadata.statistics;
    assert!(statistics.delivered.samples > 1_000, "{statistics:?}");
    // Nothing if the collector gets its turn in time, which a busy machine may not give it now and then.
    assert!(10 * statistics.total_lost().samples <= statistics.ticks.samples, "{statistics:?}");
}

/// The rarest stacks are cut and merged; their samples are still there, and a notice says how many.
#[test]
fn stacks_that_no_memory_is_left_for_are_merged() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let mut options = options("cpu", 4_999);
    options.collector.max_stack_bytes = 10_000;
    let profiler = Profiler::new(options).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    profiler.start().unwrap();
    run.call(&mut store, 500).unwrap();
    let profile = stop(&profiler);
    let statistics = &profile.metadata.statistics;
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    let is_cut = |stack: &Stack<'_>| kinds(&profile, stack)[0] == FrameKind::Truncated;
    let cut: u64 = profile.stacks().filter(is_cut).map(|stack| stack.tally.samples).sum();
    assert!(cut > 0 && cut < profile.total().samples, "{cut} of {:?}", profile.total());
    let notices = &profile.metadata.notices;
    assert!(notices.iter().any(|notice| notice.contains(&format!("with {cut} (weight"))), "{notices:?}");
}

/// Of a deep stack the youngest frames are kept, below a root that says so.
#[test]
fn a_deep_stack_is_cut_at_its_root() {
    const LIMIT: usize = 16;
    let _alone = alone();
    let binary = std::fs::read(Guest::Reactor.path()).unwrap();
    let module = Module::new(&Engine::default(), &binary).unwrap();
    let mut options = options("cpu", 4_999);
    options.frame_limit = LIMIT;
    let profiler = Profiler::new(options).unwrap();
    profiler.register_module(&module, Registered::named("reactor").binary(binary)).unwrap();
    let mut store = Store::new(module.engine(), ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let fibonacci = instance.get_typed_func::<u32, u32>(&mut store, "fibonacci").unwrap();
    profiler.attach(&mut store).unwrap();
    profiler.start().unwrap();
    assert_eq!(fibonacci.call(&mut store, 35).unwrap(), 9_227_465);
    let profile = stop(&profiler);

    let (mut cut, mut whole) = (0, 0);
    for stack in profile.stacks() {
        let kinds = kinds(&profile, &stack);
        let machine_frames = stack
            .frames
            .iter()
            .filter(|&&id| profile.frame(id).kind == FrameKind::Guest && !profile.frame(id).inlined);
        let depth = machine_frames.count();
        if kinds[0] == FrameKind::Truncated {
            assert_eq!(depth, LIMIT);
            cut += stack.tally.samples;
        } else {
            assert!(depth <= LIMIT, "{depth}");
            whole += stack.tally.samples;
        }
        assert!(!kinds[1..].contains(&FrameKind::Truncated));
    }
    let ends = &profile.metadata.statistics.walk_ends;
    let of_ends = |name: &str| ends.iter().find(|end| end.0.contains(name)).map_or(0, |end| end.1.samples);
    assert!(cut > 0 && whole > 0, "{ends:?}");
    assert_eq!((of_ends("frame limit"), of_ends("entry of the guest")), (cut, whole), "{ends:?}");
}

/// A snapshot is a profile like any other, although samples arrive while it is taken.
#[test]
fn sums_agree_while_sampling_goes_on() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 20_000)).unwrap();
    guest.register(&profiler);
    profiler.start().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        scope.spawn(|| {
            let (mut store, run) = guest.instantiate(|| {});
            profiler.attach(&mut store).unwrap();
            while !done.load(Ordering::Relaxed) {
                run.call(&mut store, 10).unwrap();
            }
        });
        let mut samples = 0;
        let mut snapshots = 0;
        while samples < 10_000 {
            profiler.statistics().unwrap().check().unwrap();
            let profile = profiler.snapshot(Metadata::default()).unwrap();
            check_sums(&profile);
            assert!(profile.total().samples >= samples);
            samples = profile.total().samples;
            snapshots += 1;
        }
        println!("{snapshots} snapshots");
    });
    stop(&profiler);
}

/// Statistics were asked for after each call of the guest, every few milliseconds. The collector waited for 50 ms
/// without a question before it drained the rings, so it never did: they ran full, and all further samples were lost.
#[test]
fn questions_without_pause_do_not_keep_the_rings_from_being_drained() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let mut options = options("cpu", 4_999);
    options.ring_words = 1 << 11;
    let profiler = Arc::new(Profiler::new(options).unwrap());
    guest.register(&profiler);
    let asked = Arc::clone(&profiler);
    let (mut store, run) = guest.instantiate(move || drop(asked.statistics().unwrap()));
    profiler.attach(&mut store).unwrap();
    profiler.start().unwrap();
    run.call(&mut store, 500).unwrap();
    let profile = stop(&profiler);
    let statistics = &profile.metadata.statistics;
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    // More than the ring holds: a record has at least the header and a frame.
    assert!(profile.total().samples > (1 << 11) / 5, "{statistics:?}");
}

/// What the profiler takes, as numbers.
#[test]
fn statistics_say_what_the_profiler_takes() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    profiler.start().unwrap();
    run.call(&mut store, 100).unwrap();
    let first = profiler.statistics().unwrap();
    run.call(&mut store, 300).unwrap();
    let profile = stop(&profiler);
    let last = &profile.metadata.statistics;
    // Each tick takes at least two reads of the counter, which are some nanoseconds, and is part of the time that it
    // samples: what handlers take together is a small part of that.
    for statistics in [&first, last] {
        let per_tick = statistics.resources.handler_time.as_nanos() as u64 / statistics.ticks.samples;
        assert!(per_tick > 2, "{statistics:?}");
        assert!(
            statistics.resources.handler_time.as_nanos() as u64 <= statistics.ticks.weight / 2,
            "{statistics:?}"
        );
    }
    let (before, after) = (&first.resources, &last.resources);
    assert!(after.handler_time > before.handler_time);
    assert!((1..=after.ring_size).contains(&after.ring_high_water), "{after:?}");
    // There is one thread; at the stop its ring is freed.
    assert_eq!((before.memory.rings, after.memory.rings), (before.ring_size, 0));
    assert!(before.memory.stacks > 0 && before.memory.total() > before.memory.rings, "{before:?}");
    // The guest, and nothing that was left from another profiler.
    assert_eq!((after.threads, after.stores, after.images), (1, 1, 1));
    assert!(after.memory.tables > guest.module.text().len() as u64 / 100, "{after:?}");
}

//! Starting, stopping, dropping: at any point, in any order.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use flamewalk::profile::Metadata;
use flamewalk::{Error, Options, Profiler};

use crate::support::{KnownAnswer, alone, options, share, stop, thread_cpu_time};

const ROUNDS: u32 = 100;

#[test]
fn what_is_out_of_order_is_an_error() {
    let _alone = alone();
    let profiler = Profiler::new(Options::default()).unwrap();
    assert!(!profiler.is_running());
    assert!(matches!(profiler.stop(Metadata::default()), Err(Error::NotRunning)));
    assert!(matches!(profiler.snapshot(Metadata::default()), Err(Error::NotRunning)));
    assert!(matches!(profiler.statistics(), Err(Error::NotRunning)));
    profiler.start().unwrap();
    assert!(profiler.is_running());
    assert!(matches!(profiler.start(), Err(Error::AlreadyRunning)));
    // The second start has changed nothing.
    assert!(profiler.is_running());
    stop(&profiler);
    assert!(matches!(profiler.stop(Metadata::default()), Err(Error::NotRunning)));
}

/// A store that is attached to a profiler that is gone took the thread that runs it from the next one.
#[test]
fn stores_of_a_profiler_that_is_gone_leave_threads_to_the_next() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let (mut store, run) = guest.instantiate(|| {});
    let former = Profiler::new(Options::default()).unwrap();
    former.attach(&mut store).unwrap();
    run.call(&mut store, 1).unwrap();
    drop(former);
    let profiler = Profiler::new(Options::default()).unwrap();
    profiler.attach_thread().unwrap();
    profiler.start().unwrap();
    let start = thread_cpu_time();
    run.call(&mut store, 100).unwrap();
    let passed = thread_cpu_time() - start;
    let counted = stop(&profiler).metadata.statistics.ticks.weight as f64 / 1e9;
    // The last period is not over.
    assert!(counted > passed - 0.02, "{counted} of {passed} s");
}

#[test]
fn there_is_one_profiler_at_a_time() {
    let _alone = alone();
    let first = Profiler::new(Options::default()).unwrap();
    let error = Profiler::new(Options::default()).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists));
    assert!(error.to_string().contains("drop it"), "{error}");
    drop(first);
    // One that was refused leaves room for the next.
    assert!(matches!(Profiler::new(options("cpu", 0)), Err(Error::Rate { rate: 0, .. })));
    drop(Profiler::new(Options::default()).unwrap());
    Profiler::new(Options::default()).unwrap();
}

#[test]
fn a_guest_cannot_be_registered_twice() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(Options::default()).unwrap();
    guest.register(&profiler);
    let again = profiler.register_module(&guest.module, flamewalk::Guest::named("again"));
    assert!(matches!(again, Err(Error::Register(_))), "{again:?}");
    drop(profiler);
    guest.register(&Profiler::new(Options::default()).unwrap());
}

/// Each profile holds what was sampled between its start and its stop.
#[test]
fn it_can_be_started_again() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    let mut totals = Vec::new();
    for rounds in [400, 100, 200] {
        profiler.start().unwrap();
        run.call(&mut store, rounds).unwrap();
        totals.push(stop(&profiler).total().weight as f64 / f64::from(rounds));
        // Not sampled.
        run.call(&mut store, ROUNDS).unwrap();
    }
    // The same work takes the same time; half is left for the machine's moods.
    for total in &totals {
        assert!((0.5..2.0).contains(&(total / totals[0])), "{totals:?}");
    }
}

#[test]
fn a_store_can_be_attached_at_any_time() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let (mut before, run_before) = guest.instantiate(|| {});
    profiler.attach(&mut before).unwrap();
    profiler.start().unwrap();
    guest.register(&profiler);
    let (mut after, run_after) = guest.instantiate(|| {});
    profiler.attach(&mut after).unwrap();
    run_before.call(&mut before, ROUNDS).unwrap();
    let first = profiler.snapshot(Metadata::default()).unwrap().total();
    run_after.call(&mut after, ROUNDS).unwrap();
    let both = stop(&profiler);
    assert!(first.samples > 0 && both.total().samples > first.samples, "{first:?} {:?}", both.total());
    assert_eq!(both.metadata.statistics.total_lost().samples, 0);
}

/// A store that is not attached is outside, and the guests below the host of one that is attached stay its own.
#[test]
fn a_store_that_is_not_attached_is_not_sampled() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    guest.register(&profiler);
    let (mut store, run) = guest.instantiate(|| {});
    profiler.start().unwrap();
    run.call(&mut store, ROUNDS).unwrap();
    assert!(stop(&profiler).is_empty());
}

#[test]
fn a_dropped_profiler_leaves_stores_that_work() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(ROUNDS);
    let (mut store, run) = guest.instantiate(|| {});
    for running in [true, false] {
        let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
        guest.register(&profiler);
        profiler.attach(&mut store).unwrap();
        if running {
            profiler.start().unwrap();
        }
        assert_eq!(run.call(&mut store, ROUNDS).unwrap(), truth);
        drop(profiler);
        assert_eq!(run.call(&mut store, ROUNDS).unwrap(), truth);
    }
}

#[test]
fn it_can_be_dropped_in_a_host_call() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(ROUNDS);
    let profiler = Arc::new(Mutex::new(Some(Profiler::new(options("cpu", 20_000)).unwrap())));
    let to_drop = Arc::clone(&profiler);
    let (mut store, run) = guest.instantiate(move || drop(to_drop.lock().unwrap().take()));
    {
        let profiler = profiler.lock().unwrap();
        let profiler = profiler.as_ref().unwrap();
        guest.register(profiler);
        profiler.attach(&mut store).unwrap();
        profiler.start().unwrap();
    }
    assert_eq!(run.call(&mut store, ROUNDS).unwrap(), truth);
    assert!(profiler.lock().unwrap().is_none());
}

/// The activations of the guest that is running are known although they began before the start.
#[test]
fn it_can_be_started_and_stopped_in_a_host_call() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(ROUNDS);
    let profiler = Arc::new(Profiler::new(options("cpu", 20_000)).unwrap());
    guest.register(&profiler);
    let profiles = Arc::new(Mutex::new(Vec::new()));
    let (in_call, kept) = (Arc::clone(&profiler), Arc::clone(&profiles));
    let calls = AtomicU32::new(0);
    let (mut store, run) = guest.instantiate(move || {
        // There are 10 calls at the end of a round: from the middle of these in one round to there in the next, so
        // that the guest's own work, about 20 ticks, lies between.
        match calls.fetch_add(1, Ordering::Relaxed) % 20 {
            5 => in_call.start().unwrap(),
            15 => kept.lock().unwrap().push(stop(&in_call)),
            _ => {}
        }
    });
    profiler.attach(&mut store).unwrap();
    assert_eq!(run.call(&mut store, ROUNDS).unwrap(), truth);
    drop(store);
    let profiles = profiles.lock().unwrap();
    assert_eq!(profiles.len(), ROUNDS as usize / 2);
    let sampled: Vec<_> = profiles.iter().filter(|profile| !profile.is_empty()).collect();
    let metadata = || profiles.iter().map(|profile| &profile.metadata).collect::<Vec<_>>();
    assert!(!sampled.is_empty(), "{:#?}", metadata());
    for profile in sampled {
        assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
        assert_eq!(share(profile, |stack| stack[0] == "run"), 1.0);
    }
}

#[test]
fn a_store_can_be_dropped_while_it_is_running() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    guest.register(&profiler);
    profiler.start().unwrap();
    for _ in 0..20 {
        let (mut store, run) = guest.instantiate(|| {});
        profiler.attach(&mut store).unwrap();
        run.call(&mut store, 20).unwrap();
    }
    let profile = stop(&profiler);
    assert!(profile.total().samples > 0);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
}

#[test]
fn every_thread_that_runs_an_attached_store_is_sampled() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(ROUNDS);
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    guest.register(&profiler);
    profiler.start().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            // Attached here and run there.
            let (mut store, run) = guest.instantiate(|| {});
            profiler.attach(&mut store).unwrap();
            scope.spawn(move || assert_eq!(run.call(&mut store, ROUNDS).unwrap(), truth));
        }
    });
    let both = stop(&profiler);
    assert_eq!(both.metadata.statistics.total_lost().samples, 0);

    // One thread's worth, for comparison.
    profiler.start().unwrap();
    let (mut store, run) = guest.instantiate(|| {});
    profiler.attach(&mut store).unwrap();
    run.call(&mut store, ROUNDS).unwrap();
    let one = stop(&profiler);
    let ratio = both.total().weight as f64 / one.total().weight as f64;
    assert!((1.3..3.0).contains(&ratio), "{ratio}");
}

/// The profiler goes while another thread is in the guest.
#[test]
fn it_can_be_dropped_while_another_thread_is_in_the_guest() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(ROUNDS);
    for _ in 0..10 {
        let (inside, is_inside) = std::sync::mpsc::channel();
        let profiler = Profiler::new(options("cpu", 20_000)).unwrap();
        guest.register(&profiler);
        let inside = Mutex::new(inside);
        let (mut store, run) = guest.instantiate(move || {
            // Nobody listens any more after the first.
            let _ = inside.lock().unwrap().send(());
        });
        profiler.attach(&mut store).unwrap();
        profiler.start().unwrap();
        let thread = std::thread::spawn(move || run.call(&mut store, ROUNDS).unwrap());
        is_inside.recv().unwrap();
        drop(profiler);
        assert_eq!(thread.join().unwrap(), truth);
    }
}

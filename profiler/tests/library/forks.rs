//! Forks of the host: the child is left alone, and the parent goes on as if nothing had happened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flamewalk::profile::Metadata;
use flamewalk::{Error, Profiler};

use crate::support::{
    KnownAnswer, SetOnDrop, alone, assert_between, clock_of, in_child, options, stop, switching_time, untold,
};

const RATE: u32 = 9_973;
const EVENTS: [&str; 3] = ["cpu", "cpu-timer", "wall"];

/// Everything that the child can do with what it has from the parent. Other threads are in guests, handlers and locks as
/// it is forked.
#[test]
fn a_child_is_left_alone_and_the_parent_is_not_disturbed() {
    const FORKS: u32 = 20;
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(20);
    for event in EVENTS {
        let mut profiler = Some(Profiler::new(options(event, RATE)).unwrap());
        let original = profiler.as_ref().unwrap();
        guest.register(original);
        original.start().unwrap();
        let done = AtomicBool::new(false);
        let (mut store, run) = guest.instantiate(|| {});
        original.attach(&mut store).unwrap();
        thread::scope(|scope| {
            let _done = SetOnDrop(&done);
            let (done, guest) = (&done, &guest);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let (mut store, run) = guest.instantiate(|| {});
                    original.attach(&mut store).unwrap();
                    run.call(&mut store, 5).unwrap();
                    drop(original.snapshot(Metadata::default()).unwrap());
                }
            });
            for _ in 0..FORKS {
                run.call(&mut store, 5).unwrap();
                in_child(|| {
                    // Guests run on, unprofiled.
                    assert_eq!(run.call(&mut store, 20).unwrap(), truth);
                    assert!(!original.is_running() && !original.is_paused());
                    assert!(matches!(original.start(), Err(Error::Forked)));
                    assert!(matches!(original.pause(), Err(Error::Forked)));
                    assert!(matches!(original.resume(), Err(Error::Forked)));
                    assert!(matches!(original.set_rate(97), Err(Error::Forked)));
                    assert!(matches!(original.attach_thread(), Err(Error::Forked)));
                    assert!(matches!(original.statistics(), Err(Error::Forked)));
                    assert!(matches!(original.snapshot(Metadata::default()), Err(Error::Forked)));
                    assert!(matches!(original.stop(Metadata::default()), Err(Error::Forked)));
                    nix::sys::signal::raise(nix::sys::signal::Signal::SIGPROF).unwrap();
                });
            }
        });

        // The last one drops everything that it has, and profiles itself.
        let clock = clock_of(event);
        let around = clock() + switching_time(event);
        let ticks = profiler.as_ref().unwrap().statistics().unwrap().ticks;
        let within = clock();
        in_child(|| {
            drop(profiler.take());
            drop(store);
            let own = Profiler::new(options(event, 4_999)).unwrap();
            guest.register(&own);
            let (mut store, run) = guest.instantiate(|| {});
            // Wasmtime compiles on a pool of threads, which the child does not have.
            let _attached = own.hook_with(&mut store, run.func()).unwrap();
            own.attach_thread().unwrap();
            own.start().unwrap();
            assert_eq!(run.call(&mut store, 20).unwrap(), truth);
            (0..10).for_each(|_| _ = run.call(&mut store, 20).unwrap());
            assert!(stop(&own).total().samples > 0);
        });
        let profiler = profiler.unwrap();
        // The parent is sampled as before: nothing that the children did has stopped its events.
        let (mut store, run) = guest.instantiate(|| {});
        profiler.attach(&mut store).unwrap();
        run.call(&mut store, 300).unwrap();
        let least = clock() - within;
        let after = profiler.statistics().unwrap().ticks;
        let most = clock() + switching_time(event) - around;
        let counted = (after.weight - ticks.weight) as f64 / 1e9;
        println!("{event}: {counted:.4} of {least:.4} to {most:.4} s");
        // What was untold at the beginning, too; the timer of another processor may be late.
        let before = untold(event, RATE) + if event == "wall" { 0.010 } else { 0.0 };
        assert_between(event, RATE, counted, least, most + before);
        stop(&profiler);
    }
}

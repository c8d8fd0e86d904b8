//! Control while guests run: pauses, rates, and storms of everything at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flamewalk::profile::Metadata;
use flamewalk::{Error, Options, Profiler};
use nix::sys::signal::Signal;

use crate::support::{
    KnownAnswer, SetOnDrop, alone, assert_between, check_sums, clock_of, options, stop, switching_time,
};

const EVENTS: [&str; 3] = ["cpu", "cpu-timer", "wall"];

/// Each event, by each way that its signals come.
const WAYS: [(&str, Signal); 4] = [
    ("cpu", Signal::SIGPROF),
    ("cpu", Signal::SIGTRAP),
    ("cpu-timer", Signal::SIGPROF),
    ("wall", Signal::SIGPROF),
];

fn options_by(event: &str, signal: Signal, rate: u32) -> Options {
    let mut options = options(event, rate);
    options.signal = signal;
    options
}

/// It can be put into a static, or handed to any thread.
const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Profiler>();
};

#[test]
fn what_is_out_of_order_is_an_error() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 997)).unwrap();
    assert!(matches!(profiler.pause(), Err(Error::NotRunning)));
    assert!(matches!(profiler.resume(), Err(Error::NotRunning)));
    profiler.start().unwrap();
    assert!(!profiler.is_paused());
    for _ in 0..2 {
        profiler.pause().unwrap();
        assert!(profiler.is_paused() && profiler.is_running());
        assert!(matches!(profiler.start(), Err(Error::AlreadyRunning)));
    }
    for _ in 0..2 {
        profiler.resume().unwrap();
        assert!(!profiler.is_paused() && profiler.is_running());
    }
    for rate in [0, 20_001, u32::MAX] {
        assert!(matches!(profiler.set_rate(rate), Err(Error::Rate { .. })));
        assert_eq!(profiler.rate().unwrap(), 997);
    }
    profiler.pause().unwrap();
    let profile = stop(&profiler);
    assert!(profile.metadata.paused.is_some());
    assert!(!profiler.is_running() && !profiler.is_paused());
}

/// The rate is the profiler's, for the next session as well.
#[test]
fn a_rate_can_be_set_before_the_start() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 997)).unwrap();
    profiler.set_rate(4_999).unwrap();
    profiler.start().unwrap();
    profiler.set_rate(97).unwrap();
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.asked_rate, Some(97.0));
    assert_eq!(profile.metadata.notices, ["the rate was changed while sampling: 4999, then 97 Hz"]);
    profiler.start().unwrap();
    let profile = stop(&profiler);
    assert_eq!((profile.metadata.asked_rate, profile.metadata.notices.len()), (Some(97.0), 0));
}

/// What is sampled between pauses is all that is in the profile, and all of it is.
#[test]
fn pauses_are_left_out_and_nothing_else() {
    const STRETCHES: u32 = 20;
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for (event, signal) in WAYS {
        let profiler = Profiler::new(options_by(event, signal, 997)).unwrap();
        let (mut store, run) = guest.attached_to(&profiler);
        profiler.attach_thread().unwrap();
        let start = Instant::now();
        let clock = clock_of(event);
        profiler.start().unwrap();
        profiler.pause().unwrap();
        // From within the calls of `resume` and `pause`, and from around them: the truth lies between.
        let (mut least, mut most) = (0.0, -switching_time(event));
        for _ in 0..STRETCHES {
            run.call(&mut store, 10).unwrap();
            let ticks = profiler.statistics().unwrap().ticks;
            most -= clock();
            profiler.resume().unwrap();
            least -= clock();
            run.call(&mut store, 30).unwrap();
            least += clock();
            profiler.pause().unwrap();
            most += clock();
            run.call(&mut store, 10).unwrap();
            // Ticks that were on their way at the pause have long arrived.
            let after = profiler.statistics().unwrap().ticks;
            assert!(after.samples >= ticks.samples);
            run.call(&mut store, 30).unwrap();
            assert_eq!(profiler.statistics().unwrap().ticks, after, "{event}: ticks in a pause");
        }
        let profile = stop(&profiler);
        most += switching_time(event);
        let metadata = &profile.metadata;
        let statistics = &metadata.statistics;
        assert_eq!(statistics.total_lost().samples, 0, "{event}: {statistics:?}");
        let counted = statistics.ticks.weight as f64 / 1e9;
        println!(
            "{event}, {signal}: {counted:.4} of {least:.4} to {most:.4} s, {} ticks",
            statistics.ticks.samples
        );
        assert_between(event, 997, counted, least, most);
        let (paused, duration) = (metadata.paused.unwrap(), metadata.duration.unwrap());
        assert!(
            paused < duration && duration - paused < Duration::from_secs_f64(start.elapsed().as_secs_f64())
        );
    }
}

/// Changing the rate all the time changes how many ticks there are, and not what they weigh together.
#[test]
fn no_weight_is_lost_when_the_rate_changes() {
    const RATES: [u32; 4] = [97, 997, 4_999, 9_973];
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for (event, signal) in WAYS {
        let profiler = Profiler::new(options_by(event, signal, RATES[0])).unwrap();
        let (mut store, run) = guest.attached_to(&profiler);
        profiler.attach_thread().unwrap();
        let clock = clock_of(event);
        let around = clock() + switching_time(event);
        profiler.start().unwrap();
        let within = clock();
        for rate in RATES.iter().cycle().take(100) {
            profiler.set_rate(*rate).unwrap();
            run.call(&mut store, 10).unwrap();
        }
        let least = clock() - within;
        let profile = stop(&profiler);
        let most = clock() + switching_time(event) - around;
        let statistics = &profile.metadata.statistics;
        let counted = statistics.ticks.weight as f64 / 1e9;
        println!(
            "{event}, {signal}: {counted:.4} of {least:.4} to {most:.4} s, {} ticks",
            statistics.ticks.samples
        );
        assert_between(event, RATES[3], counted, least, most);
        let notice =
            &profile.metadata.notices.iter().find(|notice| notice.contains("rate was changed")).unwrap();
        assert!(notice.contains("97, then 997, then 4999, then 9973"), "{notice}");
    }
}

/// A higher rate means more ticks at once.
#[test]
fn a_rate_takes_effect_while_the_guest_runs() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for event in ["cpu", "wall"] {
        let profiler = Profiler::new(options(event, 97)).unwrap();
        let (mut store, run) = guest.attached_to(&profiler);
        profiler.attach_thread().unwrap();
        profiler.start().unwrap();
        let mut ticks = |rate| {
            profiler.set_rate(rate).unwrap();
            let before = profiler.statistics().unwrap().ticks;
            run.call(&mut store, 150).unwrap();
            let after = profiler.statistics().unwrap().ticks;
            (after.samples - before.samples) as f64 * 1e9 / (after.weight - before.weight) as f64
        };
        let rates = [ticks(4_999), ticks(499), ticks(4_999)];
        println!("{event}: {rates:?}");
        // A tenth, on a machine that is idle; on the wall clock signals that come while the thread waits for a processor are one.
        assert!(rates[0] > 2.0 * rates[1] && rates[2] > 2.0 * rates[1], "{event}: {rates:?}");
        stop(&profiler);
    }
}

/// Everything at once, from several threads, while guests run on others.
#[test]
fn storms_of_control_leave_every_profile_whole() {
    const SECONDS: u64 = 4;
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(20);
    for event in EVENTS {
        let profiler = Profiler::new(options(event, 9_973)).unwrap();
        guest.register(&profiler);
        let (done, profiles, samples) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let until = Instant::now() + Duration::from_secs(SECONDS) / EVENTS.len() as u32;
        thread::scope(|scope| {
            let _done = SetOnDrop(&done);
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let (mut store, run) = guest.instantiate(|| {});
                        profiler.attach(&mut store).unwrap();
                        (0..5).for_each(|_| assert_eq!(run.call(&mut store, 20).unwrap(), truth));
                    }
                });
            }
            // Threads come and go as well.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            let (mut store, run) = guest.instantiate(|| {});
                            profiler.attach(&mut store).unwrap();
                            assert_eq!(run.call(&mut store, 20).unwrap(), truth);
                        });
                    });
                }
            });
            let storms = [0, 1, 2].map(|storm| {
                let (profiler, profiles, samples) = (&profiler, &profiles, &samples);
                scope.spawn(move || {
                    let count = |profile: Result<flamewalk::profile::Profile, Error>| match profile {
                        Ok(profile) => {
                            check_sums(&profile);
                            profiles.fetch_add(1, Ordering::Relaxed);
                            samples.fetch_add(profile.total().samples, Ordering::Relaxed);
                        }
                        Err(Error::NotRunning) => {}
                        Err(error) => panic!("{error}"),
                    };
                    let expected = |result: Result<(), Error>| match result {
                        Ok(()) | Err(Error::NotRunning | Error::AlreadyRunning) => {}
                        Err(error) => panic!("{error}"),
                    };
                    for step in storm.. {
                        if Instant::now() >= until {
                            break;
                        }
                        match step % 13 {
                            0 | 5 => expected(profiler.start()),
                            1 | 7 => expected(profiler.pause()),
                            2 | 8 => expected(profiler.resume()),
                            3 => expected(profiler.set_rate(9_973)),
                            4 => expected(profiler.set_rate(20_000)),
                            6 => count(profiler.snapshot(Metadata::default())),
                            9 => match profiler.statistics() {
                                Ok(statistics) => statistics.check().unwrap(),
                                Err(error) => expected(Err(error)),
                            },
                            12 => count(profiler.stop(Metadata::default())),
                            _ => thread::yield_now(),
                        }
                    }
                })
            });
            storms.into_iter().for_each(|storm| storm.join().unwrap());
        });
        let (profiles, samples) = (profiles.into_inner(), samples.into_inner());
        println!("{event}: {profiles} profiles, {samples} samples");
        assert!(profiles > 0 && samples > 0, "{event}: {profiles} profiles, {samples} samples");
    }
}

/// The profiler goes while guests run, on threads that enter and leave them and that come and go.
#[test]
fn it_can_be_dropped_under_load() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(5);
    let current: std::sync::RwLock<Option<Arc<Profiler>>> = std::sync::RwLock::default();
    let done = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (mut store, run) = guest.instantiate(|| {});
                    if let Some(profiler) = &*current.read().unwrap() {
                        profiler.attach(&mut store).unwrap();
                    }
                    // The lock is free: the profiler goes in the middle of this.
                    (0..5).for_each(|_| assert_eq!(run.call(&mut store, 5).unwrap(), truth));
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..60 {
            let profiler = Profiler::new(options(EVENTS[round % 3], 20_000)).unwrap();
            guest.register(&profiler);
            profiler.start().unwrap();
            *current.write().unwrap() = Some(Arc::new(profiler));
            let enough = calls.load(Ordering::Relaxed) + 4;
            while calls.load(Ordering::Relaxed) < enough {
                thread::yield_now();
            }
            drop(current.write().unwrap().take());
        }
    });
}

#[test]
fn signals_that_mean_something_else_are_refused() {
    let _alone = alone();
    for signal in Signal::iterator() {
        let mut options = Options::default();
        options.signal = signal;
        match Profiler::new(options) {
            Ok(profiler) => {
                profiler.start().unwrap();
                stop(&profiler);
            }
            Err(Error::Signal { signal: refused }) => assert_eq!(refused, signal),
            Err(error) => panic!("{signal}: {error}"),
        }
    }
    let mut options = Options::default();
    options.signal = Signal::SIGSEGV;
    let error = Profiler::new(options).unwrap_err().to_string();
    assert!(error.contains("SIGSEGV") && error.contains("SIGUSR2"), "{error}");
}

/// Ticks arrive by whatever signal was chosen.
#[test]
fn the_signal_can_be_chosen() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for signal in [Signal::SIGUSR1, Signal::SIGURG, Signal::SIGALRM, Signal::SIGTRAP] {
        let profiler = Profiler::new(options_by("cpu", signal, 4_999)).unwrap();
        let (mut store, run) = guest.attached_to(&profiler);
        profiler.start().unwrap();
        run.call(&mut store, 100).unwrap();
        assert!(stop(&profiler).total().samples > 0, "{signal}");
    }
}

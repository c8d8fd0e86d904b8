//! Windows beside the profiler's own profile: each has what was sampled while it was open, and disturbs nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flamewalk::profile::{Labels, Metadata, Profile};
use flamewalk::{Error, Profiler, Window};

use crate::support::{KnownAnswer, SetOnDrop, alone, check_sums, clock_of, options, stop, switching_time};

const RATE: u32 = 4_999;

fn finish(window: Window) -> Profile {
    let profile = window.finish(Metadata::default()).unwrap();
    check_sums(&profile);
    profile
}

/// How much of the weight is missing or too much, as a part of `seconds`.
fn error(profile: &Profile, seconds: f64) -> f64 {
    (profile.metadata.statistics.ticks.weight as f64 / 1e9 / seconds - 1.0).abs()
}

/// A guest, and a profiler that knows it.
fn known_answer() -> (KnownAnswer, Profiler) {
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", RATE)).unwrap();
    guest.register(&profiler);
    (guest, profiler)
}

/// Nobody has started the profiler.
#[test]
fn a_window_samples_by_itself_and_stops_again() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 97)).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    let window = profiler.window(Some(RATE)).unwrap();
    assert!(!profiler.is_running() && !profiler.is_paused());
    assert!(matches!(profiler.snapshot(Metadata::default()), Err(Error::NotRunning)));
    assert!(matches!(profiler.pause(), Err(Error::NotRunning)));
    assert!(matches!(profiler.stop(Metadata::default()), Err(Error::NotRunning)));
    run.call(&mut store, 100).unwrap();
    let so_far = window.snapshot(Metadata::default()).unwrap();
    assert!(so_far.total().samples > 0);
    let profile = finish(window);
    assert!(profile.total().samples >= so_far.total().samples);
    assert_eq!(profile.metadata.asked_rate, Some(f64::from(RATE)));
    // The rate was the window's and not the profiler's.
    assert_eq!(profiler.rate().unwrap(), 97);
    profiler.start().unwrap();
    assert_eq!(stop(&profiler).metadata.asked_rate, Some(97.0));
    assert!(matches!(profiler.window(Some(0)), Err(Error::Rate { rate: 0, .. })));
}

/// Windows overlap each other and the profiler's own session, which begins and ends among them: each holds the CPU time
/// from its opening to its end, and what is read of one is not missing in another.
#[test]
fn each_has_what_was_sampled_while_it_was_open() {
    let _alone = alone();
    let (guest, profiler) = known_answer();
    let (mut store, run) = guest.instantiate(|| {});
    profiler.attach(&mut store).unwrap();
    let mut stretch = || run.call(&mut store, 200).unwrap();
    // When each part begins and ends, in CPU time of this thread, on which nothing else is sampled.
    let cpu = clock_of("cpu");
    let clock = || (cpu(), switching_time("cpu"));
    let mut times = vec![clock()];
    let first = profiler.window(None).unwrap();
    stretch();
    times.push(clock());
    profiler.start().unwrap();
    stretch();
    times.push(clock());
    let second = profiler.window(None).unwrap();
    let taken = profiler.take(Metadata::default()).unwrap();
    check_sums(&taken);
    stretch();
    times.push(clock());
    let first = finish(first);
    stretch();
    times.push(clock());
    let own = stop(&profiler);
    stretch();
    times.push(clock());
    let second = finish(second);
    // A percent for what fell between reading the clock and opening; the rest is a period.
    let all = [("first", first, 0, 3), ("taken", taken, 1, 2), ("own", own, 2, 4), ("second", second, 2, 5)];
    for (name, profile, begin, end) in &all {
        let ((begin, switching_before), (end, switching)) = (times[*begin], times[*end]);
        let seconds = end - begin;
        let tolerance = 0.01 + (2.0 / f64::from(RATE) + switching - switching_before) / seconds;
        println!(
            "{name}: {} ticks, off by {:.4} of {seconds:.3} s",
            profile.total().samples,
            error(profile, seconds)
        );
        assert!(error(profile, seconds) < tolerance, "{name}");
        assert_eq!(profile.metadata.statistics.total_lost().samples, 0, "{name}");
        assert_eq!(profile.metadata.notices, Vec::<String>::new(), "{name}");
    }
}

/// The next profile began when this one was asked for, and this one ended when the collector had got to it: together they
/// were of more time than there was.
#[test]
fn profiles_that_are_taken_follow_each_other() {
    let _alone = alone();
    let (guest, profiler) = known_answer();
    let (mut store, run) = guest.instantiate(|| {});
    profiler.attach(&mut store).unwrap();
    let begin = Instant::now();
    profiler.start().unwrap();
    let done = AtomicBool::new(false);
    let mut profiles = thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        scope.spawn(|| {
            // The collector is busy.
            while !done.load(Ordering::Relaxed) {
                profiler.snapshot(Metadata::default()).unwrap();
            }
        });
        let take = |_| {
            run.call(&mut store, 1).unwrap();
            profiler.take(Metadata::default()).unwrap()
        };
        (0..200).map(take).collect::<Vec<_>>()
    });
    profiles.push(stop(&profiler));
    let elapsed = begin.elapsed();
    let together: Duration = profiles.iter().map(|profile| profile.metadata.duration.unwrap()).sum();
    println!("{together:?} of {elapsed:?}");
    assert!(together <= elapsed, "{together:?} of {elapsed:?}");
}

#[test]
fn a_rate_that_others_do_not_have_is_refused() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 997)).unwrap();
    profiler.start().unwrap();
    let refused = profiler.window(Some(499)).unwrap_err();
    assert!(matches!(refused, Error::OtherRate { rate: 499, current: 997 }), "{refused}");
    let window = profiler.window(Some(997)).unwrap();
    profiler.set_rate(97).unwrap();
    stop(&profiler);
    let profile = finish(window);
    assert_eq!(profile.metadata.notices, ["the rate was changed while sampling: 997, then 97 Hz"]);
    // A start has the profiler's rate, whatever is under way.
    let window = profiler.window(Some(499)).unwrap();
    profiler.start().unwrap();
    assert_eq!(stop(&profiler).metadata.asked_rate, Some(97.0));
    assert_eq!(finish(window).metadata.notices, ["the rate was changed while sampling: 499, then 97 Hz"]);
}

/// Who pauses wants no ticks, and windows say that there were none; with the profiler, its pause ends.
#[test]
fn a_pause_is_in_every_window_and_ends_with_the_profiler() {
    let _alone = alone();
    let (guest, profiler) = known_answer();
    let (mut store, run) = guest.instantiate(|| {});
    profiler.attach(&mut store).unwrap();
    profiler.start().unwrap();
    let before = profiler.window(None).unwrap();
    profiler.pause().unwrap();
    let within = profiler.window(None).unwrap();
    run.call(&mut store, 50).unwrap();
    let before = finish(before);
    assert!(before.metadata.paused.is_some());
    assert_eq!(within.statistics().unwrap().ticks.samples, 0);
    stop(&profiler);
    run.call(&mut store, 50).unwrap();
    let within = finish(within);
    assert!(within.total().samples > 0 && within.metadata.paused < within.metadata.duration);
}

#[test]
fn windows_of_a_profiler_that_is_gone_are_refused() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", RATE)).unwrap();
    let windows = [(); 3].map(|()| profiler.window(None).unwrap());
    drop(profiler);
    let [first, second, third] = windows;
    assert!(matches!(first.snapshot(Metadata::default()), Err(Error::NotRunning)));
    assert!(matches!(first.finish(Metadata::default()), Err(Error::NotRunning)));
    // Those of a dead profiler have nothing to do with the next one's.
    let profiler = Profiler::new(options("cpu", RATE)).unwrap();
    let window = profiler.window(None).unwrap();
    assert!(matches!(second.statistics(), Err(Error::NotRunning)));
    drop(third);
    finish(window);
}

#[test]
fn a_tenants_window_holds_its_own_only() {
    let _alone = alone();
    let (guest, profiler) = known_answer();
    let tenant = |name: &str| -> Labels { [("tenant", name)].into_iter().collect() };
    let windows = ["a", "b", "nobody"].map(|name| (name, profiler.window(None).unwrap()));
    let whole = profiler.window(None).unwrap();
    for name in ["a", "b"] {
        let (mut store, run) = guest.instantiate(|| {});
        profiler.attach(&mut store).unwrap().set(tenant(name));
        run.call(&mut store, 100).unwrap();
    }
    let mut sum = 0;
    for (name, window) in windows {
        let profile = window.finish_labelled(tenant(name), Metadata::default()).unwrap();
        check_sums(&profile);
        assert_eq!(profile.is_empty(), name == "nobody");
        assert!(profile.samples().all(|sample| profile.labels(sample.origin.labels) == &tenant(name)));
        sum += profile.total().weight;
    }
    // A tick that was still on its way was not: no guest has run since.
    assert_eq!(sum, finish(whole).total().weight);
}

/// Windows come and go on several threads while the profiler is started, read and stopped on another and guests run.
#[test]
fn a_storm_of_windows_leaves_sums_that_add_up() {
    let _alone = alone();
    let (guest, profiler) = known_answer();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        scope.spawn(|| {
            let (mut store, run) = guest.instantiate(|| {});
            profiler.attach(&mut store).unwrap();
            while !done.load(Ordering::Relaxed) {
                run.call(&mut store, 1).unwrap();
            }
        });
        let openers = [(); 3].map(|()| {
            scope.spawn(|| {
                for round in 0..100 {
                    let window = profiler.window(None).unwrap();
                    match round % 3 {
                        0 => drop(window),
                        1 => check_sums(&window.snapshot(Metadata::default()).unwrap()),
                        _ => drop(finish(window)),
                    }
                }
            })
        });
        for _ in 0..100 {
            profiler.start().unwrap();
            check_sums(&profiler.take(Metadata::default()).unwrap());
            profiler.pause().unwrap();
            profiler.resume().unwrap();
            stop(&profiler);
        }
        openers.into_iter().for_each(|opener| opener.join().unwrap());
    });
    assert!(!profiler.is_running());
    assert!(matches!(profiler.statistics(), Err(Error::NotRunning)));
}

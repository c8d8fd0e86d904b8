//! Time: all of it is accounted for, and where it was spent.
//!
//! The tolerance for shares is explained in the command's test of the known answer; here the host call's share is
//! exact as well.

use flamewalk::Profiler;
use flamewalk_guests::{HOST_CALL_SHARE, KNOWN_ANSWER};

use crate::support::{KnownAnswer, Stolen, alone, clock_of, options, share, stop, switching_time};

/// Rounds for nearly 9,000 samples: a round takes about a millisecond.
const ROUNDS: u32 = 9_000;

/// Runs the guest until there are enough samples and returns how much of the time there is in the profile.
fn measure(event: &str, rate: u32, rounds: u32, least: u64) {
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options(event, rate)).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    profiler.start().unwrap();
    // The first entry makes the thread known, and starts its clock.
    run.call(&mut store, 0).unwrap();
    let time = clock_of(event);
    let stolen = Stolen::begin();
    let (before, switching) = (time(), switching_time(event));
    // How long the collector takes to answer is outside.
    let mut asking = 0.0;
    let mut are_enough = || {
        let asked = time();
        let samples = profiler.statistics().unwrap().ticks.samples;
        asking += time() - asked;
        samples >= least
    };
    while !are_enough() {
        run.call(&mut store, rounds).unwrap();
    }
    let stolen = stolen.share();
    let (elapsed, switching) = (time() - before, switching_time(event) - switching);
    let profile = stop(&profiler);

    let statistics = &profile.metadata.statistics;
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    let counted = (statistics.delivered.weight + statistics.outside.weight) as f64 / 1e9;
    let ratio = counted / elapsed;
    println!("{event}, {rate} Hz: {ratio:.4} of {elapsed:.3} s, {} samples", profile.total().samples);
    let most = 1.01 + switching / elapsed;
    assert!((0.99..=most).contains(&ratio), "{event}, {rate} Hz: {counted} s of {elapsed} s");
    // The clock runs outside the guest for a moment only.
    let outside = statistics.outside.weight as f64 / 1e9;
    assert!(outside <= 0.01 * counted + asking, "{statistics:?}, {asking} s");

    if event != "cpu" {
        // On the wall clock, waiting for a processor counts, wherever it happens: see the command's test. The CPU
        // timer's signals come a few hundred times a second, whatever is asked: too few for this.
        return;
    }
    let innermost = |stack: &[&str]| {
        stack
            .iter()
            .rev()
            .find_map(|frame| KNOWN_ANSWER.iter().map(|known| known.0).find(|name| name == frame))
    };
    let shares = KNOWN_ANSWER
        .iter()
        .map(|&(name, truth)| (name, truth, share(&profile, |stack| innermost(stack) == Some(name))))
        .chain([(
            "burn",
            HOST_CALL_SHARE,
            share(&profile, |stack| stack.last() == Some(&"[host] env.burn")),
        )]);
    let shares: Vec<_> = shares.collect();
    println!("{shares:.4?}");
    for &(name, truth, share) in &shares {
        let allowed = 0.02 + stolen;
        assert!((share - truth).abs() <= allowed, "{event}, {rate} Hz: {name} has {share}: {shares:?}");
    }
}

#[test]
fn cpu_time_is_accounted_for() {
    let _alone = alone();
    measure("cpu", 997, ROUNDS, 8_500);
    measure("cpu", 4_999, ROUNDS / 3, 10_000);
}

#[test]
fn the_cpu_timer_accounts_for_cpu_time_as_well() {
    let _alone = alone();
    // Expirations are counted however rarely they are delivered.
    measure("cpu-timer", 997, ROUNDS, 6_000);
}

#[test]
fn wall_clock_time_is_accounted_for() {
    let _alone = alone();
    measure("wall", 997, ROUNDS / 7, 1_000);
}

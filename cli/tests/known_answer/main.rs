//! The known answer through the command, at three rates and on both clocks: time is attributed where it was spent.
//!
//! A share `p` that is estimated from `n` samples has a standard deviation of `√(p(1-p)/n)`: for the largest share, 30 %,
//! 0.65 points with 5,000 samples. The 2 points allowed are 3.1 of these, and 3.5 or more for all other shares. That
//! alone would fail a right profiler once in 400 runs, and there are several: so the test takes 6,500 samples where
//! time is dear (3.5 standard deviations, once in 2,000), and more where it is not.
//!
//! A crate of its own, so that Cargo runs it alone: its two tests have a core each.

#[path = "../support/mod.rs"]
mod support;

use flamewalk_guests::{Guest, HOST_CALL_SHARE, KNOWN_ANSWER};
use support::{Folded, Folder, Outcome};

/// Rates, and how many samples are taken.
const RATES: [(u32, u32); 3] = [(97, 6_500), (997, 10_000), (4_999, 20_000)];
/// Enough to tell how long a round takes.
const FEW_ROUNDS: u32 = 300;

#[test]
fn on_cpu_time() {
    for (rate, samples) in RATES {
        check_shares(&measure("cpu", rate, samples).1, "cpu", rate);
    }
}

#[test]
fn on_wall_clock_time() {
    for (rate, samples) in RATES {
        let (outcome, profile) = measure("wall", rate, samples);
        check_shares(&profile, "wall", rate);
        // The guest's own clock, around all of its work but for a few calls before and after.
        let elapsed = printed(&outcome, "guest ns ") + printed(&outcome, "host ns ");
        let ratio = profile.total() as f64 / elapsed as f64;
        assert!((0.99..=1.01).contains(&ratio), "{rate} Hz: {ratio} of the time that passed");
    }
}

/// Profiles the guest for about as long as the samples take at this rate.
fn measure(event: &str, rate: u32, samples: u32) -> (Outcome, Folded) {
    let folder = Folder::new();
    let svg = folder.path("profile.svg");
    let run = |rate: &str, rounds: &str| {
        let options = ["--event", event, "--freq", rate, "-o", svg.to_str().unwrap()];
        folder.profile(&options, &Guest::KnownAnswer.path(), &["--rounds", rounds])
    };
    // In the event's own time, which does not depend on what else the machine does.
    let (_, few) = run("4999", &FEW_ROUNDS.to_string());
    let round = few.total() as f64 / f64::from(FEW_ROUNDS);
    let rounds = f64::from(samples) / f64::from(rate) * 1e9 / round;
    let result = run(&rate.to_string(), &format!("{rounds:.0}"));
    let taken = samples_in(&std::fs::read_to_string(&svg).unwrap());
    assert!(taken >= 5_000, "{event}, {rate} Hz: only {taken} samples");
    result
}

fn check_shares(profile: &Folded, event: &str, rate: u32) {
    let innermost = |stack: &[String]| {
        stack.iter().rev().find_map(|frame| KNOWN_ANSWER.iter().find(|(name, _)| name == frame)).map(|known| known.0)
    };
    let host_call = |stack: &[String]| stack.last().unwrap() == "[host] wasi_snapshot_preview1.random_get";
    let shares = KNOWN_ANSWER
        .iter()
        .map(|&(name, truth)| (name, truth, profile.share(|stack| innermost(stack) == Some(name))))
        .chain([("the host call", HOST_CALL_SHARE, profile.share(host_call))]);
    let shares: Vec<_> = shares.collect();
    println!("{event}, {rate} Hz: {shares:.4?}");
    for &(name, truth, share) in &shares {
        assert!((share - truth).abs() <= 0.02, "{event}, {rate} Hz: {name} has {share} and not {truth}: {shares:?}");
    }
}

/// The number that the guest printed after `label`.
fn printed(outcome: &Outcome, label: &str) -> u64 {
    outcome.stdout.lines().find_map(|line| line.strip_prefix(label)).unwrap().parse().unwrap()
}

/// The number of samples in a flame graph's subtitle, which has it as `12,345 samples`.
fn samples_in(svg: &str) -> u64 {
    let (before, _) = svg.split_once(" samples").unwrap();
    let number = before.rsplit(' ').next().unwrap().replace(',', "");
    number.parse().unwrap()
}

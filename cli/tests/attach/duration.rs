//! What `-d` says is what is sampled: neither what passes while flamewalk prepares nor what passes while it ends.

use std::time::Duration;

use crate::lifecycle::changing;
use crate::support::stolen;
use crate::{NEWEST, Program, embedding, native_profile};

/// In nanoseconds, at the default rate.
const TICK: u64 = 1_000_000_000 / flamewalk_attach::defaults::RATE as u64;

/// The half of a second that the tests sample, in nanoseconds.
const ASKED: u64 = 500_000_000;

/// How long the program's main thread has been ready to run and was not let, in nanoseconds.
fn waited(program: &Program) -> u64 {
    let path = format!("/proc/{0}/task/{0}/schedstat", program.id());
    std::fs::read_to_string(path).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// It once was that events were open while unwind information was copied: 50 ms were 173 ms, and 1 s was 1.12 s.
#[test]
fn a_thread_that_always_runs_has_the_time_that_was_asked_for() {
    let program = changing("loop");
    let (waited_before, stolen_before) = (waited(&program), stolen());
    let profile = native_profile(&program, &["-q", "-d", "500ms"]);
    let waited = waited(&program) - waited_before + stolen() - stolen_before;
    assert_eq!(profile.metadata.duration, Some(Duration::from_nanos(ASKED)));
    let ticks = profile.metadata.statistics.ticks.weight;
    // A tick at the end, and what the thread did not get: ticks that come late are one.
    let least = ASKED.saturating_sub(waited + ASKED / 10);
    assert!((least..=ASKED + TICK).contains(&ticks), "{ticks}, waited {waited}");
}

/// It once was that rings ran over before they were drained for the first time, and that samples fell on guests that had not been
/// read yet.
#[test]
fn nothing_is_lost_at_the_beginning_with_many_busy_threads() {
    let program = embedding(NEWEST, &["threads", "40"]);
    let profile = native_profile(&program, &["-q", "-d", "500ms"]);
    let statistics = &profile.metadata.statistics;
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(statistics.ticks.weight <= cpus * ASKED + 40 * TICK, "{statistics:?}");
    assert!(
        !statistics.lost.keys().any(|cause| cause.contains("ring full") || cause.contains("not registered")),
        "{statistics:?}"
    );
}

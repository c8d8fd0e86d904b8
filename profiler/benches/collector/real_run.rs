//! The collector's CPU time in a run that is really profiled.

use std::time::Duration;

use flamewalk::Options;
use flamewalk_measure::{Run, row};
use nix::time::{ClockId, clock_gettime};

use crate::rig::collector_time;
use crate::stacks::{self, Sqlite};

/// Of SQLite: enough seconds that the start does not matter.
const ROUNDS: u32 = 10 * stacks::ROUNDS;

/// The goal is 0.5 % of the guest's CPU time at 997 Hz.
pub(crate) fn ratio(run: &mut Run, guest: &Sqlite) {
    if !run.section(
        "a profiled run",
        &["Hz", "guest CPU s", "collector CPU s", "% of the guest's", "us / wake-up"],
    ) {
        return;
    }
    for rate in [1, 997, 9_997] {
        let mut options = Options::default();
        options.rate = rate;
        let interval = options.collector.drain_interval;
        let before = thread_time();
        let start = std::time::Instant::now();
        let ended = |_: &flamewalk::Profiler| (thread_time() - before, collector_time(), start.elapsed());
        let (_, (guest_time, time, elapsed)) =
            stacks::run(&guest.module, &guest.binary, options, ROUNDS, ended);
        let share = time.as_secs_f64() * 100.0 / guest_time.as_secs_f64();
        let wake_ups = elapsed.as_secs_f64() / interval.as_secs_f64();
        row(
            rate,
            &[guest_time.as_secs_f64(), time.as_secs_f64(), share, time.as_secs_f64() * 1e6 / wake_ups],
        );
        if rate == 997 {
            run.goal("the collector's CPU time, % of the guest's", Some(share), 0.5);
        }
    }
}

/// The CPU time of the calling thread.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("a clock")
}

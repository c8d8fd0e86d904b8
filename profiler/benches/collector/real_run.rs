//! The collector's CPU time in a run that is really profiled, next to that of a thread which only wakes up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flamewalk::Options;
use flamewalk_measure::{Run, row};
use nix::time::{ClockId, clock_gettime};

use crate::rig::collector_run;
use crate::stacks::{self, Sqlite};

/// Of SQLite: enough seconds that the start does not matter.
const ROUNDS: u32 = 10 * stacks::ROUNDS;

/// How often the thread wakes up that does nothing else.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// The goal is 0.5 % of the guest's CPU time at 997 Hz.
pub(crate) fn ratio(run: &mut Run, guest: &Sqlite) {
    if !run.section(
        "a profiled run",
        &[
            "Hz",
            "guest CPU s",
            "collector CPU s",
            "% of the guest's",
            "wake-ups / s",
            "us / wake-up",
            "nothing, us",
        ],
    ) {
        return;
    }
    for rate in [1, 997, 9_997] {
        let mut options = Options::default();
        options.rate = rate;
        let before = thread_time();
        let start = Instant::now();
        let idle = Idle::start();
        let ended = |_: &flamewalk::Profiler| (thread_time() - before, collector_run(), start.elapsed());
        let (_, (guest_time, (time, wake_ups), elapsed)) =
            stacks::run(&guest.module, &guest.binary, options, ROUNDS, ended);
        let share = time.as_secs_f64() * 100.0 / guest_time.as_secs_f64();
        row(
            rate,
            &[
                guest_time.as_secs_f64(),
                time.as_secs_f64(),
                share,
                wake_ups as f64 / elapsed.as_secs_f64(),
                time.as_secs_f64() * 1e6 / wake_ups as f64,
                idle.end().as_secs_f64() * 1e6,
            ],
        );
        if rate == 997 {
            run.goal("the collector's CPU time, % of the guest's", Some(share), 0.5);
        }
    }
}

/// A thread that does nothing but wake up.
struct Idle {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Idle {
    fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let (before, mut wake_ups) = (thread_time(), 0);
            while !ended.load(Ordering::Relaxed) {
                std::thread::park_timeout(IDLE_INTERVAL);
                wake_ups += 1;
            }
            (thread_time() - before) / wake_ups.max(1)
        });
        Self { is_over, thread }
    }

    /// What each time that it woke up has cost.
    fn end(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("it only sleeps")
    }
}

/// The CPU time of the calling thread.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("a clock")
}

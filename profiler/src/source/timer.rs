//! POSIX timers: a tick each period of a clock.
//!
//! A timer has at most one signal on its way. Expirations that happen meanwhile are counted by the kernel and
//! come with the signal as its overrun. On the wall clock a sample weighs the time since the one before it, which
//! the vDSO tells without a system call. The thread's CPU time cannot be had that way: there, each expiration
//! weighs a period, which therefore does not vary.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_getres, clock_gettime};

use super::period::VaryingPeriod;
use super::{Plan, SignalInfo, Ticks};
use crate::error::Error;

/// `si_code` of a timer's signal.
const SI_TIMER: i32 = -2;

/// What a timer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Monotonic,
    ThreadCpu,
}

impl Clock {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Monotonic => "CLOCK_MONOTONIC",
            Self::ThreadCpu => "CLOCK_THREAD_CPUTIME_ID",
        }
    }

    /// The clock of another thread: the kernel encodes the thread's id and the kind of clock in the number.
    fn of_thread(self, thread_id: i32) -> ClockId {
        const CPUCLOCK_SCHED: i32 = 2;
        const CPUCLOCK_PERTHREAD: i32 = 4;
        match self {
            Self::Monotonic => ClockId::CLOCK_MONOTONIC,
            Self::ThreadCpu => ClockId::from_raw((!thread_id << 3) | CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD),
        }
    }
}

/// How often CPU-time timers can expire: once each tick of the kernel.
pub(crate) fn kernel_tick_rate() -> Option<f64> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).ok()?;
    let seconds = Duration::from(tick).as_secs_f64();
    (seconds > 0.0).then(|| 1.0 / seconds)
}

/// A timer that signals one thread.
pub(crate) struct TimerSource {
    timer: Mutex<RunningTimer>,
    clock: Clock,
    period: u64,
    /// What the timer's signals carry, to be told from other timers'.
    value: usize,
    /// When the last tick was handled, or the timer started. The handler's once that has happened.
    last: AtomicU64,
}

struct RunningTimer {
    timer: Timer,
    is_running: bool,
    varying: VaryingPeriod,
}

// SAFETY: a POSIX timer belongs to the process; any of its threads may set it.
unsafe impl Send for RunningTimer {}

impl std::fmt::Debug for TimerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerSource").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl TimerSource {
    pub(super) fn create(clock: Clock, plan: &Plan, thread_id: i32) -> Result<Self, Error> {
        // Any number that other users of timers are unlikely to choose.
        let value = (thread_id as usize) ^ 0x666c_616d_6577_616c;
        let notify =
            SigevNotify::SigevThreadId { signal: plan.signal, thread_id, si_value: value.cast_signed() };
        let timer = Timer::new(clock.of_thread(thread_id), SigEvent::new(notify))
            .map_err(Error::system("create a timer"))?;
        let period = plan.period();
        let timer = RunningTimer { timer, is_running: false, varying: VaryingPeriod::new(period) };
        Ok(Self { timer: timer.into(), clock, period, value, last: AtomicU64::new(0) })
    }

    fn timer(&self) -> MutexGuard<'_, RunningTimer> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self) -> Result<(), Error> {
        let mut timer = self.timer();
        self.last.store(monotonic_time(), Ordering::Relaxed);
        timer.is_running = true;
        timer.set(self.period).map_err(Error::system("start a timer"))
    }

    pub(super) fn stop(&self) {
        let mut timer = self.timer();
        timer.is_running = false;
        // A timer that cannot be stopped here is deleted when it is dropped.
        if let Err(error) = timer.set(0) {
            tracing::warn!("cannot stop a timer: {error}");
        }
    }

    pub(super) fn vary_period(&self) {
        let mut timer = self.timer();
        if self.clock == Clock::Monotonic
            && timer.is_running
            && let Some(period) = timer.varying.next()
            && let Err(error) = timer.set(period)
        {
            tracing::warn!("cannot change a timer: {error}");
        }
    }

    pub(super) fn ticks(&self, info: &SignalInfo) -> Option<Ticks> {
        if info.code != SI_TIMER || info.value != self.value {
            return None;
        }
        let time = monotonic_time();
        let count = u64::from(info.overrun.max(0).unsigned_abs()).saturating_add(1);
        let weight = match self.clock {
            Clock::Monotonic => time.saturating_sub(self.last.swap(time, Ordering::Relaxed)),
            Clock::ThreadCpu => count.saturating_mul(self.period),
        };
        Some(Ticks { count, weight, time })
    }
}

impl RunningTimer {
    /// Expires each `period` nanoseconds from now on; never, if it is 0.
    fn set(&mut self, period: u64) -> nix::Result<()> {
        let period = Duration::from_nanos(period).into();
        self.timer.set(Expiration::Interval(period), TimerSetTimeFlags::empty())
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`. The vDSO answers, without a system call.
fn monotonic_time() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    (now.tv_sec().unsigned_abs()).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec().unsigned_abs())
}

//! POSIX timers: a tick each period of a clock.
//!
//! A timer has at most one signal on its way. Expirations that happen meanwhile are counted by the kernel and
//! come with the signal as its overrun, so that the weight of a sample is exact however late it is.

use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_getres, clock_gettime};

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
    timer: std::sync::Mutex<Timer>,
    period: u64,
    /// What the timer's signals carry, to be told from other timers'.
    value: usize,
}

impl std::fmt::Debug for TimerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerSource").field("period", &self.period).finish_non_exhaustive()
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
        Ok(Self { timer: timer.into(), period: plan.period(), value })
    }

    pub(super) fn start(&self) -> Result<(), Error> {
        self.set(Duration::from_nanos(self.period)).map_err(Error::system("start a timer"))
    }

    pub(super) fn stop(&self) {
        // A timer that cannot be stopped here is deleted when it is dropped.
        if let Err(error) = self.set(Duration::ZERO) {
            tracing::warn!("cannot stop a timer: {error}");
        }
    }

    fn set(&self, period: Duration) -> nix::Result<()> {
        let mut timer = self.timer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        timer.set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty())
    }

    pub(super) fn ticks(&self, info: &SignalInfo) -> Option<Ticks> {
        if info.code != SI_TIMER || info.value != self.value {
            return None;
        }
        let count = u64::from(info.overrun.max(0).unsigned_abs()).saturating_add(1);
        Some(Ticks { count, weight: count.saturating_mul(self.period), time: monotonic_time() })
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`. The vDSO answers, without a system call.
fn monotonic_time() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    (now.tv_sec().unsigned_abs()).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec().unsigned_abs())
}

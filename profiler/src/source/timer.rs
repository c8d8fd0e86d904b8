//! POSIX timers: a tick each period of a clock.
//!
//! A timer has at most one signal on its way. Expirations that happen meanwhile are counted by the kernel and
//! come with the signal as its overrun. A sample weighs the time since the one before it, by a clock that stands still
//! while the timer is stopped:
//!
//! ```text
//!   clock      ───┬────────────┬╌╌╌╌╌╌╌╌╌╌╌╌╌╌┬────────────▶
//!                 start        stop           start
//!   run time      0────────────▶              ▶────────────▶    = clock - offset
//! ```
//!
//! On the wall clock the handler reads the clock: the vDSO tells without a system call. The thread's CPU time cannot
//! be had that way. There, the expirations since the timer was set tell: the n-th comes at `base + n * period`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_getres, clock_gettime};

use super::period::VaryingPeriod;
use super::schedule::Schedule;
use super::{Plan, SignalInfo, Ticks, period_of};
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
    /// What the timer's signals carry, to be told from other timers'.
    value: usize,
    schedule: Schedule,
    /// Run time of the last tick. Handler only.
    counted: AtomicU64,
}

struct RunningTimer {
    timer: Timer,
    clock: ClockId,
    /// In nanoseconds.
    period: u64,
    varying: VaryingPeriod,
    /// What the clock is ahead of the run time, in nanoseconds; while stopped, as of the stop.
    offset: u64,
    /// When it was stopped, by its clock; `None` while it runs.
    stopped: Option<u64>,
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
        let thread_clock = clock.of_thread(thread_id);
        let timer = RunningTimer {
            timer: Timer::new(thread_clock, SigEvent::new(notify))
                .map_err(Error::system("create a timer"))?,
            clock: thread_clock,
            period: plan.period(),
            varying: VaryingPeriod::new(plan.period()),
            offset: 0,
            stopped: Some(0),
        };
        Ok(Self {
            timer: timer.into(),
            clock,
            value,
            schedule: Schedule::default(),
            counted: AtomicU64::new(0),
        })
    }

    fn timer(&self) -> MutexGuard<'_, RunningTimer> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self) -> Result<(), Error> {
        let mut timer = self.timer();
        let Some(stopped) = timer.stopped else { return Ok(()) };
        let now = timer.now().map_err(Error::system("read a thread's clock"))?;
        timer.offset = timer.offset.saturating_add(now.saturating_sub(stopped));
        timer.stopped = None;
        self.set(&mut timer, now).map_err(Error::system("start a timer"))
    }

    pub(super) fn stop(&self) {
        let mut timer = self.timer();
        if timer.stopped.is_some() {
            return;
        }
        // A timer that cannot be stopped here is deleted when it is dropped.
        if let Err(error) = timer.disarm() {
            tracing::warn!("cannot stop a timer: {error}");
        }
        // The clock of a thread that has ended cannot be read, and does not matter any more.
        timer.stopped = Some(timer.now().unwrap_or(0));
    }

    pub(super) fn set_rate(&self, rate: u32) -> Result<(), Error> {
        let mut timer = self.timer();
        timer.period = match self.clock {
            Clock::Monotonic => timer.varying.set_rate(rate),
            Clock::ThreadCpu => period_of(rate),
        };
        if timer.stopped.is_some() {
            return Ok(());
        }
        let changed = timer.disarm().and_then(|()| timer.now()).and_then(|now| self.set(&mut timer, now));
        changed.map_err(Error::system("change the rate of a timer"))
    }

    pub(super) fn vary_period(&self) {
        let mut timer = self.timer();
        if self.clock == Clock::Monotonic
            && timer.stopped.is_none()
            && let Some(period) = timer.varying.next()
        {
            timer.period = period;
            if let Err(error) = timer.arm_from(None) {
                tracing::warn!("cannot change a timer: {error}");
            }
        }
    }

    /// Has the timer expire each period from `now` on. It must not be armed.
    fn set(&self, timer: &mut RunningTimer, now: u64) -> nix::Result<()> {
        self.schedule.set(now.saturating_sub(timer.offset), timer.period, timer.offset);
        timer.arm_from((self.clock == Clock::ThreadCpu).then_some(now))
    }

    pub(super) fn ticks(&self, info: &SignalInfo) -> Option<Ticks> {
        if info.code != SI_TIMER || info.value != self.value {
            return None;
        }
        let time = monotonic_time();
        let count = u64::from(info.overrun.max(0).unsigned_abs()).saturating_add(1);
        let run_time = match self.clock {
            Clock::Monotonic => self.schedule.offset().map(|offset| time.saturating_sub(offset)),
            Clock::ThreadCpu => self.schedule.expired(count),
        };
        // A signal that comes late, after the timer was set anew, can be ahead: the next ones make up for it.
        let before = self.counted.load(Ordering::Relaxed);
        let run_time = run_time.unwrap_or(before).max(before);
        self.counted.store(run_time, Ordering::Relaxed);
        Some(Ticks { count, weight: run_time.saturating_sub(before), time })
    }
}

impl RunningTimer {
    /// The time of its clock, in nanoseconds.
    fn now(&self) -> nix::Result<u64> {
        clock_gettime(self.clock).map(nanoseconds)
    }

    fn disarm(&mut self) -> nix::Result<()> {
        self.timer.set(Expiration::Interval(Duration::ZERO.into()), TimerSetTimeFlags::empty())
    }

    /// Expires each period from now on, or from a time of its clock.
    fn arm_from(&mut self, now: Option<u64>) -> nix::Result<()> {
        let period = Duration::from_nanos(self.period);
        match now {
            None => self.timer.set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty()),
            Some(now) => {
                let first = Duration::from_nanos(now.saturating_add(self.period));
                let expiration = Expiration::IntervalDelayed(first.into(), period.into());
                self.timer.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        }
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`. The vDSO answers, without a system call.
pub(crate) fn monotonic_time() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, nanoseconds)
}

fn nanoseconds(time: nix::sys::time::TimeSpec) -> u64 {
    (time.tv_sec().unsigned_abs()).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec().unsigned_abs())
}

//! When a timer expires, as its thread's handler needs it: set by whoever controls the timer, read without waiting.
//!
//! A version that is odd while the rest changes tells the handler that what it reads may belong to two settings. It
//! then does without: the weight of that tick falls on the next one.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// When a timer expires, in nanoseconds of run time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    version: AtomicU64,
    base: AtomicU64,
    period: AtomicU64,
    offset: AtomicU64,
    /// The version that `expirations` belongs to. Handler only.
    seen: AtomicU64,
    /// How often the timer has expired since it was set. Handler only.
    expirations: AtomicU64,
}

impl Schedule {
    /// From now on the n-th expiration is at `base + n * period`, and the clock is `offset` ahead of the run time. One
    /// thread at a time may call this.
    pub(super) fn set(&self, base: u64, period: u64, offset: u64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Pair: the fence in `read`. Who sees what is stored below sees the odd version above.
        fence(Ordering::Release);
        self.base.store(base, Ordering::Relaxed);
        self.period.store(period, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        // Pair: the first load in `read`.
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// What the clock is ahead of the run time; `None` if that is changing.
    ///
    /// Async-signal-safe: yes; loads only.
    pub(super) fn offset(&self) -> Option<u64> {
        self.read(|| self.offset.load(Ordering::Relaxed)).map(|(_, offset)| offset)
    }

    /// The run time of the last of `count` more expirations; `None` if the schedule is changing.
    ///
    /// Async-signal-safe: yes; loads, and stores to what is the handler's. For one thread's handler only.
    pub(super) fn expired(&self, count: u64) -> Option<u64> {
        let (version, (base, period)) =
            self.read(|| (self.base.load(Ordering::Relaxed), self.period.load(Ordering::Relaxed)))?;
        let before = match self.seen.load(Ordering::Relaxed) == version {
            true => self.expirations.load(Ordering::Relaxed),
            false => 0,
        };
        let expirations = before.saturating_add(count);
        self.seen.store(version, Ordering::Relaxed);
        self.expirations.store(expirations, Ordering::Relaxed);
        Some(base.saturating_add(period.saturating_mul(expirations)))
    }

    fn read<R>(&self, read: impl FnOnce() -> R) -> Option<(u64, R)> {
        // Pair: the last store in `set`.
        let version = self.version.load(Ordering::Acquire);
        let result = read();
        // Pair: the fence in `set`.
        fence(Ordering::Acquire);
        let unchanged = self.version.load(Ordering::Relaxed) == version && version.is_multiple_of(2);
        unchanged.then_some((version, result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_counted_from_the_last_setting() {
        let schedule = Schedule::default();
        schedule.set(100, 10, 0);
        assert_eq!(schedule.expired(1), Some(110));
        assert_eq!(schedule.expired(3), Some(140));
        schedule.set(145, 20, 7);
        assert_eq!(schedule.offset(), Some(7));
        assert_eq!(schedule.expired(2), Some(185));
    }

    /// Whatever the handler reads belongs together.
    #[test]
    fn a_setting_is_read_whole_or_not_at_all() {
        let schedule = Schedule::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200_000).for_each(|value| schedule.set(value, value, value)));
            let mut read = 0;
            while read < 100_000 {
                let all = || {
                    [&schedule.base, &schedule.period, &schedule.offset].map(|at| at.load(Ordering::Relaxed))
                };
                if let Some((version, [base, period, offset])) = schedule.read(all) {
                    assert_eq!((base, base, 2 * base), (period, offset, version));
                    read += 1;
                }
            }
        });
    }
}

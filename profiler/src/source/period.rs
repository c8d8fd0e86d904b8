//! A period that varies, so that ticks do not beat with what the guest does.
//!
//! A guest that repeats the same millisecond of work over and over is sampled at the same few places of it by a
//! clock of nearly the same period: some functions get several times their share, others none, and a prime rate
//! does not help. So the period is drawn anew every few ticks, evenly from about half to one and a half of what was
//! asked for. Within a stretch of constant period the phase moves through the guest's cycle, or, if the two periods
//! happen to agree, stays at a place that the next stretch has nothing to do with. The wider the range, the rarer that
//! is, and the closer the samples come to independent ones.
//!
//! The handler may not make system calls, so that it cannot draw a new period at each tick: the collector's thread
//! does, when it drains the ring. Weights are measured, not assumed, and so do not depend on the period.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// A stretch has at least this many ticks, of which the last one's rest is cut off by the next stretch: on average
/// half a tick of this many.
const MIN_TICKS: u32 = 8;
/// A stretch is at least this long: to change a timer is to interrupt the processor that its thread runs on. That stretches
/// have more ticks does not make samples more alike, on average over the periods that can be drawn: the longer one is, the
/// fewer periods agree with the guest's for all of it.
const MIN_STRETCH: Duration = Duration::from_millis(20);
/// The shortest period as a share of the mean; the longest is three times that. Stretches are of equal time, so that
/// the rate is the mean of 1/period, which is ln 3 / (longest - shortest): with this, just the rate that was asked for.
const SHORTEST: f64 = 0.549_306;

/// The most ticks in a second, however periods are drawn around that of `rate` Hz.
pub(crate) fn most_ticks_per_second(rate: u32) -> u64 {
    (f64::from(rate) / SHORTEST).ceil() as u64
}

/// When to draw a new period, and which.
#[derive(Debug)]
pub(crate) struct VaryingPeriod {
    mean: u64,
    changed: Instant,
    random: RandomState,
    draws: u64,
}

impl VaryingPeriod {
    /// A period around `mean` nanoseconds.
    pub(crate) fn new(mean: u64) -> Self {
        Self { mean, changed: Instant::now(), random: RandomState::new(), draws: 0 }
    }

    /// Changes the mean to that of `rate` Hz and returns a new period in nanoseconds.
    pub(crate) fn set_rate(&mut self, rate: u32) -> u64 {
        self.mean = super::period_of(rate);
        self.changed = Instant::now();
        self.draw()
    }

    /// A new period in nanoseconds, if it is time for one.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let shortest = Duration::from_nanos(self.mean).saturating_mul(MIN_TICKS).max(MIN_STRETCH);
        if self.changed.elapsed() < shortest {
            return None;
        }
        self.changed = Instant::now();
        Some(self.draw())
    }

    /// A new period in nanoseconds, whatever the time.
    pub(crate) fn draw(&mut self) -> u64 {
        self.draws += 1;
        // Keyed at random by the standard library, which makes the hash of a counter good enough a random number.
        let random = f64::from(self.random.hash_one(self.draws) as u32) / f64::from(u32::MAX);
        ((self.mean as f64 * SHORTEST * (1.0 + 2.0 * random)) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_spread_evenly_and_give_the_rate_that_was_asked_for() {
        let mut period = VaryingPeriod::new(1_000_000);
        let (mut tenths, mut rate) = ([0u32; 10], 0.0);
        for _ in 0..10_000 {
            let drawn = period.draw();
            assert!((549_306..=1_647_918).contains(&drawn), "{drawn}");
            tenths[((drawn - 549_306) / 109_862) as usize] += 1;
            rate += 1e6 / drawn as f64 / 10_000.0;
        }
        // 1,000 expected in each tenth, with a standard deviation of 30; five of them.
        assert!(tenths.iter().all(|count| (850..=1150).contains(count)), "{tenths:?}");
        // The mean's standard deviation is 0.003; five of them.
        assert!((0.985..=1.015).contains(&rate), "{rate}");
    }
}

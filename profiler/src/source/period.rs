//! A period that varies, so that ticks do not beat with what the guest does.
//!
//! A guest that repeats the same millisecond of work over and over is sampled at the same few places of it by a
//! clock of nearly the same period: some functions get several times their share, others none, and a prime rate
//! does not help. So the period is drawn anew every few ticks, evenly from 80 to 120 % of what was asked for. Within
//! a stretch of constant period the phase moves through the guest's cycle, or, if the two periods happen to agree,
//! stays at a place that the next stretch has nothing to do with.
//!
//! The handler may not make system calls, so that it cannot draw a new period at each tick: the collector's thread
//! does, when it drains the ring. Weights are measured, not assumed, and so do not depend on the period.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// A stretch has at least this many ticks, of which the last one's rest is cut off by the next stretch: on average
/// half a tick of this many.
const MIN_TICKS: u32 = 8;

/// When to draw a new period, and which.
#[derive(Debug)]
pub(super) struct VaryingPeriod {
    mean: u64,
    changed: Instant,
    random: RandomState,
    draws: u64,
}

impl VaryingPeriod {
    /// A period around `mean` nanoseconds.
    pub(super) fn new(mean: u64) -> Self {
        Self { mean, changed: Instant::now(), random: RandomState::new(), draws: 0 }
    }

    /// A new period in nanoseconds, if it is time for one.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.changed.elapsed() < Duration::from_nanos(self.mean).saturating_mul(MIN_TICKS) {
            return None;
        }
        self.changed = Instant::now();
        Some(self.draw())
    }

    fn draw(&mut self) -> u64 {
        self.draws += 1;
        // Keyed at random by the standard library, which makes the hash of a counter good enough a random number.
        let random = self.random.hash_one(self.draws) as u32;
        let range = self.mean * 2 / 5;
        (self.mean * 4 / 5 + range * u64::from(random) / u64::from(u32::MAX)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_spread_evenly_around_the_mean() {
        let mut period = VaryingPeriod::new(1_000_000);
        let mut tenths = [0u32; 10];
        let mut sum = 0;
        for _ in 0..10_000 {
            let drawn = period.draw();
            assert!((800_000..=1_200_000).contains(&drawn), "{drawn}");
            tenths[((drawn - 800_000) / 40_001) as usize] += 1;
            sum += drawn;
        }
        // 1,000 expected in each tenth, with a standard deviation of 30; five of them.
        assert!(tenths.iter().all(|count| (850..=1150).contains(count)), "{tenths:?}");
        // The mean's standard deviation is 1,155.
        assert!((994_000..=1_006_000).contains(&(sum / 10_000)), "{sum}");
    }
}

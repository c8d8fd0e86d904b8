//! What became of every tick of the event, so that nothing is lost silently.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use crate::Resources;

/// How many samples, and what they stand for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Tally {
    /// Number of samples.
    pub samples: u64,
    /// Sum of their weights, in the unit of the profile's event.
    pub weight: u64,
}

impl Tally {
    /// The sum, or `None` if it exceeds 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            samples: self.samples.checked_add(other.samples)?,
            weight: self.weight.checked_add(other.weight)?,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (weight {})", self.samples, self.weight)
    }
}

/// Counts of what became of the ticks of the event. Each tick is delivered, outside the guest, or lost for
/// exactly one cause; [`check`](Self::check) verifies that they add up, in number and in weight.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Ticks that the event source announced to the handler.
    pub ticks: Tally,
    /// Ticks that became a stack of the profile.
    pub delivered: Tally,
    /// Ticks that fell where no guest was on the stack.
    pub outside: Tally,
    /// Ticks that should have become a stack and did not, by cause, such as `ring full`.
    pub lost: BTreeMap<Cow<'static, str>, Tally>,
    /// Why the walks of the delivered samples ended, by reason, such as `entry trampoline`.
    pub walk_ends: BTreeMap<Cow<'static, str>, Tally>,
    /// What the profiler itself took.
    pub resources: Resources,
}

impl Statistics {
    /// All lost ticks together. Saturates at 64 bits.
    pub fn total_lost(&self) -> Tally {
        self.lost.values().fold(Tally::default(), |sum, lost| Tally {
            samples: sum.samples.saturating_add(lost.samples),
            weight: sum.weight.saturating_add(lost.weight),
        })
    }

    /// Verifies that delivered + outside + lost = ticks.
    ///
    /// # Errors
    /// [`Imbalance`] with all sides if it does not hold for the samples or for the weights.
    pub fn check(&self) -> Result<(), Imbalance> {
        let lost = self.total_lost();
        let sum = self.delivered.checked_add(self.outside).and_then(|sum| sum.checked_add(lost));
        if sum == Some(self.ticks) {
            return Ok(());
        }
        Err(Imbalance { ticks: self.ticks, delivered: self.delivered, outside: self.outside, lost })
    }
}

/// Ticks that do not add up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("delivered {delivered} + outside {outside} + lost {lost} is not ticks {ticks}")]
pub struct Imbalance {
    /// [`Statistics::ticks`].
    pub ticks: Tally,
    /// [`Statistics::delivered`].
    pub delivered: Tally,
    /// [`Statistics::outside`].
    pub outside: Tally,
    /// [`Statistics::total_lost`].
    pub lost: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(samples: u64, weight: u64) -> Tally {
        Tally { samples, weight }
    }

    #[test]
    fn ticks_add_up_in_number_and_in_weight() {
        let mut statistics = Statistics {
            ticks: tally(10, 100),
            delivered: tally(5, 60),
            outside: tally(2, 20),
            ..Default::default()
        };
        statistics.lost.insert("ring full".into(), tally(2, 10));
        statistics.lost.insert("unknown stack".into(), tally(1, 10));
        assert_eq!(statistics.total_lost(), tally(3, 20));
        assert_eq!(statistics.check(), Ok(()));

        statistics.outside.weight += 1;
        assert!(statistics.check().is_err(), "a weight that is too high goes unnoticed");
        statistics.outside = tally(1, 20);
        assert!(statistics.check().is_err(), "a missing sample goes unnoticed");
    }

    #[test]
    fn sums_that_overflow_do_not_balance() {
        let mut statistics = Statistics { delivered: tally(u64::MAX, 0), ..Default::default() };
        statistics.outside = tally(1, 0);
        assert!(statistics.check().is_err());
        statistics.lost.insert("ring full".into(), tally(u64::MAX, 0));
        statistics.lost.insert("unknown stack".into(), tally(u64::MAX, 0));
        assert!(statistics.check().is_err());
    }
}

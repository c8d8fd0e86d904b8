//! Sums of what the handlers of several threads have counted.

use flamewalk_handler::statistics::{Counters, LossCause, Tally as Ticks};
use flamewalk_profile::Tally;

/// What became of ticks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) all: Tally,
    pub(crate) delivered: Tally,
    pub(crate) outside: Tally,
    /// By the number of the cause.
    pub(crate) lost: [Tally; LossCause::ALL.len()],
    /// The time that handlers have taken, in cycles.
    pub(crate) handler_cycles: u64,
}

impl Totals {
    /// What one thread's handler has counted so far.
    pub(crate) fn of(counters: &Counters) -> Self {
        let tally = |ticks: Ticks| Tally { samples: ticks.ticks, weight: ticks.weight };
        Self {
            all: tally(counters.all()),
            delivered: tally(counters.delivered()),
            outside: tally(counters.outside()),
            lost: LossCause::ALL.map(|cause| tally(counters.lost(cause))),
            handler_cycles: counters.handler_cycles(),
        }
    }

    /// With as many samples delivered as were read from the rings: the counters move on one by one while they are read,
    /// and ahead of that.
    pub(crate) fn settled(&self, drained: Tally) -> Self {
        let all = self.lost.iter().copied().fold(sum(drained, self.outside), sum);
        Self { all, delivered: drained, ..self.clone() }
    }

    /// Adds other threads' counts.
    pub(crate) fn add(&mut self, more: &Self) {
        *self = self.with(more, sum, u64::saturating_add);
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, difference, u64::saturating_sub)
    }

    fn with(
        &self,
        other: &Self,
        merge: impl Fn(Tally, Tally) -> Tally,
        merge_cycles: impl Fn(u64, u64) -> u64,
    ) -> Self {
        Self {
            all: merge(self.all, other.all),
            delivered: merge(self.delivered, other.delivered),
            outside: merge(self.outside, other.outside),
            lost: std::array::from_fn(|cause| merge(self.lost[cause], other.lost[cause])),
            handler_cycles: merge_cycles(self.handler_cycles, other.handler_cycles),
        }
    }
}

/// Weights are nanoseconds or counts of one session; 64 bits hold centuries of them.
pub(crate) fn sum(one: Tally, other: Tally) -> Tally {
    Tally {
        samples: one.samples.saturating_add(other.samples),
        weight: one.weight.saturating_add(other.weight),
    }
}

/// What `one` has more than `other`, which is a part of it.
pub(crate) fn difference(one: Tally, other: Tally) -> Tally {
    Tally {
        samples: one.samples.saturating_sub(other.samples),
        weight: one.weight.saturating_sub(other.weight),
    }
}

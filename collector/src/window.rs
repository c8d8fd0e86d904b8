//! A window: what is sampled from its opening on, with a profile and statistics of its own.

use std::sync::Arc;
use std::time::Instant;

use flamewalk_handler::statistics::LossCause;
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Metadata, Profile, ProfileError, Statistics, Tally};

use crate::aggregator::Aggregator;
use crate::collector::{Collector, CollectorGone, Extent, Message, Options, Sampling};
use crate::totals::{Totals, difference, sum};

/// A window of a [`Collector`]. Several can be open; none is disturbed by the others. Dropping it closes it.
#[derive(Debug)]
pub struct Window {
    collector: Arc<Collector>,
    number: u64,
    opened: Instant,
}

impl Window {
    /// Of a window that the collector's thread knows by this number.
    pub(crate) fn new(collector: Arc<Collector>, number: u64, opened: Instant) -> Self {
        Self { collector, number, opened }
    }

    /// When it began: no sample in it is older. Slices of time are counted from here, or from the last [`Extent::Rest`].
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Drains all rings and makes a profile of what was collected. `describe` is called between the two, on the
    /// collector's thread, and told when the rings had been drained: no sample is younger, and none of what follows an
    /// [`Extent::Rest`] is older. It makes the profile's metadata, in which the length of the slices of time, the statistics and the symbolizer's notices are filled in.
    /// Symbols are looked up on the collector's thread; the caller waits for it.
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked; the inner error if the profile's totals overflow.
    pub fn snapshot(
        &self,
        describe: impl FnOnce(Instant) -> Metadata + Send + 'static,
        sampling: Sampling,
        extent: Extent,
    ) -> Result<Result<Profile, ProfileError>, CollectorGone> {
        let describe = Box::new(describe);
        self.collector.ask(|reply| Message::Snapshot(self.number, describe, sampling, extent, reply))
    }

    /// What became of the ticks so far, or since the last [`Extent::Rest`].
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked.
    pub fn statistics(&self) -> Result<Statistics, CollectorGone> {
        self.collector.ask(|reply| Message::Statistics(self.number, reply))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.collector.send(Message::Close(self.number));
    }
}

/// What the collector's thread has for a window.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) aggregator: Aggregator,
    /// What had been counted when it began.
    before: Totals,
}

impl Collected {
    /// Begins at `start`, in nanoseconds of `CLOCK_MONOTONIC`, when these totals had been counted.
    pub(crate) fn begin(options: &Options, start: u64, before: Totals) -> Self {
        Self { aggregator: Aggregator::new(options, start), before }
    }

    /// The time that handlers have taken since it began, in cycles, if they have now counted these totals.
    pub(crate) fn handler_cycles(&self, totals: &Totals) -> u64 {
        totals.since(&self.before).handler_cycles
    }

    /// What became of the ticks since it began, if handlers have now counted these totals; without resources.
    pub(crate) fn statistics(&self, sampling: Sampling, totals: &Totals) -> Statistics {
        let new = totals.since(&self.before);
        let unlocated = self.aggregator.unlocated();
        let mut statistics = Statistics::default();
        statistics.outside = new.outside;
        let by_handler = LossCause::ALL.iter().zip(&new.lost).map(|(cause, tally)| (*cause, *tally));
        for (cause, tally) in by_handler.chain([(LossCause::UnknownCode, unlocated)]) {
            if tally != Tally::default() {
                let entry: &mut Tally = statistics.lost.entry(cause.describe().into()).or_default();
                *entry = sum(*entry, tally);
            }
        }
        match sampling {
            Sampling::Ended => {
                statistics.ticks = new.all;
                // What the handler has delivered and was dropped here is not delivered.
                statistics.delivered = difference(new.delivered, unlocated);
            }
            // The counters move on one by one while they are read, and ahead of what was drained.
            Sampling::Ongoing => {
                statistics.delivered = self.aggregator.delivered();
                let fates = [statistics.delivered, statistics.outside, statistics.total_lost()];
                statistics.ticks = fates.into_iter().fold(Tally::default(), sum);
            }
        }
        let truncated = self.aggregator.truncated();
        let whole = difference(statistics.delivered, truncated);
        for (end, tally) in [(WalkEnd::EntryTrampoline, whole), (WalkEnd::FrameLimit, truncated)] {
            if tally != Tally::default() {
                statistics.walk_ends.insert(end.describe().into(), tally);
            }
        }
        statistics
    }
}

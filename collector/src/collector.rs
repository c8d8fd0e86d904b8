//! The collector's thread and how it is told what to do.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use flamewalk_handler::cycles::CycleClock;
use flamewalk_handler::record::Sample;
use flamewalk_handler::statistics::LossCause;
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Labels, Metadata, Profile, ProfileError, Resources, Statistics, Tally};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::{CodeRegistry, SampleReader};
use nix::time::{ClockId, clock_gettime};

use crate::aggregator::Aggregator;
use crate::channel::Channel;
use crate::labels::LabelTable;
use crate::symbols;
use crate::totals::{Totals, difference, sum};

/// How the collector works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How often the rings are drained.
    pub drain_interval: Duration,
    /// About how much memory distinct stacks and what fell on them may take, in bytes. When it is used up, the rarest
    /// stacks are cut to their youngest frames and merged, which a notice tells; no sample is lost. Each of the
    /// [`MAX_LABEL_SETS`](crate::MAX_LABEL_SETS) keeps a sum, whatever the bound.
    pub max_stack_bytes: usize,
    /// How many sums there may be, one for each stack, thread, set of labels and slice of time, before the slices of
    /// time, of 1 ms at first, double in length.
    pub max_sums: usize,
}

impl Default for Options {
    /// Each 20 ms; 64 MiB; 65,536.
    fn default() -> Self {
        Self { drain_interval: Duration::from_millis(20), max_stack_bytes: 64 << 20, max_sums: 1 << 16 }
    }
}

/// Whether handlers may be writing samples while a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// They may: ticks whose samples are not drained yet are left to the next snapshot.
    Ongoing,
    /// They have all ended: every tick has to be accounted for.
    Ended,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Everything since the start, or since the last [`Extent::Rest`].
    #[default]
    All,
    /// As [`Extent::All`]; it is forgotten afterwards, so that each sample is in one such snapshot.
    Rest,
    /// What was sampled while the store had all of these labels, among others or not, and nothing else: no name, number
    /// or thread of others. Its statistics hold what was delivered and no more.
    Labelled(Labels),
}

/// The collector's thread is gone: it has panicked. What it had collected is lost.
#[derive(Debug, thiserror::Error)]
#[error("the collector thread has panicked; its samples are lost")]
pub struct CollectorGone;

enum Message {
    Snapshot(Box<Metadata>, Sampling, Extent, Sender<Result<Profile, ProfileError>>),
    Statistics(Sender<Statistics>),
}

/// A running collector. Dropping it ends its thread.
#[derive(Debug)]
pub struct Collector {
    messages: Option<Sender<Message>>,
    /// Channels that the thread has not yet seen. No message: the thread has to know of each that a sample can be in
    /// before it lets go of code.
    added: Arc<Mutex<Vec<Arc<Channel>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts the collector's thread. `labels` are the sets that samples have the numbers of; `host` names native
    /// frames of the host, if samples have any.
    ///
    /// # Errors
    ///
    /// The system's, if it cannot start a thread.
    pub fn start(
        registry: Arc<CodeRegistry>,
        labels: Arc<LabelTable>,
        host: HostSymbolizer,
        options: &Options,
    ) -> io::Result<Self> {
        let (messages, inbox) = crossbeam_channel::unbounded();
        let added = Arc::default();
        let mut session = Session {
            reader: SampleReader::new(registry),
            labels,
            host,
            added: Arc::clone(&added),
            channels: Vec::new(),
            threads: 0,
            ended: Totals::default(),
            ended_high_water: 0,
            taken: Totals::default(),
            aggregator: Aggregator::new(options, monotonic_time()),
            options: options.clone(),
            record: Vec::new(),
            clock: CycleClock::start(),
        };
        // A deadline has to be a time that the clock can have.
        let interval = options.drain_interval.min(Duration::from_secs(24 * 3600));
        let thread = std::thread::Builder::new()
            .name("flamewalk".into())
            .spawn(move || session.run(&inbox, interval))?;
        Ok(Self { messages: Some(messages), added, thread: Some(thread) })
    }

    /// Drains `channel` from now on, until nobody else holds it: to be called before samples are written to it.
    pub fn add(&self, channel: Arc<Channel>) {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// Drains all rings and makes a profile of what was collected. `metadata` is the profile's, in which the length of
    /// the slices of time, the statistics and the symbolizer's notices are filled in. Symbols are looked up on the
    /// collector's thread; the caller waits for it.
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked; the inner error if the profile's totals overflow.
    pub fn snapshot(
        &self,
        metadata: Metadata,
        sampling: Sampling,
        extent: Extent,
    ) -> Result<Result<Profile, ProfileError>, CollectorGone> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(Message::Snapshot(Box::new(metadata), sampling, extent, reply));
        answer.recv().map_err(|_| CollectorGone)
    }

    /// What became of the ticks so far, or since the last [`Extent::Rest`].
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked.
    pub fn statistics(&self) -> Result<Statistics, CollectorGone> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(Message::Statistics(reply));
        answer.recv().map_err(|_| CollectorGone)
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages
            && messages.send(message).is_err()
        {
            tracing::error!("{CollectorGone}");
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // The thread ends when the channel is closed.
        self.messages = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("{CollectorGone}");
        }
    }
}

/// What the collector's thread owns.
struct Session {
    reader: SampleReader,
    labels: Arc<LabelTable>,
    host: HostSymbolizer,
    added: Arc<Mutex<Vec<Arc<Channel>>>>,
    /// With the number of the thread.
    channels: Vec<(u64, Arc<Channel>)>,
    /// How many channels there have been.
    threads: u64,
    /// The sums of the channels that are gone.
    ended: Totals,
    /// The most words that any of their rings held.
    ended_high_water: usize,
    /// What the profiles have told that were the rest up to then.
    taken: Totals,
    aggregator: Aggregator,
    options: Options,
    /// The record that is being read; kept to reuse its memory.
    record: Vec<u64>,
    clock: CycleClock,
}

impl Session {
    fn run(&mut self, inbox: &Receiver<Message>, interval: Duration) {
        // A deadline, not a time-out: messages that keep coming must not put the draining off.
        let mut next_drain = Instant::now() + interval;
        loop {
            match inbox.recv_deadline(next_drain) {
                Ok(Message::Snapshot(metadata, sampling, extent, reply)) => {
                    self.drain();
                    // Nobody waiting for the answer is no error.
                    let _ = reply.send(self.snapshot(*metadata, sampling, &extent));
                }
                Ok(Message::Statistics(reply)) => {
                    self.drain();
                    let _ = reply.send(self.statistics(Sampling::Ongoing, &self.totals()));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.drain();
                    next_drain = Instant::now() + interval;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    fn drain(&mut self) {
        // In this order: what is retired by now is in no sample that a channel of the list does not have by now.
        let retired = self.reader.retired();
        for channel in self.added.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.channels.push((self.threads, channel));
            self.threads += 1;
        }
        let mut channels = std::mem::take(&mut self.channels);
        channels.retain_mut(|(number, channel)| {
            // If nobody else holds it, nothing is written any more, and all that was is visible.
            let has_ended = Arc::get_mut(channel).is_some();
            self.drain_channel(*number, channel);
            if has_ended {
                self.ended.add(&Totals::of(&channel.counters));
                self.ended_high_water = self.ended_high_water.max(channel.ring.high_water());
            }
            !has_ended
        });
        self.channels = channels;
        for image in &retired {
            self.aggregator.resolve(*image, self.reader.registry());
        }
        self.reader.release(&retired);
    }

    fn drain_channel(&mut self, number: u64, channel: &Channel) {
        channel.drained();
        // What arrives while this runs may wait for the next time: a bound on the work.
        let mut words_left = channel.ring.capacity();
        loop {
            self.record.clear();
            if words_left == 0 || !channel.ring.pop(|word| self.record.push(word)) {
                break;
            }
            words_left = words_left.saturating_sub(self.record.len());
            match Sample::decode(&self.record) {
                Some(sample) => {
                    self.aggregator.add(&sample, number, &channel.thread, self.reader.registry());
                }
                None => {
                    debug_assert!(false, "the handler wrote a record that is none: {:x?}", self.record)
                }
            }
        }
    }

    fn snapshot(
        &mut self,
        metadata: Metadata,
        sampling: Sampling,
        extent: &Extent,
    ) -> Result<Profile, ProfileError> {
        let mut profile = Profile::new(metadata);
        profile.metadata.slice = Some(Duration::from_nanos(self.aggregator.slices.length()));
        let only = match extent {
            Extent::Labelled(labels) => Some(labels),
            Extent::All | Extent::Rest => None,
        };
        let registry = self.reader.registry();
        let taken = symbols::add_stacks(
            &self.aggregator,
            registry,
            &self.labels,
            &mut self.host,
            only,
            &mut profile,
        )?;
        let bound = self.options.max_stack_bytes;
        profile.metadata.notices.extend(taken.about_memory(profile.total(), bound));
        profile.metadata.notices.extend(taken.notices);
        if only.is_some() {
            let mut statistics = Statistics::default();
            statistics.delivered = profile.total();
            statistics.ticks = profile.total();
            profile.metadata.statistics = statistics;
            return Ok(profile);
        }
        profile.metadata.notices.extend(self.labels.notices());
        profile.metadata.notices.extend_from_slice(self.host.notices());
        let totals = self.totals();
        profile.metadata.statistics = self.statistics(sampling, &totals);
        if *extent == Extent::Rest {
            self.forget(&totals, &profile.metadata.statistics);
        }
        Ok(profile)
    }

    /// Begins anew after a profile with these statistics, which came from these totals.
    fn forget(&mut self, totals: &Totals, statistics: &Statistics) {
        let unlocated = self.aggregator.unlocated();
        let delivered = sum(statistics.delivered, unlocated);
        let ticks = sum(self.taken.all, statistics.ticks);
        // Not what the counters say by now, which can be ahead of what was drained.
        self.taken = Totals { all: ticks, delivered: sum(self.taken.delivered, delivered), ..totals.clone() };
        self.aggregator = Aggregator::new(&self.options, monotonic_time());
    }

    /// What the handlers have counted since the session began.
    fn totals(&self) -> Totals {
        let mut totals = self.ended.clone();
        self.channels.iter().for_each(|(_, channel)| totals.add(&Totals::of(&channel.counters)));
        totals
    }

    fn statistics(&self, sampling: Sampling, totals: &Totals) -> Statistics {
        let new = totals.since(&self.taken);
        let unlocated = self.aggregator.unlocated();
        let mut statistics = Statistics::default();
        statistics.resources = self.resources(new.handler_cycles);
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

    /// What handlers that took so many cycles and this collector have taken; the rest is not known here.
    fn resources(&self, handler_cycles: u64) -> Resources {
        let bytes = |words: usize| (words as u64).saturating_mul(size_of::<u64>() as u64);
        let rings = self.channels.iter().map(|(_, channel)| &channel.ring);
        let most = rings.clone().map(|ring| ring.high_water()).fold(self.ended_high_water, usize::max);
        let registry = self.reader.registry();
        let mut resources = Resources::default();
        resources.handler_time = self.clock.duration_of(handler_cycles);
        resources.ring_high_water = bytes(most);
        resources.memory.rings = rings.map(|ring| bytes(ring.capacity())).sum();
        resources.memory.stacks = self.aggregator.bytes() as u64;
        resources.memory.tables = registry.table_bytes() as u64;
        resources.images = registry.image_count() as u64;
        resources
    }
}

/// Nanoseconds of the clock that handlers take their times from.
fn monotonic_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

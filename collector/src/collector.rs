//! The collector's thread and how it is told what to do.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use flamewalk_handler::record::Sample;
use flamewalk_handler::statistics::{LossCause, Tally as Ticks};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Metadata, Profile, ProfileError, Statistics, Tally};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::CodeRegistry;

use crate::aggregator::Aggregator;
use crate::channel::Channel;
use crate::labels::LabelTable;
use crate::symbols;

/// How the collector works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How often the rings are drained.
    pub drain_interval: Duration,
    /// Bound on the memory for distinct stacks, in bytes. Samples of further stacks are lost, and counted.
    pub max_stack_bytes: usize,
}

impl Default for Options {
    /// Each 20 ms; 64 MiB.
    fn default() -> Self {
        Self { drain_interval: Duration::from_millis(20), max_stack_bytes: 64 << 20 }
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

/// What was collected so far.
#[derive(Debug)]
pub struct Snapshot {
    /// The stacks, with the metadata that was asked for and the statistics filled in.
    pub profile: Profile,
    /// The most that any thread's ring was in use, as a share of its capacity from 0 to 1.
    pub ring_high_water: f64,
}

/// The collector's thread is gone: it has panicked. What it had collected is lost.
#[derive(Debug, thiserror::Error)]
#[error("the collector thread has panicked; its samples are lost")]
pub struct CollectorGone;

enum Message {
    Add(Arc<Channel>),
    Snapshot(Box<Metadata>, Sampling, Sender<Result<Snapshot, ProfileError>>),
    Statistics(Sender<Statistics>),
}

/// A running collector. Dropping it ends its thread.
#[derive(Debug)]
pub struct Collector {
    messages: Option<Sender<Message>>,
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
        let mut session = Session {
            registry,
            labels,
            host,
            channels: Vec::new(),
            aggregator: Aggregator::new(options.max_stack_bytes),
            record: Vec::new(),
        };
        // A deadline has to be a time that the clock can have.
        let interval = options.drain_interval.min(Duration::from_secs(24 * 3600));
        let thread = std::thread::Builder::new()
            .name("flamewalk".into())
            .spawn(move || session.run(&inbox, interval))?;
        Ok(Self { messages: Some(messages), thread: Some(thread) })
    }

    /// Drains `channel` from now on, for as long as the collector lives.
    pub fn add(&self, channel: Arc<Channel>) {
        self.send(Message::Add(channel));
    }

    /// Drains all rings and makes a profile of everything collected since the start. `metadata` is the
    /// profile's, in which the statistics and the symbolizer's notices are filled in. Symbols are looked up on
    /// the collector's thread; the caller waits for it.
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked; the inner error if the profile's totals overflow.
    pub fn snapshot(
        &self,
        metadata: Metadata,
        sampling: Sampling,
    ) -> Result<Result<Snapshot, ProfileError>, CollectorGone> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(Message::Snapshot(Box::new(metadata), sampling, reply));
        answer.recv().map_err(|_| CollectorGone)
    }

    /// What became of the ticks so far.
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
    registry: Arc<CodeRegistry>,
    labels: Arc<LabelTable>,
    host: HostSymbolizer,
    channels: Vec<Arc<Channel>>,
    aggregator: Aggregator,
    /// The record that is being read; kept to reuse its memory.
    record: Vec<u64>,
}

impl Session {
    fn run(&mut self, inbox: &Receiver<Message>, interval: Duration) {
        // A deadline, not a time-out: messages that keep coming must not put the draining off.
        let mut next_drain = Instant::now() + interval;
        loop {
            match inbox.recv_deadline(next_drain) {
                Ok(Message::Add(channel)) => self.channels.push(channel),
                Ok(Message::Snapshot(metadata, sampling, reply)) => {
                    self.drain();
                    // Nobody waiting for the answer is no error.
                    let _ = reply.send(self.snapshot(*metadata, sampling));
                }
                Ok(Message::Statistics(reply)) => {
                    self.drain();
                    let _ = reply.send(self.statistics(Sampling::Ongoing));
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
        for channel in &self.channels {
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
                    Some(sample) => self.aggregator.add(&sample, &self.registry),
                    None => {
                        debug_assert!(false, "the handler wrote a record that is none: {:x?}", self.record)
                    }
                }
            }
        }
    }

    fn snapshot(&mut self, metadata: Metadata, sampling: Sampling) -> Result<Snapshot, ProfileError> {
        let mut profile = Profile::new(metadata);
        symbols::add_stacks(&self.aggregator, &self.registry, &mut self.host, &mut profile)?;
        profile.metadata.statistics = self.statistics(sampling);
        profile.metadata.notices.extend(self.registry.notices());
        profile.metadata.notices.extend(self.labels.notices());
        profile.metadata.notices.extend_from_slice(self.host.notices());
        let in_use =
            |channel: &Arc<Channel>| channel.ring.high_water() as f64 / channel.ring.capacity().max(1) as f64;
        Ok(Snapshot { profile, ring_high_water: self.channels.iter().map(in_use).fold(0.0, f64::max) })
    }

    fn statistics(&self, sampling: Sampling) -> Statistics {
        let sum = |of: &dyn Fn(&Channel) -> Ticks| {
            self.channels.iter().fold(Tally::default(), |sum, channel| {
                let more = of(channel);
                Tally { samples: sum.samples + more.ticks, weight: sum.weight + more.weight }
            })
        };
        let mut statistics = Statistics::default();
        statistics.outside = sum(&|channel| channel.counters.outside());
        let dropped_here = [
            ("memory bound reached", self.aggregator.overflow()),
            (LossCause::UnknownCode.describe(), self.aggregator.unlocated()),
        ];
        let by_handler =
            LossCause::ALL.map(|cause| (cause.describe(), sum(&|channel| channel.counters.lost(cause))));
        for (cause, tally) in by_handler.into_iter().chain(dropped_here) {
            if tally != Tally::default() {
                let entry: &mut Tally = statistics.lost.entry(cause.into()).or_default();
                entry.samples += tally.samples;
                entry.weight += tally.weight;
            }
        }
        match sampling {
            Sampling::Ended => {
                statistics.ticks = sum(&|channel| channel.counters.all());
                // What the handler has delivered and was dropped here is not delivered.
                statistics.delivered = sum(&|channel| channel.counters.delivered());
                for (_, tally) in dropped_here {
                    statistics.delivered.samples -= tally.samples;
                    statistics.delivered.weight -= tally.weight;
                }
            }
            // The counters move on one by one while they are read, and ahead of what was drained.
            Sampling::Ongoing => {
                statistics.delivered = self.aggregator.delivered();
                for tally in [statistics.delivered, statistics.outside, statistics.total_lost()] {
                    statistics.ticks.samples += tally.samples;
                    statistics.ticks.weight += tally.weight;
                }
            }
        }
        let (delivered, truncated) = (statistics.delivered, self.aggregator.truncated());
        let whole = Tally {
            samples: delivered.samples - truncated.samples,
            weight: delivered.weight - truncated.weight,
        };
        for (end, tally) in [(WalkEnd::EntryTrampoline, whole), (WalkEnd::FrameLimit, truncated)] {
            if tally != Tally::default() {
                statistics.walk_ends.insert(end.describe().into(), tally);
            }
        }
        statistics
    }
}

//! The collector's thread and how it is told what to do.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use flamewalk_handler::cycles::CycleClock;
use flamewalk_handler::record::Sample;
use flamewalk_profile::{Labels, Metadata, Profile, ProfileError, Resources, Statistics, Tally};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::{CodeRegistry, SampleReader};
use nix::time::{ClockId, clock_gettime};

use crate::channel::Channel;
use crate::labels::{LabelReader, LabelTable};
use crate::symbols;
use crate::totals::{Totals, sum};
use crate::window::{Collected, Window};

/// How the collector works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How often the rings are drained.
    pub drain_interval: Duration,
    /// How much memory distinct stacks and what fell on them may take in each window, in bytes. When two fifths of it are
    /// used up, the rarest stacks are cut to their youngest frames and merged, which a notice tells; no sample is lost.
    /// The rest is for tables that grow, and for the merging. Each of the
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
    /// Everything since the window was opened, or since its last [`Extent::Rest`].
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

/// Makes a profile's metadata once all rings are drained.
pub(crate) type Describe = Box<dyn FnOnce() -> Metadata + Send>;

pub(crate) enum Message {
    Open(u64, Sender<()>),
    Close(u64),
    Snapshot(u64, Describe, Sampling, Extent, Sender<Result<Profile, ProfileError>>),
    Statistics(u64, Sender<Statistics>),
}

/// A running collector. Dropping it ends its thread.
#[derive(Debug)]
pub struct Collector {
    messages: Option<Sender<Message>>,
    /// Channels that the thread has not yet seen. No message: the thread has to know of each that a sample can be in
    /// before it lets go of code.
    added: Arc<Mutex<Vec<Arc<Channel>>>>,
    thread: Option<JoinHandle<()>>,
    /// How many windows there have been.
    windows: AtomicU64,
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
            labels: LabelReader::new(labels),
            host,
            added: Arc::clone(&added),
            channels: Vec::new(),
            threads: 0,
            ended: Totals::default(),
            ended_high_water: 0,
            drained: Tally::default(),
            windows: BTreeMap::new(),
            options: options.clone(),
            record: Vec::new(),
            clock: CycleClock::start(),
        };
        // A deadline has to be a time that the clock can have.
        let interval = options.drain_interval.min(Duration::from_secs(24 * 3600));
        let thread = std::thread::Builder::new()
            .name("flamewalk".into())
            .spawn(move || session.run(&inbox, interval))?;
        Ok(Self { messages: Some(messages), added, thread: Some(thread), windows: AtomicU64::new(0) })
    }

    /// Drains `channel` from now on, until nobody else holds it: to be called before samples are written to it.
    pub fn add(&self, channel: Arc<Channel>) {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// Opens a window, in which everything is that is sampled from now on. The caller waits until what was sampled before
    /// is drained, and that can be for as long as a profile of another window is being made.
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked.
    pub fn open(self: &Arc<Self>) -> Result<Window, CollectorGone> {
        // Only has to be another one each time.
        let number = self.windows.fetch_add(1, Ordering::Relaxed);
        self.ask(|reply| Message::Open(number, reply))?;
        Ok(Window::new(Arc::clone(self), number))
    }

    /// Sends a message that has an answer, and waits for it.
    pub(crate) fn ask<A>(&self, message: impl FnOnce(Sender<A>) -> Message) -> Result<A, CollectorGone> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(message(reply));
        answer.recv().map_err(|_| CollectorGone)
    }

    pub(crate) fn send(&self, message: Message) {
        if let Some(messages) = &self.messages
            && messages.send(message).is_err()
        {
            tracing::error!("{CollectorGone}");
        }
        self.wake();
    }

    /// Has the thread look for messages, or for their end.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // The thread ends when the channel is closed.
        self.messages = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("{CollectorGone}");
        }
    }
}

/// A thread that is sampled.
struct Sampled {
    channel: Arc<Channel>,
    /// How many channels there were before.
    number: u64,
    /// How many ticks it had when it was drained.
    ticks: u64,
}

/// What the collector's thread owns.
struct Session {
    reader: SampleReader,
    labels: LabelReader,
    host: HostSymbolizer,
    added: Arc<Mutex<Vec<Arc<Channel>>>>,
    channels: Vec<Sampled>,
    /// How many channels there have been.
    threads: u64,
    /// The sums of the channels that are gone.
    ended: Totals,
    /// The most words that any of their rings held.
    ended_high_water: usize,
    /// All samples that were read from the rings.
    drained: Tally,
    windows: BTreeMap<u64, Collected>,
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
            match inbox.try_recv() {
                Ok(message) => self.answer(message),
                Err(TryRecvError::Disconnected) => break,
                // Who sends wakes this thread. To wait in the channel would be to spin there first, 50 times a second.
                Err(TryRecvError::Empty) => match next_drain.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => {
                        self.drain();
                        next_drain = Instant::now() + interval;
                    }
                    left => std::thread::park_timeout(left),
                },
            }
        }
    }

    /// Does what a message asks for. Nobody waiting for an answer is no error.
    fn answer(&mut self, message: Message) {
        match message {
            Message::Open(number, reply) => {
                self.drain();
                self.windows.insert(number, self.begin(&self.totals()));
                let _ = reply.send(());
            }
            Message::Close(number) => drop(self.windows.remove(&number)),
            Message::Snapshot(number, describe, sampling, extent, reply) => {
                self.drain();
                let metadata = describe();
                // There is one for as long as its handle lives.
                if let Some(mut window) = self.windows.remove(&number) {
                    let _ = reply.send(self.snapshot(&mut window, metadata, sampling, &extent));
                    self.windows.insert(number, window);
                }
            }
            Message::Statistics(number, reply) => {
                self.drain();
                if let Some(window) = self.windows.get(&number) {
                    let _ = reply.send(self.statistics(window, Sampling::Ongoing, &self.totals()));
                }
            }
        }
    }

    fn drain(&mut self) {
        // In this order: what is retired by now, or was let go of by its last store, is in no sample that a channel of the
        // list does not have by now.
        let retired = self.reader.retired();
        let idle = self.labels.idle();
        if !idle.is_empty() {
            self.reader.registry().handlers().wait_for_handlers();
        }
        for channel in self.added.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.channels.push(Sampled { channel, number: self.threads, ticks: 0 });
            self.threads += 1;
        }
        let mut channels = std::mem::take(&mut self.channels);
        channels.retain_mut(|sampled| {
            // If nobody else holds it, nothing is written any more, and all that was is visible.
            let has_ended = Arc::get_mut(&mut sampled.channel).is_some();
            self.drain_channel(sampled);
            if has_ended {
                let channel = &sampled.channel;
                self.ended.add(&Totals::of(&channel.counters));
                self.ended_high_water = self.ended_high_water.max(channel.ring.high_water());
            }
            !has_ended
        });
        self.channels = channels;
        for image in &retired {
            let registry = self.reader.registry();
            self.windows.values_mut().for_each(|window| window.aggregator.resolve(*image, registry));
        }
        self.reader.release(&retired);
        if !idle.is_empty() {
            let windows = self.windows.values();
            let used: HashSet<u64> = windows.flat_map(|window| window.aggregator.labels()).collect();
            self.labels.forget(idle.into_iter().filter(|number| !used.contains(number)));
        }
    }

    fn drain_channel(&mut self, sampled: &mut Sampled) {
        let Sampled { channel, number, ticks } = sampled;
        let now = channel.counters.all().ticks;
        // Most threads of a server are idle most of the time, and cost nothing then.
        if now != std::mem::replace(ticks, now) {
            channel.drained();
        }
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
                    self.drained = sum(self.drained, tally_of(&sample));
                    let registry = self.reader.registry();
                    for window in self.windows.values_mut() {
                        window.aggregator.add(&sample, *number, &channel.thread, registry);
                    }
                }
                None => {
                    debug_assert!(false, "the handler wrote a record that is none: {:x?}", self.record)
                }
            }
        }
    }

    /// A window of what happens after these totals.
    fn begin(&self, totals: &Totals) -> Collected {
        Collected::begin(&self.options, monotonic_time(), totals.settled(self.drained))
    }

    fn snapshot(
        &mut self,
        window: &mut Collected,
        metadata: Metadata,
        sampling: Sampling,
        extent: &Extent,
    ) -> Result<Profile, ProfileError> {
        let mut profile = Profile::new(metadata);
        profile.metadata.slice = Some(Duration::from_nanos(window.aggregator.slices.length()));
        let only = match extent {
            Extent::Labelled(labels) => Some(labels),
            Extent::All | Extent::Rest => None,
        };
        let registry = self.reader.registry();
        let aggregator = &window.aggregator;
        let taken = symbols::add_stacks(
            aggregator,
            registry,
            self.labels.table(),
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
        profile.metadata.notices.extend(self.labels.table().notices());
        profile.metadata.notices.extend_from_slice(self.host.notices());
        let totals = self.totals();
        profile.metadata.statistics = self.statistics(window, sampling, &totals);
        if *extent == Extent::Rest {
            *window = self.begin(&totals);
        }
        Ok(profile)
    }

    /// What the handlers have counted since the session began.
    fn totals(&self) -> Totals {
        let mut totals = self.ended.clone();
        self.channels.iter().for_each(|sampled| totals.add(&Totals::of(&sampled.channel.counters)));
        totals
    }

    fn statistics(&self, window: &Collected, sampling: Sampling, totals: &Totals) -> Statistics {
        let mut statistics = window.statistics(sampling, totals);
        statistics.resources = self.resources(window, totals);
        statistics
    }

    /// What handlers have taken since the window began, and what this collector takes; the rest is not known here.
    fn resources(&self, window: &Collected, totals: &Totals) -> Resources {
        let bytes = |words: usize| (words as u64).saturating_mul(size_of::<u64>() as u64);
        let rings = self.channels.iter().map(|sampled| &sampled.channel.ring);
        let most = rings.clone().map(|ring| ring.high_water()).fold(self.ended_high_water, usize::max);
        let registry = self.reader.registry();
        let mut resources = Resources::default();
        resources.handler_time = self.clock.duration_of(window.handler_cycles(totals));
        resources.ring_high_water = bytes(most);
        resources.memory.rings = rings.map(|ring| bytes(ring.capacity())).sum();
        // One that is being looked at is not in the list.
        let others = self.windows.values().filter(|other| !std::ptr::eq(*other, window));
        resources.memory.stacks = others.chain([window]).map(|window| window.aggregator.bytes() as u64).sum();
        resources.memory.tables = registry.table_bytes() as u64;
        resources.images = registry.image_count() as u64;
        resources
    }
}

fn tally_of(sample: &Sample<'_>) -> Tally {
    Tally { samples: u64::from(sample.header.ticks), weight: sample.header.weight }
}

/// Nanoseconds of the clock that handlers take their times from.
fn monotonic_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

//! What the collector's thread does: it drains the rings, and answers messages.
//!
//! A ring is drained before it can be more than half full, however deep the stacks are, so that nothing is lost while the
//! thread gets its turn within as much time again. How fast a ring can fill is known beforehand ([`Channel::expect`]) if a
//! signal handler writes to it, which could not tell; others say when it is half full ([`Collector::drain_soon`]).
//!
//! [`Collector::drain_soon`]: crate::Collector::drain_soon

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use flamewalk_handler::cycles::CycleClock;
use flamewalk_handler::record::Sample;
use flamewalk_profile::{Metadata, Profile, ProfileError, Resources, Statistics, Tally};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::{CodeRegistry, SampleReader};
use nix::time::{ClockId, clock_gettime};

use crate::channel::Channel;
use crate::collector::{Extent, Message, Options, Sampling};
use crate::labels::{LabelReader, LabelTable};
use crate::symbols;
use crate::totals::{Totals, sum};
use crate::window::Collected;

/// Waking up is what most of a drain costs: more often is not worth what it would save.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(2);
/// Code that is retired, and periods, wait for a drain.
const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

/// A thread that is sampled.
struct Sampled {
    channel: Arc<Channel>,
    /// How many channels there were before.
    number: u64,
    /// How many ticks it had when it was drained.
    ticks: u64,
}

/// What reaches the thread besides messages.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Channels that the thread has not yet seen. No message: the thread has to know of each that a sample can be in
    /// before it lets go of code.
    channels: Mutex<Vec<Arc<Channel>>>,
    /// Whether a ring is half full.
    drain_soon: AtomicBool,
}

impl Arrivals {
    pub(crate) fn add(&self, channel: Arc<Channel>) {
        self.channels().push(channel);
    }

    pub(crate) fn ask_for_drain(&self) {
        // Waking the thread, which follows, orders it.
        self.drain_soon.store(true, Ordering::Relaxed);
    }

    fn is_drain_asked_for(&self) -> bool {
        self.drain_soon.load(Ordering::Relaxed)
    }

    fn channels(&self) -> MutexGuard<'_, Vec<Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the collector's thread owns.
pub(crate) struct Session {
    reader: SampleReader,
    labels: LabelReader,
    host: HostSymbolizer,
    arrivals: Arc<Arrivals>,
    channels: Vec<Sampled>,
    /// How many channels there have been.
    threads: u64,
    /// The sums of the channels that are gone.
    ended: Totals,
    /// The most words that any of their rings held.
    ended_high_water: usize,
    /// All samples that were read from the rings.
    drained: Tally,
    last_drain: Instant,
    windows: BTreeMap<u64, Collected>,
    options: Options,
    /// The record that is being read; kept to reuse its memory.
    record: Vec<u64>,
    clock: CycleClock,
}

impl Session {
    pub(crate) fn new(
        registry: Arc<CodeRegistry>,
        labels: Arc<LabelTable>,
        host: HostSymbolizer,
        arrivals: Arc<Arrivals>,
        options: &Options,
    ) -> Self {
        Self {
            reader: SampleReader::new(registry),
            labels: LabelReader::new(labels),
            host,
            arrivals,
            channels: Vec::new(),
            threads: 0,
            ended: Totals::default(),
            ended_high_water: 0,
            drained: Tally::default(),
            last_drain: Instant::now(),
            windows: BTreeMap::new(),
            options: options.clone(),
            record: Vec::new(),
            clock: CycleClock::start(),
        }
    }

    pub(crate) fn run(&mut self, inbox: &Receiver<Message>) {
        loop {
            match inbox.try_recv() {
                Ok(message) => self.answer(message),
                Err(TryRecvError::Disconnected) => break,
                // Who sends wakes this thread. To wait in the channel would be to spin there first, each time.
                Err(TryRecvError::Empty) => match self.until_next_drain() {
                    Duration::ZERO => self.drain(),
                    left => std::thread::park_timeout(left),
                },
            }
        }
    }

    /// How long the rings may still fill. Anew each time that the thread is woken: there may be other channels, or more to
    /// expect of them.
    fn until_next_drain(&mut self) -> Duration {
        if self.arrivals.is_drain_asked_for() {
            return Duration::ZERO;
        }
        self.admit();
        let needed = || needed_interval(self.channels.iter().map(|sampled| &*sampled.channel));
        let interval = self.options.drain_interval.unwrap_or_else(needed);
        // A deadline, not a time-out: messages that keep coming must not put the draining off.
        interval.saturating_sub(self.last_drain.elapsed())
    }

    /// Takes in the channels that were added.
    fn admit(&mut self) {
        for channel in self.arrivals.channels().drain(..) {
            self.channels.push(Sampled { channel, number: self.threads, ticks: 0 });
            self.threads += 1;
        }
    }

    /// Does what a message asks for. Nobody waiting for an answer is no error.
    fn answer(&mut self, message: Message) {
        match message {
            Message::Open(number, reply) => {
                self.drain();
                let (opened, time) = (Instant::now(), monotonic_time());
                self.windows.insert(number, self.begin(time, &self.totals()));
                let _ = reply.send(opened);
            }
            Message::Close(number) => drop(self.windows.remove(&number)),
            Message::Snapshot(number, describe, sampling, extent, reply) => {
                self.drain();
                let (metadata, time, totals) = (describe(Instant::now()), monotonic_time(), self.totals());
                // There is one for as long as its handle lives.
                if let Some(mut window) = self.windows.remove(&number) {
                    let profile = self.snapshot(&window, metadata, sampling, &extent, &totals);
                    if extent == Extent::Rest && profile.is_ok() {
                        window = self.begin(time, &totals);
                    }
                    let _ = reply.send(profile);
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
        self.last_drain = Instant::now();
        self.arrivals.drain_soon.store(false, Ordering::Relaxed);
        // In this order: what is retired by now, or was let go of by its last store, is in no sample that a channel of the
        // list does not have by now.
        let retired = self.reader.retired();
        let idle = self.labels.idle();
        if !idle.is_empty() {
            self.reader.registry().handlers().wait_for_handlers();
        }
        self.admit();
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

    /// A window of what happens from `time` on, in nanoseconds of `CLOCK_MONOTONIC`, and after these totals.
    fn begin(&self, time: u64, totals: &Totals) -> Collected {
        Collected::begin(&self.options, time, totals.settled(self.drained))
    }

    fn snapshot(
        &mut self,
        window: &Collected,
        metadata: Metadata,
        sampling: Sampling,
        extent: &Extent,
        totals: &Totals,
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
        profile.metadata.statistics = self.statistics(window, sampling, totals);
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

/// How often rings have to be drained so that none is more than half full.
fn needed_interval<'c>(channels: impl Iterator<Item = &'c Channel>) -> Duration {
    channels.map(Channel::time_to_half_full).fold(LONGEST_INTERVAL, Duration::min).max(SHORTEST_INTERVAL)
}

fn tally_of(sample: &Sample<'_>) -> Tally {
    Tally { samples: u64::from(sample.header.ticks), weight: sample.header.weight }
}

/// Nanoseconds of the clock that handlers take their times from.
fn monotonic_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(ring_words: usize, words_per_second: u64) -> Channel {
        let channel = Channel::new(ring_words, std::process::id().cast_signed(), || ());
        channel.expect(words_per_second);
        channel
    }

    /// Stacks of 1,024 frames at 9,997 Hz overflowed the default ring when it was drained each 20 ms.
    #[test]
    fn the_ring_that_fills_fastest_decides_within_bounds() {
        let interval = |channels: &[Channel]| needed_interval(channels.iter());
        let ring_words = 1 << 17;
        let [slow, fast] = [997, 9_997].map(|ticks| ticks * (6 + 1_024));
        assert_eq!(interval(&[]), LONGEST_INTERVAL);
        assert_eq!(interval(&[channel(ring_words, 0)]), LONGEST_INTERVAL);
        assert_eq!(interval(&[channel(ring_words, slow)]).as_millis(), 63);
        assert_eq!(interval(&[channel(ring_words, slow), channel(ring_words, fast)]).as_micros(), 6_364);
        assert_eq!(interval(&[channel(2 * ring_words, slow)]), LONGEST_INTERVAL);
        assert_eq!(interval(&[channel(ring_words / 64, fast)]), SHORTEST_INTERVAL);
    }
}

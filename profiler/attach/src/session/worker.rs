//! The thread that samples: drains, puts in order, walks.
//!
//! Rings of different CPUs are read one after the other, so that what is read last can be younger than what is still to
//! come from the first. So only events that are older than the beginning of a round, by a margin, are looked at in it, in
//! the order of their time; the rest waits for the next round. But what was mapped is read at once, since it may soon be gone.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use flamewalk_collector::{Channel, Collector};
use flamewalk_handler::arch::Native;
use flamewalk_handler::code::CodeTable;
use flamewalk_handler::cycles;
use flamewalk_handler::record::{Frame, Header};
use flamewalk_handler::recorder::{Recorder, Visit};
use flamewalk_handler::registry::Reader;
use flamewalk_handler::ring::Full;
use flamewalk_handler::statistics::{Fate, LossCause};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::Thread;
use flamewalk_symbolizer::registry::CodeRegistry;
use flamewalk_unwinder::instructions::InstructionFrames;
use flamewalk_unwinder::{HostCode, HostFrames};

use super::stack_copy::StackCopy;
use super::{Options, State};
use crate::host::{HostObjects, TargetCode};
use crate::images::{Images, ReadImage};
use crate::memory::SampledMemory;
use crate::sampler::{Event, EventKind, Sampler, Tick, monotonic_time};
use crate::target::{Mapping, Target};
use crate::walk::{self, Sampled};

/// A record is written within this time of its own.
const MARGIN: Duration = Duration::from_millis(1);
/// How often rings are drained while guests come, and for how long after the last one: a guest that is gone before it is read
/// has no names.
const CHURN_INTERVAL: Duration = Duration::from_millis(1);
const CHURN_LASTS: Duration = Duration::from_secs(1);
/// How often what was mapped meanwhile is looked at before what else there is.
const MOST_LOOKS: usize = 8;
/// How often all mappings are looked at: what was unmapped leaves no record.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked whether the target is still there.
const LIFE_INTERVAL: Duration = Duration::from_millis(100);
/// The ring between this thread and the collector, for each thread of the target: some 600 stacks of 20 frames.
const RING_WORDS: usize = 1 << 14;

/// What the thread works with.
pub(super) struct Parts {
    pub(super) target: Target,
    pub(super) sampler: Sampler,
    /// When ticks began to count, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) began: u64,
    /// What happened before.
    pub(super) waiting: Vec<Event>,
    pub(super) images: Images,
    pub(super) registry: Arc<CodeRegistry>,
    pub(super) host_objects: HostObjects,
    pub(super) host: HostCode,
}

/// What was found where something executable was mapped.
enum Found {
    /// A guest's image, which was there from then on.
    Image(ReadImage),
    /// Code of a file that is no guest's.
    Library,
    /// What was mapped there was gone already, or replaced.
    Gone,
    /// Something else.
    Other,
}

/// The thread's own state.
pub(super) struct Worker {
    target: Arc<Target>,
    sampler: Sampler,
    /// When ticks begin and cease to count, in nanoseconds of `CLOCK_MONOTONIC`.
    began: u64,
    end: u64,
    /// The threads that were chosen; all of the target if there are none.
    chosen: Vec<i32>,
    images: Images,
    registry: Arc<CodeRegistry>,
    reader: Arc<Reader>,
    host_objects: HostObjects,
    host: InstructionFrames<TargetCode>,
    collector: Arc<Collector>,
    /// By the number of the thread.
    channels: HashMap<i32, Arc<Channel>>,
    /// Events that are too young to be looked at.
    waiting: Vec<Event>,
    /// What was found for those of them that are mappings, by time and address.
    found: HashMap<(u64, usize), Found>,
    /// When a guest came the last time, or what may have been one.
    last_guest: Option<Instant>,
    words: Vec<usize>,
    is_replaced: bool,
    rate: u32,
    frame_limit: usize,
    with_host: bool,
    stack_copy: StackCopy,
    /// What to tell besides what there is to tell of images.
    notices: Vec<String>,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn host_frames(target: &Arc<Target>, code: HostCode, objects: &HostObjects) -> InstructionFrames<TargetCode> {
    let instructions = TargetCode::new(Arc::clone(target), &code, objects);
    InstructionFrames::new(HostFrames::new(Arc::new(code)), instructions)
}

impl Worker {
    pub(super) fn new(parts: Parts, collector: Arc<Collector>, options: &Options) -> Self {
        let Parts { target, sampler, began, waiting, images, registry, host_objects, host } = parts;
        let target = Arc::new(target);
        let host = host_frames(&target, host, &host_objects);
        let reader = Arc::<Reader>::default();
        registry.handlers().add_reader(Arc::clone(&reader));
        Self {
            target,
            sampler,
            began,
            end: options.duration.map_or(u64::MAX, |duration| began.saturating_add(nanoseconds(duration))),
            chosen: options.threads.clone(),
            images,
            registry,
            reader,
            host_objects,
            host,
            collector,
            channels: HashMap::new(),
            waiting,
            found: HashMap::new(),
            last_guest: None,
            words: Vec::new(),
            is_replaced: false,
            rate: options.rate,
            frame_limit: options.frame_limit,
            with_host: options.host_frames,
            stack_copy: StackCopy::up_to(options.stack_bytes),
            notices: Vec::new(),
        }
    }

    /// Samples until it is told to stop, its time is over, or the target or its chosen threads end.
    /// Returns for how long it sampled.
    pub(super) fn run(mut self, state: &State) -> Duration {
        let (mut last_scan, mut last_look) = (Instant::now(), Instant::now());
        // Pair: the store in `Attachment::end_worker`.
        while !state.stop.load(Ordering::Relaxed) && !self.is_replaced {
            let left = self.end.saturating_sub(monotonic_time());
            if left == 0 {
                break;
            }
            std::thread::park_timeout(self.drain_interval().min(Duration::from_nanos(left)));
            self.round(monotonic_time().saturating_sub(MARGIN.as_nanos() as u64));
            if let Some(bytes) = self.stack_copy.wanted() {
                self.copy_more(bytes);
            }
            if last_look.elapsed() >= LIFE_INTERVAL {
                last_look = Instant::now();
                if self.end_of_target().is_some() {
                    break;
                }
            }
            if last_scan.elapsed() >= SCAN_INTERVAL {
                last_scan = Instant::now();
                self.stack_copy.begin_interval();
                self.scan();
                self.tell(state);
            }
        }
        self.end = self.end.min(monotonic_time());
        self.sampler.stop();
        self.round(u64::MAX);
        self.tell(state);
        if let Some(notice) = self.end_of_target() {
            state.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        }
        // Pair: the load in `Attachment::has_ended`.
        state.has_ended.store(true, Ordering::Relaxed);
        Duration::from_nanos(self.end.saturating_sub(self.began))
    }

    fn drain_interval(&self) -> Duration {
        let usual = self.sampler.drain_interval();
        match self.last_guest {
            Some(last) if last.elapsed() < CHURN_LASTS => usual.min(CHURN_INTERVAL),
            _ => usual,
        }
    }

    /// What to tell if nothing more can be sampled.
    fn end_of_target(&self) -> Option<String> {
        let pid = self.target.pid();
        if self.is_replaced {
            return Some(format!("process {pid} has begun another program while it was sampled"));
        }
        if self.target.has_ended() {
            return Some(format!("process {pid} has ended while it was sampled"));
        }
        let have_ended =
            !self.chosen.is_empty() && !self.chosen.iter().any(|thread| self.target.has_thread(*thread));
        have_ended.then(|| format!("the chosen threads of process {pid} have ended while they were sampled"))
    }

    fn tell(&self, state: &State) {
        let mut notices = state.notices.lock().unwrap_or_else(PoisonError::into_inner);
        *notices = [self.images.notices(), &self.notices].concat();
    }

    fn copy_more(&mut self, bytes: u32) {
        match self.sampler.copy_more(&self.target, bytes, &mut self.waiting) {
            Ok(()) => self.stack_copy.grow(bytes),
            Err(error) => {
                self.stack_copy.keep();
                // If it ends, that is what is told.
                if !self.target.has_ended() {
                    let bytes = self.stack_copy.bytes();
                    self.notices
                        .push(format!("no more than {bytes} bytes of each stack are copied: {error}"));
                }
            }
        }
    }

    fn scan(&mut self) {
        let now = monotonic_time();
        if let Ok(mappings) = self.target.mappings() {
            self.images.scan(&self.target, &mappings, now);
            // What a library's pointers lead to is not known before the loader has made them read-only.
            if !self.host_objects.are_as_loaded(&mappings) {
                self.load_host(&mappings);
            }
        }
    }

    fn load_host(&mut self, mappings: &[Mapping]) {
        let code = self.host_objects.load(&self.target, mappings);
        self.host = host_frames(&self.target, code, &self.host_objects);
    }

    /// Looks at all events up to a time.
    fn round(&mut self, horizon: u64) {
        self.sampler.drain(&mut self.waiting);
        self.look_at_mappings();
        self.waiting.sort_by_key(|event| event.time);
        let ready = self.waiting.partition_point(|event| event.time <= horizon);
        let events: Vec<Event> = self.waiting.drain(..ready).collect();
        for event in events {
            // Before Linux 5.13, children of the target are sampled until they begin a program of their own.
            if event.process == self.target.pid() {
                self.event(event);
            }
        }
    }

    /// Looks at what was mapped since the last round, and meanwhile.
    fn look_at_mappings(&mut self) {
        // One that maps without end may not hold up the rest.
        for _ in 0..MOST_LOOKS {
            if !self.look_at_new_mappings() {
                break;
            }
        }
    }

    /// Whether there were any.
    fn look_at_new_mappings(&mut self) -> bool {
        let of_target = self.waiting.iter().filter(|event| event.process == self.target.pid());
        let mapped = of_target.filter_map(|event| match &event.kind {
            EventKind::Mapped(range) if !self.found.contains_key(&(event.time, range.start)) => {
                Some((event.time, range.clone()))
            }
            _ => None,
        });
        let mapped: Vec<(u64, Range<usize>)> = mapped.collect();
        for (time, range) in &mapped {
            let found = self.found_at(range, *time);
            if let Found::Image(_) | Found::Gone = found {
                self.last_guest = Some(Instant::now());
            }
            self.found.insert((*time, range.start), found);
            // Many mappings may not make the rings run over.
            self.sampler.drain(&mut self.waiting);
        }
        !mapped.is_empty()
    }

    /// Something executable was mapped at `time`: an image, a library, or something else.
    fn found_at(&mut self, range: &Range<usize>, time: u64) -> Found {
        // What is there by now came later, and is looked at in its turn.
        if self.is_mapped_again(range, time) {
            return Found::Gone;
        }
        let Ok(before) = self.target.mappings() else { return Found::Gone };
        let is_at = |mapping: &&Mapping| mapping.is_executable && mapping.range.start == range.start;
        let Some(mapping) = before.iter().find(is_at) else { return Found::Gone };
        let Some(read) = self.images.read(&self.target, mapping) else {
            return if mapping.path.is_some() { Found::Library } else { Found::Other };
        };
        // It was this image that was read if it is still mapped, and nothing was mapped over it since.
        let is_there = self.target.mappings().is_ok_and(|after| after.iter().any(|other| other == mapping));
        self.sampler.drain(&mut self.waiting);
        match is_there && !self.is_mapped_again(range, time) {
            true => Found::Image(read),
            false => Found::Gone,
        }
    }

    /// Whether something was mapped over these addresses later.
    fn is_mapped_again(&self, range: &Range<usize>, time: u64) -> bool {
        self.waiting.iter().any(|event| {
            let EventKind::Mapped(other) = &event.kind else { return false };
            event.time > time
                && event.process == self.target.pid()
                && other.start < range.end
                && range.start < other.end
        })
    }

    fn event(&mut self, event: Event) {
        match event.kind {
            EventKind::Tick(_) | EventKind::Mapped(_) if event.time > self.end => {}
            EventKind::Tick(tick) => self.tick(event.thread, event.time, &tick),
            EventKind::Mapped(range) => self.mapped(&range, event.time),
            EventKind::Lost(count) => {
                let weight = count.saturating_mul(1_000_000_000 / u64::from(self.rate));
                let channel = self.channel(self.target.pid());
                channel.counters.count(Fate::Lost(LossCause::RingFull), count, weight);
            }
            EventKind::Started { .. } => {}
            EventKind::Ended => _ = self.channels.remove(&event.thread),
            EventKind::Replaced => {
                self.is_replaced = true;
                self.end = self.end.min(event.time);
            }
        }
    }

    /// What was found replaces what was there before.
    fn mapped(&mut self, range: &Range<usize>, time: u64) {
        self.images.retire(range);
        match self.found.remove(&(time, range.start)) {
            Some(Found::Image(read)) => self.images.publish(read, time),
            Some(Found::Library) => _ = self.target.mappings().map(|now| self.load_host(&now)),
            Some(Found::Gone | Found::Other) | None => {}
        }
    }

    fn channel(&mut self, thread: i32) -> &Arc<Channel> {
        self.channels.entry(thread).or_insert_with(|| {
            let name = self.target.thread_name(thread).map(Into::into);
            let thread = Thread { id: u64::from(thread.unsigned_abs()), name };
            let channel = Arc::new(Channel::of(RING_WORDS, thread, || ()));
            self.collector.add(Arc::clone(&channel));
            channel
        })
    }

    fn tick(&mut self, thread: i32, time: u64, tick: &Tick) {
        let entered = cycles::now();
        let channel = Arc::clone(self.channel(thread));
        let registry = Arc::clone(&self.registry);
        let reader = Arc::clone(&self.reader);
        // SAFETY: the reader was added to this registry by `new` and is used by this thread only; this does not nest.
        let fate =
            unsafe { registry.handlers().read(&reader, |table| self.sample(&channel, table, time, tick)) };
        channel.counters.count(fate, 1, tick.weight);
        channel.counters.took(cycles::now().saturating_sub(entered));
        if channel.ring.is_half_full() {
            self.collector.drain_soon();
        }
    }

    /// Walks a sample and writes it into the channel's ring, if there is a guest.
    fn sample(&mut self, channel: &Channel, table: CodeTable<'_>, time: u64, tick: &Tick) -> Fate {
        let Some(registers) = &tick.registers else { return Fate::Outside };
        self.words.clear();
        let words = tick.stack.as_chunks::<8>().0;
        self.words.extend(words.iter().map(|word| usize::from_ne_bytes(*word)));
        let missed = Cell::new(None);
        let memory = SampledMemory::new(registers.sp, &self.words, &self.images, &missed);
        let sampled = Sampled { memory: &memory, table, is_cut: tick.is_cut, missed: &missed };

        let mut recorder = Recorder::begin(&channel.ring);
        let mut was_there = true;
        let mut visit = |frame: Frame| {
            if let Frame::Instruction(address) | Frame::ReturnAddress(address) = frame {
                was_there &= self.images.was_there(address, time);
            }
            recorder.frame(frame)
        };
        let (host, limit) = (&mut self.host, self.frame_limit);
        let end = walk::walk::<Native, _, _>(registers, &sampled, host, self.with_host, limit, &mut visit);
        self.stack_copy.count(end != WalkEnd::EntryTrampoline && sampled.is_beyond_copy());
        if let Some(cause) = LossCause::of_walk(end) {
            return Fate::Lost(cause);
        }
        if !recorder.has_guest() && end == WalkEnd::EntryTrampoline {
            return Fate::Outside;
        }
        if !was_there {
            return Fate::Lost(LossCause::UnknownCode);
        }
        let header = Header {
            ticks: 1,
            end,
            weight: tick.weight,
            time,
            generation: table.generation(),
            labels: 0,
            // The stack's bounds are not known.
            stack_used: u32::MAX,
            stack_left: u32::MAX,
        };
        match recorder.commit(&header) {
            Ok(()) => Fate::Delivered,
            Err(Full) => Fate::Lost(LossCause::RingFull),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.registry.handlers().remove_reader(&self.reader);
    }
}

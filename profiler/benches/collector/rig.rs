//! A collector of its own with a ring that is filled by hand, and numbers that look random and are the same in each run.

use std::sync::Arc;
use std::time::Duration;

use flamewalk_collector::{Channel, Collector, LabelTable, Options, Window};
use flamewalk_handler::record::Header;
use flamewalk_handler::statistics::Fate;
use flamewalk_handler::walk::WalkEnd;
use flamewalk_symbolizer::HostSymbolizer;
use nix::time::{ClockId, clock_gettime};

use crate::stacks::Sqlite;

/// A generation in which the guest's code is there.
const GENERATION: u64 = u64::MAX / 2;

/// A collector with one window, and one thread whose ring it drains.
pub(crate) struct Rig {
    pub(crate) window: Window,
    channel: Arc<Channel>,
    /// When it began, in nanoseconds.
    start: u64,
    buffer: Vec<u64>,
}

impl Rig {
    /// Drains only when it is asked for something.
    pub(crate) fn new(guest: &Sqlite, ring_words: usize) -> Self {
        let mut options = Options::default();
        options.drain_interval = Some(Duration::from_secs(24 * 3_600));
        let (registry, labels) = (guest.registry(), Arc::new(LabelTable::default()));
        let collector = Collector::start(registry, labels, HostSymbolizer::new(Vec::new()), &options);
        let collector = Arc::new(collector.expect("a thread"));
        let window = collector.open().expect("a window");
        let channel = Arc::new(Channel::new(ring_words, std::process::id().cast_signed(), || {}));
        collector.add(Arc::clone(&channel));
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).expect("a clock");
        Self { window, channel, start: now.as_nanos() as u64, buffer: Vec::new() }
    }

    /// A sample on a stack, so long after the start, that stands for `weight`.
    pub(crate) fn sample(&mut self, stack: &[u64], since_start: Duration, weight: u64) {
        let header = Header {
            ticks: 1,
            end: WalkEnd::EntryTrampoline,
            weight,
            time: self.start + since_start.as_nanos() as u64,
            generation: GENERATION,
            labels: 0,
            stack_used: 4_096,
            stack_left: 1 << 19,
        };
        self.buffer.clear();
        self.buffer.extend(header.encode(stack.len()));
        self.buffer.extend_from_slice(stack);
        let mut record = self.channel.ring.begin();
        record.extend(&self.buffer, |word| word).expect("the ring is large enough");
        record.commit();
        self.channel.counters.count(Fate::Delivered, 1, weight);
    }

    /// Has everything drained.
    pub(crate) fn drain(&self) {
        self.window.statistics().expect("the collector lives");
    }
}

/// Numbers that look random.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From 0 up to 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.share() * end as f64) as usize
    }
}

/// The CPU time that the collector's thread has had.
pub(crate) fn collector_time() -> Duration {
    collector_run().0
}

/// The CPU time that the collector's thread has had, and how many times it was given some.
pub(crate) fn collector_run() -> (Duration, u64) {
    let mut tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let of_collector = tasks.find_map(|task| {
        let task = task.ok()?.path();
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        if name.trim() != "flamewalk" {
            return None;
        }
        // Nanoseconds on a processor, nanoseconds of waiting for one, and how often it was put on one.
        let schedule = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let mut numbers = schedule.split_whitespace().map(|number| number.parse().ok());
        Some((Duration::from_nanos(numbers.next()??), numbers.nth(1)??))
    });
    of_collector.expect("a collector")
}

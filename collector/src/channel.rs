//! What one sampled thread and the collector share for the length of a session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flamewalk_handler::ring::{Ring, Word};
use flamewalk_handler::statistics::Counters;
use flamewalk_profile::Thread;

/// The ring that a thread's handler fills and the collector drains, and the handler's counters.
pub struct Channel {
    /// The samples.
    pub ring: Ring<Box<[Word]>>,
    /// What became of each tick.
    pub counters: Counters,
    /// The thread.
    pub thread: Thread,
    /// The most that is written to the ring in a second.
    words_per_second: AtomicU64,
    on_drain: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel whose ring holds `ring_words` words, rounded down to a power of two.
    ///
    /// The ring's memory is touched here, so that the handler does not take its page faults. The thread, of this
    /// process, is known in profiles by the name that it has now. `on_drain` is called by the collector's thread each
    /// time that it drains the ring after ticks.
    ///
    /// The thread has ended, as far as the collector is concerned, when nobody else holds the channel.
    pub fn new(ring_words: usize, thread_id: i32, on_drain: impl Fn() + Send + Sync + 'static) -> Self {
        let thread = Thread { id: u64::from(thread_id.unsigned_abs()), name: thread_name(thread_id) };
        Self::of(ring_words, thread, on_drain)
    }

    /// As [`Channel::new`], for a thread that is known by what is given: one of another process.
    pub fn of(ring_words: usize, thread: Thread, on_drain: impl Fn() + Send + Sync + 'static) -> Self {
        let words: Box<[Word]> = (0..ring_words).map(|_| Word::default()).collect();
        Self {
            ring: Ring::new(words),
            counters: Counters::default(),
            thread,
            words_per_second: AtomicU64::new(0),
            on_drain: Box::new(on_drain),
        }
    }

    /// States the most words that will be written to the ring in a second, which decides how often it is drained: before
    /// the channel is added, or before [`Collector::follow_expectations`]. Who writes to it need not state that if it says
    /// when the ring is half full ([`Collector::drain_soon`]).
    ///
    /// [`Collector::follow_expectations`]: crate::Collector::follow_expectations
    /// [`Collector::drain_soon`]: crate::Collector::drain_soon
    pub fn expect(&self, words_per_second: u64) {
        // Adding the channel, or waking the collector, orders it.
        self.words_per_second.store(words_per_second, Ordering::Relaxed);
    }

    /// How long it takes at least until an empty ring is half full.
    pub(crate) fn time_to_half_full(&self) -> Duration {
        let half = self.ring.capacity() as u64 / 2;
        let words_per_second = self.words_per_second.load(Ordering::Relaxed);
        let nanoseconds = half.saturating_mul(1_000_000_000).checked_div(words_per_second);
        nanoseconds.map_or(Duration::MAX, Duration::from_nanos)
    }

    pub(crate) fn drained(&self) {
        (self.on_drain)();
    }
}

/// A thread's name, which the kernel keeps to 15 bytes.
fn thread_name(id: i32) -> Option<Arc<str>> {
    let name = std::fs::read(format!("/proc/self/task/{id}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    Some(name.into()).filter(|name: &Arc<str>| !name.is_empty())
}

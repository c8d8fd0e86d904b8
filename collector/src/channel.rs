//! What one sampled thread and the collector share for the length of a session.

use std::fmt;

use flamewalk_handler::ring::{Ring, Word};
use flamewalk_handler::statistics::Counters;

/// The ring that a thread's handler fills and the collector drains, and the handler's counters.
pub struct Channel {
    /// The samples.
    pub ring: Ring<Box<[Word]>>,
    /// What became of each tick.
    pub counters: Counters,
    /// The kernel's id of the thread.
    pub thread_id: i32,
    on_drain: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("thread_id", &self.thread_id).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel whose ring holds `ring_words` words, rounded down to a power of two.
    ///
    /// The ring's memory is touched here, so that the handler does not take its page faults. `on_drain` is called
    /// by the collector's thread each time that it drains the ring.
    pub fn new(ring_words: usize, thread_id: i32, on_drain: impl Fn() + Send + Sync + 'static) -> Self {
        let words: Box<[Word]> = (0..ring_words).map(|_| Word::default()).collect();
        Self {
            ring: Ring::new(words),
            counters: Counters::default(),
            thread_id,
            on_drain: Box::new(on_drain),
        }
    }

    pub(crate) fn drained(&self) {
        (self.on_drain)();
    }
}

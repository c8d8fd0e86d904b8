//! What a profiler itself took: time, memory, and how much it had to look after.

use std::time::Duration;

/// What the profiler took. Everything is 0 in a profile that does not say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Resources {
    /// Time that signal handlers have taken, all threads together, without the kernel's part of a signal.
    pub handler_time: Duration,
    /// The most bytes that were ever waiting in one thread's ring.
    pub ring_high_water: u64,
    /// How many bytes one thread's ring holds.
    pub ring_size: u64,
    /// Memory that is held now.
    pub memory: Memory,
    /// Threads that are set up to be sampled.
    pub threads: u64,
    /// Stores that are attached.
    pub stores: u64,
    /// Code images that are registered.
    pub images: u64,
}

/// Memory that a profiler holds, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Memory {
    /// Rings between the threads' handlers and the collector.
    pub rings: u64,
    /// Distinct stacks and what fell on them.
    pub stacks: u64,
    /// Tables of code, names and addresses.
    pub tables: u64,
}

impl Memory {
    /// All of it together. Saturates at 64 bits.
    pub fn total(&self) -> u64 {
        self.rings.saturating_add(self.stacks).saturating_add(self.tables)
    }
}

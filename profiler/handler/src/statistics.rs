//! Counters that the handler keeps: what became of each tick.
//!
//! Ticks are counted, not calls of the handler: one call can stand for several ticks. For every thread,
//! `delivered + outside + the sum of lost = ticks` holds whenever no handler is running.

use crate::sync::{AtomicU64, Ordering};
use crate::walk::WalkEnd;

/// Why a sample did not reach the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LossCause {
    /// The ring was full: the collector could not keep up.
    RingFull,
    /// The stack pointer was on no stack that is known to belong to the thread.
    UnknownStack,
    /// A frame pointer led outside the live part of the stack.
    OutsideStack,
    /// A frame pointer was not aligned.
    Misaligned,
    /// A frame pointer did not lead to an older frame.
    NoProgress,
    /// A frame lies in code that was never registered.
    UnknownCode,
    /// The interrupted function does not begin with a known prologue.
    UnknownPrologue,
    /// Native code of the host could not be unwound, so that guests above it cannot be found.
    UnknownHostCode,
    /// The part of the stack that was copied holds no guest, and there is more.
    BeyondCopy,
}

impl LossCause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::RingFull,
        Self::UnknownStack,
        Self::OutsideStack,
        Self::Misaligned,
        Self::NoProgress,
        Self::UnknownCode,
        Self::UnknownPrologue,
        Self::UnknownHostCode,
        Self::BeyondCopy,
    ];

    /// The cause in words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::RingFull => "ring full",
            Self::UnknownStack => WalkEnd::UnknownStack.describe(),
            Self::OutsideStack => WalkEnd::OutsideStack.describe(),
            Self::Misaligned => WalkEnd::Misaligned.describe(),
            Self::NoProgress => WalkEnd::NoProgress.describe(),
            Self::UnknownCode => WalkEnd::UnknownCode.describe(),
            Self::UnknownPrologue => WalkEnd::UnknownPrologue.describe(),
            Self::UnknownHostCode => WalkEnd::UnknownHostCode.describe(),
            Self::BeyondCopy => WalkEnd::BeyondCopy.describe(),
        }
    }

    /// Why a sample whose walk ended this way is not delivered; `None` if it is.
    pub const fn of_walk(end: WalkEnd) -> Option<Self> {
        match end {
            WalkEnd::EntryTrampoline | WalkEnd::FrameLimit => None,
            WalkEnd::OutsideStack => Some(Self::OutsideStack),
            WalkEnd::Misaligned => Some(Self::Misaligned),
            WalkEnd::NoProgress => Some(Self::NoProgress),
            WalkEnd::UnknownCode => Some(Self::UnknownCode),
            WalkEnd::UnknownPrologue => Some(Self::UnknownPrologue),
            WalkEnd::UnknownStack => Some(Self::UnknownStack),
            WalkEnd::UnknownHostCode => Some(Self::UnknownHostCode),
            WalkEnd::BeyondCopy => Some(Self::BeyondCopy),
        }
    }
}

/// What became of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its sample is in the ring.
    Delivered,
    /// No guest was on the stack.
    Outside,
    /// It was dropped.
    Lost(LossCause),
}

/// A count of ticks and the weight that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ticks of the event source.
    pub ticks: u64,
    /// Their weight, in the unit of the event.
    pub weight: u64,
}

#[derive(Debug)]
struct AtomicTally {
    ticks: AtomicU64,
    weight: AtomicU64,
}

impl Default for AtomicTally {
    fn default() -> Self {
        Self { ticks: AtomicU64::new(0), weight: AtomicU64::new(0) }
    }
}

impl AtomicTally {
    /// One thread writes (its handler); others read. So no read-modify-write is needed, and no order.
    fn add(&self, ticks: u64, weight: u64) {
        self.ticks.store(self.ticks.load(Ordering::Relaxed).wrapping_add(ticks), Ordering::Relaxed);
        self.weight.store(self.weight.load(Ordering::Relaxed).wrapping_add(weight), Ordering::Relaxed);
    }

    fn get(&self) -> Tally {
        Tally { ticks: self.ticks.load(Ordering::Relaxed), weight: self.weight.load(Ordering::Relaxed) }
    }
}

/// The counters of one thread.
#[derive(Debug, Default)]
pub struct Counters {
    all: AtomicTally,
    delivered: AtomicTally,
    outside: AtomicTally,
    lost: [AtomicTally; LossCause::ALL.len()],
    handler_cycles: AtomicU64,
}

impl Counters {
    /// Counts ticks and their fate. Called by the one thread that owns the counters.
    pub fn count(&self, fate: Fate, ticks: u64, weight: u64) {
        self.all.add(ticks, weight);
        let tally = match fate {
            Fate::Delivered => Some(&self.delivered),
            Fate::Outside => Some(&self.outside),
            Fate::Lost(cause) => self.lost.get(cause as usize),
        };
        if let Some(tally) = tally {
            tally.add(ticks, weight);
        }
    }

    /// Adds to the time that the handler has taken, in cycles; see [`cycles`](crate::cycles). Called by the one thread
    /// that owns the counters.
    pub fn took(&self, cycles: u64) {
        let sum = self.handler_cycles.load(Ordering::Relaxed).wrapping_add(cycles);
        self.handler_cycles.store(sum, Ordering::Relaxed);
    }

    /// The time that the handler has taken so far, in cycles.
    pub fn handler_cycles(&self) -> u64 {
        self.handler_cycles.load(Ordering::Relaxed)
    }

    /// All ticks.
    pub fn all(&self) -> Tally {
        self.all.get()
    }

    /// Ticks whose samples are in the ring.
    pub fn delivered(&self) -> Tally {
        self.delivered.get()
    }

    /// Ticks at which no guest was on the stack.
    pub fn outside(&self) -> Tally {
        self.outside.get()
    }

    /// Ticks that were lost for `cause`.
    pub fn lost(&self, cause: LossCause) -> Tally {
        self.lost.get(cause as usize).map(AtomicTally::get).unwrap_or_default()
    }
}

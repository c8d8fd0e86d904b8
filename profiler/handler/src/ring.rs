//! A lock-free ring of words between one producer (a signal handler) and one consumer (the collector).
//!
//! Records of any length follow each other in a power of two of words. The producer either writes a whole
//! record or drops it; it never waits. A record becomes visible at once, when its last word is written.
//!
//! ```text
//!      tail (consumer)          head (producer)
//!        ▼                        ▼
//!   ┌────┬───────────┬───────────┬─────────────┐
//!   │free│ record    │ record    │ free        │     positions count up and are taken modulo the length
//!   └────┴───────────┴───────────┴─────────────┘
//! ```
//!
//! The words are atomic, so that the ring needs no `unsafe`: a relaxed store of a word is a plain store.

use core::ops::Deref;

use crate::record::record_length;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// A word of a ring.
#[derive(Debug)]
pub struct Word(AtomicU64);

impl Default for Word {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// A ring over storage that its owner provides.
#[derive(Debug)]
pub struct Ring<S> {
    words: S,
    /// One less than the power of two of words that are used; the index of a position is its part under this mask.
    mask: usize,
    /// Position that the producer writes next. Written by the producer only.
    head: AtomicUsize,
    /// Position that the consumer reads next. Written by the consumer only.
    tail: AtomicUsize,
    /// The most words that were ever in use. Written by the producer only.
    high_water: AtomicUsize,
}

/// The ring has no room for the record; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<S: Deref<Target = [Word]>> Ring<S> {
    /// A ring over `words`, of which the largest power of two is used.
    pub fn new(words: S) -> Self {
        let capacity = match words.len() {
            0 => 0,
            length => 1usize << length.ilog2(),
        };
        Self {
            words,
            // Without words the mask does not matter: no index is found.
            mask: capacity.saturating_sub(1),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
        }
    }

    /// How many words the ring holds.
    pub fn capacity(&self) -> usize {
        if self.words.is_empty() { 0 } else { self.mask.saturating_add(1) }
    }

    /// The most words that were ever in use at once.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed)
    }

    /// Whether at least half of it is in use, as the producer sees it.
    pub fn is_half_full(&self) -> bool {
        // Only the producer writes `head`. How much is free does not order anything: `begin` looks again.
        let used = self.head.load(Ordering::Relaxed).wrapping_sub(self.tail.load(Ordering::Relaxed));
        used >= self.capacity().div_ceil(2)
    }

    fn word(&self, position: usize) -> Option<&AtomicU64> {
        self.words.get(position & self.mask).map(|word| &word.0)
    }

    /// The words of `length` positions from one on: those to the end of the storage, and those from its beginning on.
    #[inline]
    fn from(&self, position: usize, length: usize) -> (&[Word], &[Word]) {
        let to_end = self.words.get(position & self.mask..=self.mask).unwrap_or(&[]);
        let (to_end, left) = match to_end.get(..length) {
            Some(all) => (all, 0),
            None => (to_end, length.saturating_sub(to_end.len())),
        };
        (to_end, self.words.get(..left).unwrap_or(&[]))
    }

    /// Begins a record. Only one thread may produce.
    pub fn begin(&self) -> Writer<'_, S> {
        // Only the producer writes `head`.
        let start = self.head.load(Ordering::Relaxed);
        // Pair: the release store in `pop`. What the consumer has read may be overwritten.
        let used = start.wrapping_sub(self.tail.load(Ordering::Acquire));
        Writer { ring: self, start, length: 0, room: self.capacity().saturating_sub(used), used }
    }

    /// Takes the oldest record out of the ring and hands its words to `push`, in order. Returns whether there was
    /// one. Only one thread may consume.
    pub fn pop(&self, mut push: impl FnMut(u64)) -> bool {
        // Only the consumer writes `tail`.
        let tail = self.tail.load(Ordering::Relaxed);
        // Pair: the release store in `commit`. The words of all records before `head` are visible.
        let available = self.head.load(Ordering::Acquire).wrapping_sub(tail);
        if available == 0 {
            return false;
        }
        let first = self.word(tail).map_or(0, |word| word.load(Ordering::Relaxed));
        // A record is never empty and never longer than what is there; this only bounds the loop.
        let length = record_length(first).clamp(1, available);
        let (to_end, from_start) = self.from(tail, length);
        to_end.iter().chain(from_start).for_each(|word| push(word.0.load(Ordering::Relaxed)));
        // Pair: the acquire load in `begin`.
        self.tail.store(tail.wrapping_add(length), Ordering::Release);
        true
    }
}

/// A record that is being written. Dropping it without [`Writer::commit`] writes nothing.
#[derive(Debug)]
pub struct Writer<'a, S> {
    ring: &'a Ring<S>,
    start: usize,
    length: usize,
    room: usize,
    used: usize,
}

impl<S: Deref<Target = [Word]>> Writer<'_, S> {
    /// Appends a word.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room for it.
    #[inline]
    pub fn push(&mut self, value: u64) -> Result<(), Full> {
        if self.length >= self.room {
            return Err(Full);
        }
        let word = self.ring.word(self.start.wrapping_add(self.length)).ok_or(Full)?;
        word.store(value, Ordering::Relaxed);
        self.length = self.length.saturating_add(1);
        Ok(())
    }

    /// Appends a word for each of `values`.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room for all of them; nothing was appended then.
    #[inline]
    pub fn extend<V: Copy>(&mut self, values: &[V], encode: impl Fn(V) -> u64) -> Result<(), Full> {
        let position = self.start.wrapping_add(self.length);
        self.reserve(values.len())?;
        let (to_end, from_start) = self.ring.from(position, values.len());
        let (first, rest) = values.split_at(to_end.len().min(values.len()));
        let store = |(word, value): (&Word, &V)| word.0.store(encode(*value), Ordering::Relaxed);
        to_end.iter().zip(first).for_each(store);
        from_start.iter().zip(rest).for_each(store);
        Ok(())
    }

    /// Appends `count` words that are to be set before the record is committed; until then they hold anything.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room for them; nothing was appended then.
    pub fn reserve(&mut self, count: usize) -> Result<(), Full> {
        let length = self.length.saturating_add(count);
        if length > self.room {
            return Err(Full);
        }
        self.length = length;
        Ok(())
    }

    /// Replaces a word that was appended before.
    pub fn set(&mut self, index: usize, value: u64) {
        if index < self.length
            && let Some(word) = self.ring.word(self.start.wrapping_add(index))
        {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// How many words were appended.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Makes the record visible. Its first word has to hold the record's length.
    pub fn commit(self) {
        let used = self.used.saturating_add(self.length);
        if used > self.ring.high_water.load(Ordering::Relaxed) {
            self.ring.high_water.store(used, Ordering::Relaxed);
        }
        // Pair: the acquire load in `pop`.
        self.ring.head.store(self.start.wrapping_add(self.length), Ordering::Release);
    }
}

//! How much of a stack is copied: little at first, which costs the target least, and more once walks run out of it.
//!
//! It is not made less again: a target that had deep stacks once is expected to have them again.

/// What is copied at first, in bytes: more than the stacks of nearly all guests have below them.
const FIRST: u32 = 8 << 10;
/// So many samples have to run out of the copy in an interval, and one in [`SELDOM`].
const LEAST: u64 = 10;
const SELDOM: u64 = 100;

/// What is copied now, and how often it did not suffice.
#[derive(Debug)]
pub(super) struct StackCopy {
    bytes: u32,
    most: u32,
    /// Of this interval.
    samples: u64,
    too_short: u64,
}

impl StackCopy {
    /// What is copied at first if `most` bytes may be.
    pub(super) fn up_to(most: u32) -> Self {
        Self { bytes: FIRST.min(most), most, samples: 0, too_short: 0 }
    }

    pub(super) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Counts a sample, and whether its walk ran out of what was copied.
    pub(super) fn count(&mut self, is_too_short: bool) {
        self.samples += 1;
        self.too_short += u64::from(is_too_short);
    }

    /// What should be copied instead, if that is more.
    pub(super) fn wanted(&self) -> Option<u32> {
        let is_often = self.too_short >= LEAST.max(self.samples / SELDOM);
        let bytes = self.bytes.saturating_mul(2).min(self.most);
        (is_often && bytes > self.bytes).then_some(bytes)
    }

    /// So many bytes are copied from now on.
    pub(super) fn grow(&mut self, bytes: u32) {
        self.bytes = bytes;
        self.begin_interval();
    }

    /// More cannot be copied.
    pub(super) fn keep(&mut self) {
        self.most = self.bytes;
    }

    pub(super) fn begin_interval(&mut self) {
        (self.samples, self.too_short) = (0, 0);
    }
}

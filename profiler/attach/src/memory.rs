//! The stack of one sample and the code of the images, for the walker.

use std::cell::Cell;
use std::ops::Range;

use flamewalk_handler::memory::Memory;

use crate::images::Images;

/// What the kernel has copied of a stack, and the images' code.
#[derive(Clone, Debug)]
pub(crate) struct SampledMemory<'a> {
    start: usize,
    /// The stack from `start` on.
    words: &'a [usize],
    images: &'a Images,
    /// The last address that was asked for and is not there.
    missed: &'a Cell<Option<usize>>,
}

impl<'a> SampledMemory<'a> {
    /// A stack that was copied from `start` on.
    pub(crate) fn new(
        start: usize,
        words: &'a [usize],
        images: &'a Images,
        missed: &'a Cell<Option<usize>>,
    ) -> Self {
        Self { start, words, images, missed }
    }
}

impl Memory for SampledMemory<'_> {
    fn part(&self, stack: Range<usize>) -> Self {
        let word = size_of::<usize>();
        let first = stack.start.saturating_sub(self.start).div_ceil(word).min(self.words.len());
        let end = (stack.end.saturating_sub(self.start) / word).clamp(first, self.words.len());
        let words = self.words.get(first..end).unwrap_or(&[]);
        Self { start: self.start.saturating_add(first.saturating_mul(word)), words, ..self.clone() }
    }

    fn stack_word(&self, address: usize) -> Option<usize> {
        let offset =
            address.checked_sub(self.start).filter(|offset| offset.is_multiple_of(size_of::<usize>()));
        let found = offset.and_then(|offset| self.words.get(offset / size_of::<usize>()).copied());
        if found.is_none() {
            self.missed.set(Some(address));
        }
        found
    }

    fn code(&self, addresses: Range<usize>) -> &[u8] {
        self.images.code(addresses)
    }

    fn live_stack(&self) -> Range<usize> {
        self.start..self.start.saturating_add(size_of_val(self.words))
    }
}

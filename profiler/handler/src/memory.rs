//! The memory that a walk may read.
//!
//! The walker itself never dereferences anything: it asks a [`Memory`], which answers only for addresses that
//! it can show to be valid. The handler uses [`LiveStack`]; tests use arrays; a profiler that looks from
//! outside can use a copy of the stack.

use core::ops::Range;

/// Checked access to a stack and to the code that runs on it.
pub trait Memory: Sized {
    /// The same memory, with this part of a stack as its live stack. Empty if the part is.
    fn part(&self, stack: Range<usize>) -> Self;

    /// The word at `address` of the stack, or `None` if the address is misaligned or outside the live part.
    fn stack_word(&self, address: usize) -> Option<usize>;

    /// The words at `address` and behind it: a frame's first two.
    fn stack_pair(&self, address: usize) -> Option<[usize; 2]> {
        let second = address.checked_add(size_of::<usize>())?;
        Some([self.stack_word(address)?, self.stack_word(second)?])
    }

    /// The machine code of a function that a code table describes. Empty if it cannot be read.
    fn code(&self, addresses: Range<usize>) -> &[u8];

    /// The live part of the stack: from the stack pointer to the top.
    fn live_stack(&self) -> Range<usize>;
}

/// The live stack of the current thread, which was interrupted.
#[derive(Debug)]
pub struct LiveStack {
    live: Range<usize>,
}

impl LiveStack {
    /// No part of the stack yet.
    ///
    /// # Safety
    ///
    /// Every range handed to [`Memory::part`] must be mapped and readable for as long as the value lives, and belong to
    /// stacks that only the interrupted thread writes to (so that nothing changes while it is read). Every range handed
    /// to [`Memory::code`] must be mapped, readable code.
    pub unsafe fn new() -> Self {
        Self { live: 0..0 }
    }
}

impl Memory for LiveStack {
    fn part(&self, stack: Range<usize>) -> Self {
        Self { live: stack }
    }

    #[inline]
    fn stack_word(&self, address: usize) -> Option<usize> {
        let last = self.live.end.checked_sub(size_of::<usize>())?;
        if address < self.live.start || address > last || !address.is_multiple_of(align_of::<usize>()) {
            return None;
        }
        // SAFETY: the whole word lies in the live part of the stack, which `new`'s caller vouches for, and it
        // is aligned. The read is volatile since the frame's owner is not Rust code that the compiler knows.
        Some(unsafe { core::ptr::with_exposed_provenance::<usize>(address).read_volatile() })
    }

    #[inline]
    fn stack_pair(&self, address: usize) -> Option<[usize; 2]> {
        let last = self.live.end.checked_sub(size_of::<[usize; 2]>())?;
        if address < self.live.start || address > last || !address.is_multiple_of(align_of::<usize>()) {
            return None;
        }
        let words = core::ptr::with_exposed_provenance::<usize>(address);
        // SAFETY: as in `stack_word`, for both words.
        Some(unsafe { [words.read_volatile(), words.add(1).read_volatile()] })
    }

    #[inline]
    fn code(&self, addresses: Range<usize>) -> &[u8] {
        let start = core::ptr::with_exposed_provenance::<u8>(addresses.start);
        // SAFETY: `new`'s caller vouches for code ranges, and code is not written while it runs.
        unsafe { core::slice::from_raw_parts(start, addresses.len()) }
    }

    #[inline]
    fn live_stack(&self) -> Range<usize> {
        self.live.clone()
    }
}

/// A stack and code that are given as arrays: for tests, and for walks over copies.
#[derive(Clone, Debug, Default)]
pub struct CopiedMemory<'a> {
    /// Address of the first word of `words`; a multiple of the word's size.
    pub stack_start: usize,
    /// The live part of the stack, lowest address first.
    pub words: &'a [usize],
    /// Address of the first byte of `code_bytes`.
    pub code_start: usize,
    /// The code.
    pub code_bytes: &'a [u8],
}

impl Memory for CopiedMemory<'_> {
    fn part(&self, stack: Range<usize>) -> Self {
        // As far as it was copied.
        let first =
            stack.start.saturating_sub(self.stack_start).div_ceil(size_of::<usize>()).min(self.words.len());
        let end = stack.end.saturating_sub(self.stack_start).checked_div(size_of::<usize>()).unwrap_or(0);
        let words = self.words.get(first..end.clamp(first, self.words.len())).unwrap_or(&[]);
        let stack_start = self.stack_start.saturating_add(first.saturating_mul(size_of::<usize>()));
        Self { stack_start, words, ..*self }
    }

    fn stack_word(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.stack_start)?;
        if !offset.is_multiple_of(size_of::<usize>()) {
            return None;
        }
        self.words.get(offset.checked_div(size_of::<usize>())?).copied()
    }

    fn code(&self, addresses: Range<usize>) -> &[u8] {
        let offset = |address: usize| address.checked_sub(self.code_start);
        let (Some(start), Some(end)) = (offset(addresses.start), offset(addresses.end)) else { return &[] };
        self.code_bytes.get(start..end).unwrap_or(&[])
    }

    fn live_stack(&self) -> Range<usize> {
        let length = self.words.len().saturating_mul(size_of::<usize>());
        self.stack_start..self.stack_start.saturating_add(length)
    }
}

//! Walking the frames of one guest segment, from a frame to the trampoline that entered the guest.
//!
//! A frame pointer is believed only if it is aligned, lies in the live part of the stack, and is higher than
//! the one before; a return address only if the code table says that it lies in guest code. The walk therefore
//! ends after at most as many steps as its limit, whatever the stack holds, and says why it ended.
//!
//! It allocates nothing, asserts nothing and logs nothing.

use core::marker::PhantomData;

use crate::arch::{Architecture, CallerLocation};
use crate::code::{CodeImage, CodeKind, CodeTable};
use crate::memory::Memory;

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WalkEnd {
    /// The trampoline that entered the guest was reached: the segment is complete.
    EntryTrampoline,
    /// The limit on frames was reached: the oldest frames are missing.
    FrameLimit,
    /// A frame pointer led outside the live part of the stack.
    OutsideStack,
    /// A frame pointer was not aligned.
    Misaligned,
    /// A frame pointer did not lead to an older frame.
    NoProgress,
    /// A return address lies in no code that the registry knows.
    UnknownCode,
    /// The interrupted function does not begin with a known prologue.
    UnknownPrologue,
    /// The stack pointer was not on the stack of the youngest activation.
    UnknownStack,
    /// Seen from another process: native code of the host that cannot be unwound lies below all guests.
    UnknownHostCode,
    /// Seen from another process: no guest lies in the part of the stack that was copied, and there is more.
    BeyondCopy,
}

impl WalkEnd {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::EntryTrampoline,
        Self::FrameLimit,
        Self::OutsideStack,
        Self::Misaligned,
        Self::NoProgress,
        Self::UnknownCode,
        Self::UnknownPrologue,
        Self::UnknownStack,
        Self::UnknownHostCode,
        Self::BeyondCopy,
    ];

    /// Whether the frames that were seen are certain, so that the sample may be delivered.
    pub const fn is_sound(self) -> bool {
        matches!(self, Self::EntryTrampoline | Self::FrameLimit)
    }

    /// The reason in words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::EntryTrampoline => "reached the entry of the guest",
            Self::FrameLimit => "reached the frame limit",
            Self::OutsideStack => "frame pointer outside the stack",
            Self::Misaligned => "misaligned frame pointer",
            Self::NoProgress => "frame pointer does not lead to an older frame",
            Self::UnknownCode => "code that was not registered",
            Self::UnknownPrologue => "unknown prologue",
            Self::UnknownStack => "unknown stack",
            Self::UnknownHostCode => "native code that cannot be unwound",
            Self::BeyondCopy => "beyond the copied part of the stack",
        }
    }
}

/// How many return addresses [`Callers::next_run`] finds at most.
pub const RUN: usize = 32;

/// The return addresses of one segment's guest frames, youngest first.
///
/// After the iterator has returned `None`, [`Callers::end`] says why.
#[derive(Debug)]
pub struct Callers<'a, A, M> {
    memory: &'a M,
    table: CodeTable<'a>,
    /// The image of the last return address: the next one is nearly always in the same.
    image: Option<&'a CodeImage<'a>>,
    /// A return address that was found without a frame.
    pending: Option<usize>,
    /// The frame that is read next; once the walk has ended at the entry trampoline, that trampoline's frame.
    fp: usize,
    /// Frames at or below this address have been seen.
    seen: usize,
    steps_left: usize,
    end: Option<WalkEnd>,
    architecture: PhantomData<A>,
}

impl<'a, A: Architecture, M: Memory> Callers<'a, A, M> {
    /// Walks from `location`, with the value of the frame pointer register in `fp`, for at most `limit` steps.
    pub fn new(
        memory: &'a M,
        table: CodeTable<'a>,
        location: CallerLocation,
        fp: usize,
        limit: usize,
    ) -> Self {
        let (pending, fp, end) = match location {
            CallerLocation::Frame { fp } => (None, fp, None),
            CallerLocation::ReturnAddress { address } => (Some(address), fp, None),
            CallerLocation::ReturnAddressAt { address } => match memory.stack_word(address) {
                Some(return_address) => (Some(return_address), fp, None),
                None => (None, fp, Some(WalkEnd::OutsideStack)),
            },
        };
        let seen = memory.live_stack().start.saturating_sub(1);
        Self {
            memory,
            table,
            image: None,
            pending,
            fp,
            seen,
            steps_left: limit,
            end,
            architecture: PhantomData,
        }
    }

    /// Why the walk ended; `None` while it goes on.
    pub fn end(&self) -> Option<WalkEnd> {
        self.end
    }

    /// How many more steps the walk may take. A frame, a trampoline between frames and the entry trampoline are one
    /// step each.
    pub fn steps_left(&self) -> usize {
        self.steps_left
    }

    /// The frame pointer of the entry trampoline, if the walk ended there.
    pub fn entry_fp(&self) -> Option<usize> {
        (self.end == Some(WalkEnd::EntryTrampoline)).then_some(self.fp)
    }

    /// The return addresses that come next, as many as the next call of [`Iterator::next`] and those after it would
    /// return without looking up any code: those in the run of guest functions that the last one was in. None means
    /// nothing but that: [`Iterator::next`] goes on.
    ///
    /// Nearly all of a deep stack is in such runs. The walk's state is in registers while they are read.
    #[inline]
    pub fn next_run<'r>(&mut self, run: &'r mut [usize; RUN]) -> &'r [usize] {
        let guest = match self.image {
            Some(image) if self.pending.is_none() && self.end.is_none() => image.guest_run(),
            _ => return &[],
        };
        let memory = self.memory.part(self.memory.live_stack());
        let (mut fp, mut seen, mut length) = (self.fp, self.seen, 0usize);
        let most = self.steps_left.min(RUN);
        for slot in run.get_mut(..most).unwrap_or_default() {
            let Ok([caller_fp, return_address]) = read_frame::<A, M>(&memory, fp, seen) else { break };
            if !guest.contains(&return_address.wrapping_sub(1)) {
                break;
            }
            *slot = return_address;
            (fp, seen) = (caller_fp, fp);
            length = length.wrapping_add(1);
        }
        (self.fp, self.seen) = (fp, seen);
        self.steps_left = self.steps_left.saturating_sub(length);
        run.get(..length).unwrap_or(&[])
    }

    fn step(&mut self) -> Result<usize, WalkEnd> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
        if let Some(return_address) = self.pending.take() {
            return Ok(return_address);
        }
        let [caller_fp, return_address] = read_frame::<A, M>(self.memory, self.fp, self.seen)?;
        (self.fp, self.seen) = (caller_fp, self.fp);
        Ok(return_address)
    }

    /// What the code is that a return address returns into.
    fn kind(&mut self, return_address: usize) -> Option<CodeKind> {
        // A call can be a function's last instruction: look at the call, not behind it.
        let call = return_address.checked_sub(1)?;
        if self.image.is_some_and(|image| image.is_surely_guest(call)) {
            return Some(CodeKind::Guest);
        }
        let (image, found) = self.table.find(call)?;
        self.image = Some(image);
        Some(found.function.kind)
    }

    fn next_frame(&mut self) -> Result<usize, WalkEnd> {
        loop {
            let return_address = self.step()?;
            match self.kind(return_address) {
                Some(CodeKind::Guest) => return Ok(return_address),
                // A trampoline that called back into the guest (a resource's destructor): not a frame.
                Some(CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline) => {}
                Some(CodeKind::EntryTrampoline) if self.fp <= self.seen => return Err(WalkEnd::NoProgress),
                Some(CodeKind::EntryTrampoline) => return Err(WalkEnd::EntryTrampoline),
                None => return Err(WalkEnd::UnknownCode),
            }
        }
    }
}

/// The caller's frame pointer and the return address in the frame at `fp`, which has to lie above `seen`.
#[inline]
fn read_frame<A: Architecture, M: Memory>(memory: &M, fp: usize, seen: usize) -> Result<[usize; 2], WalkEnd> {
    if !fp.is_multiple_of(A::FRAME_ALIGNMENT) {
        return Err(WalkEnd::Misaligned);
    }
    if fp <= seen {
        return Err(WalkEnd::NoProgress);
    }
    // Both architectures keep the caller's frame pointer and the return address side by side, in this order.
    const { assert!(A::SAVED_FP_OFFSET == 0 && A::RETURN_ADDRESS_OFFSET == size_of::<usize>()) };
    memory.stack_pair(fp).ok_or(WalkEnd::OutsideStack)
}

impl<A: Architecture, M: Memory> Iterator for Callers<'_, A, M> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.end.is_some() {
            return None;
        }
        self.next_frame().map_err(|end| self.end = Some(end)).ok()
    }
}

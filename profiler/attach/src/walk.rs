//! From the registers and the stack of a sample to all guest frames, youngest first, without knowing the store.
//!
//! ```text
//!   youngest   host      unwound until a return address lies in an image: in the trampoline that was left through, or
//!              guest     by frame pointers, to the trampoline that was entered through           (in earlier versions
//!              host      unwound from the frame of that trampoline                               of Wasmtime) in the guest
//!   oldest     …         until the thread or the fiber has begun
//! ```
//!
//! What unwinding says is checked where it arrives: the trampoline's frame has just the size that its prologue makes. Where
//! the host cannot be unwound before a guest was found, the sample is dropped. Behind a guest, what is older is missing, and
//! the walk says so by ending as at a limit: what was seen up to there is certain. In both cases there is no guest further up
//! if no word of the whole rest of the stack is an address in an image. A sample that interrupts code which is neither the host's
//! nor an image's may be that of a guest that was gone before it was read: it is dropped, and does not count as outside of guests.

use std::cell::Cell;
use std::ops::ControlFlow;

use flamewalk_handler::arch::{Architecture, CallerLocation, Registers};
use flamewalk_handler::code::{CodeKind, CodeTable, FoundFunction, UNKNOWN_FRAME_SIZE};
use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder};
use flamewalk_handler::memory::Memory;
use flamewalk_handler::record::Frame;
use flamewalk_handler::walk::{Callers, WalkEnd};

/// Native frames that are unwound at most, of one sample.
const MOST_STEPS: usize = 1 << 14;

/// What a walk needs besides the registers.
pub(crate) struct Sampled<'a, M> {
    pub(crate) memory: &'a M,
    pub(crate) table: CodeTable<'a>,
    /// Whether the kernel would have copied more of the stack if it had been asked to.
    pub(crate) is_cut: bool,
    /// The last address that `memory` did not have.
    pub(crate) missed: &'a Cell<Option<usize>>,
}

impl<M: Memory> Sampled<'_, M> {
    /// Whether what the walk has asked for last lies beyond what was copied, and would have been copied.
    pub(crate) fn is_beyond_copy(&self) -> bool {
        let end = self.memory.live_stack().end;
        self.is_cut && self.missed.get().is_some_and(|missed| missed >= end)
    }
}

/// Visits the frames of a sample and says why the walk has ended. [`WalkEnd::EntryTrampoline`] means that all was seen.
///
/// Native frames are visited if `with_host`; they are unwound in any case. At most `limit` frames are visited.
pub(crate) fn walk<A: Architecture, M: Memory, H: HostUnwinder>(
    registers: &Registers,
    sampled: &Sampled<'_, M>,
    host: &mut H,
    with_host: bool,
    limit: usize,
    visit: &mut impl FnMut(Frame) -> ControlFlow<()>,
) -> WalkEnd {
    let mut walk = Walk::<A, M, H, _> {
        sampled,
        host,
        with_host,
        left: limit,
        steps_left: MOST_STEPS,
        has_guest: false,
        visit,
        architecture: std::marker::PhantomData,
    };
    match walk.all(registers) {
        Ok(()) => WalkEnd::EntryTrampoline,
        Err(end) => end,
    }
}

struct Walk<'a, A, M, H, V> {
    sampled: &'a Sampled<'a, M>,
    host: &'a mut H,
    with_host: bool,
    left: usize,
    steps_left: usize,
    has_guest: bool,
    visit: &'a mut V,
    architecture: std::marker::PhantomData<A>,
}

impl<A: Architecture, M: Memory, H: HostUnwinder, V: FnMut(Frame) -> ControlFlow<()>> Walk<'_, A, M, H, V> {
    fn all(&mut self, registers: &Registers) -> Result<(), WalkEnd> {
        let interrupted = HostFrame { registers: *registers, is_return_address: false };
        let mut next = match self.sampled.table.image(registers.pc) {
            None => self.host_frames(interrupted)?,
            Some(_) => Some(self.interrupted(registers)?),
        };
        while let Some(host) = next {
            next = self.host_frames(host)?;
        }
        Ok(())
    }

    fn emit(&mut self, frame: Frame) -> Result<(), WalkEnd> {
        self.left = self.left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
        match (self.visit)(frame) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(WalkEnd::FrameLimit),
        }
    }

    /// The guest that was interrupted, up to the native frame that has entered it.
    fn interrupted(&mut self, registers: &Registers) -> Result<HostFrame, WalkEnd> {
        let (_, found) = self.sampled.table.find(registers.pc).ok_or(WalkEnd::UnknownCode)?;
        let code = self.sampled.memory.code(found.start..found.end);
        let location = A::caller(registers, found.start, code).ok_or(WalkEnd::UnknownPrologue)?;
        match found.function.kind {
            CodeKind::EntryTrampoline => {
                return self.entered_from(location, registers.fp).ok_or(self.cut(WalkEnd::OutsideStack));
            }
            CodeKind::Guest => {
                self.emit(Frame::Instruction(registers.pc))?;
                self.has_guest = true;
            }
            CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline => {
                self.emit(Frame::HostCall(registers.pc))?;
            }
        }
        self.guest_frames(location, registers.fp, registers.sp)
    }

    /// Visits the callers from `location` on, whose stack begins at `sp`, and returns the native frame that has entered them.
    fn guest_frames(&mut self, location: CallerLocation, fp: usize, sp: usize) -> Result<HostFrame, WalkEnd> {
        let memory = self.sampled.memory.part(sp..usize::MAX);
        let mut callers = Callers::<A, M>::new(&memory, self.sampled.table, location, fp, self.steps_left);
        for return_address in callers.by_ref() {
            self.has_guest = true;
            self.emit(Frame::ReturnAddress(return_address))?;
        }
        self.steps_left = callers.steps_left();
        match (callers.end(), callers.entry_fp()) {
            (_, Some(entry_fp)) => self
                .entered_from(CallerLocation::Frame { fp: entry_fp }, entry_fp)
                .ok_or_else(|| self.cut(WalkEnd::OutsideStack)),
            (Some(WalkEnd::OutsideStack), None) => Err(self.cut(WalkEnd::OutsideStack)),
            (end, None) => Err(end.unwrap_or(WalkEnd::NoProgress)),
        }
    }

    /// How the walk ends where the memory does that was copied.
    fn cut(&self, otherwise: WalkEnd) -> WalkEnd {
        match (self.sampled.is_beyond_copy(), self.has_guest) {
            (true, true) => WalkEnd::FrameLimit,
            (true, false) => WalkEnd::BeyondCopy,
            (false, _) => otherwise,
        }
    }

    /// The native frame that called an entry trampoline, which was left through `location`.
    fn entered_from(&self, location: CallerLocation, fp: usize) -> Option<HostFrame> {
        let word = |address: usize| self.sampled.memory.stack_word(address);
        let (pc, sp, fp) = match location {
            CallerLocation::Frame { fp } => (
                word(fp.checked_add(A::RETURN_ADDRESS_OFFSET)?)?,
                fp.checked_add(A::CALLER_SP_OFFSET)?,
                word(fp.checked_add(A::SAVED_FP_OFFSET)?)?,
            ),
            CallerLocation::ReturnAddressAt { address } => {
                (word(address)?, address.checked_add(size_of::<usize>())?, fp)
            }
            CallerLocation::ReturnAddress { .. } => return None,
        };
        Some(HostFrame { registers: Registers { pc, sp, fp, lr: pc }, is_return_address: true })
    }

    /// Unwinds native frames up to the guest that has called them, if there is one, and that guest up to what has entered
    /// it.
    fn host_frames(&mut self, first: HostFrame) -> Result<Option<HostFrame>, WalkEnd> {
        let mut frame = first;
        loop {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
            let instruction = frame.instruction().ok_or(self.lost())?;
            if self.sampled.table.image(instruction).is_some() {
                return self.left_guest(&frame, instruction).map(Some);
            }
            if !self.host.is_known(&frame) {
                // What was interrupted surely runs there. An address that was unwound to can also be a wrong one.
                return match frame.is_return_address {
                    false => Err(WalkEnd::UnknownCode),
                    true => self.without_guest_above(&frame, self.lost()),
                };
            }
            if self.with_host {
                self.emit(frame.to_record())?;
            }
            self.sampled.missed.set(None);
            let sp = frame.registers.sp;
            frame = match self.host.caller(&frame, self.sampled.memory) {
                HostCaller::Frame(caller) if caller.registers.sp > sp => caller,
                HostCaller::None => return Ok(None),
                HostCaller::Unknown if self.has_left_stack() => return Ok(None),
                HostCaller::Frame(_) | HostCaller::Unknown => {
                    return self.without_guest_above(&frame, self.cut(self.lost()));
                }
            };
        }
    }

    /// How the walk ends if the host cannot be unwound.
    fn lost(&self) -> WalkEnd {
        if self.has_guest { WalkEnd::FrameLimit } else { WalkEnd::UnknownHostCode }
    }

    /// How the walk ends if `frame` cannot be unwound: all was seen if no guest can be above it, or else with `otherwise`.
    fn without_guest_above(
        &self,
        frame: &HostFrame,
        otherwise: WalkEnd,
    ) -> Result<Option<HostFrame>, WalkEnd> {
        let memory = self.sampled.memory.part(frame.registers.sp..usize::MAX);
        let mut words = memory.live_stack().step_by(size_of::<usize>());
        let is_code = |address| {
            let call = memory.stack_word(address).and_then(|word| word.checked_sub(1));
            call.is_some_and(|call| self.sampled.table.image(call).is_some())
        };
        if self.sampled.is_cut {
            self.sampled.missed.set(Some(memory.live_stack().end));
            return Err(otherwise);
        }
        if words.any(is_code) { Err(otherwise) } else { Ok(None) }
    }

    /// Whether the frame that cannot be unwound is the first of a fiber, whose caller is on another stack.
    fn has_left_stack(&self) -> bool {
        /// No frame is larger.
        const FAR: usize = 1 << 20;
        let stack = self.sampled.memory.live_stack();
        let is_far = |missed: usize| missed < stack.start || missed - stack.end.min(missed) > FAR;
        self.sampled.missed.get().is_some_and(is_far)
    }

    /// The guest whose call of the host was unwound to `frame`, up to what has entered it.
    fn left_guest(&mut self, frame: &HostFrame, call: usize) -> Result<HostFrame, WalkEnd> {
        let Registers { pc, sp, fp, .. } = frame.registers;
        let (_, FoundFunction { function, .. }) =
            self.sampled.table.find(call).ok_or(WalkEnd::UnknownCode)?;
        if fp < sp || !fp.is_multiple_of(A::FRAME_ALIGNMENT) {
            return Err(WalkEnd::NoProgress);
        }
        match function.kind {
            CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline => {
                let size = function.frame_size;
                if size != UNKNOWN_FRAME_SIZE && sp.checked_add(size as usize) != Some(fp) {
                    return Err(WalkEnd::NoProgress);
                }
                self.emit(Frame::HostCall(call))?;
                self.guest_frames(CallerLocation::Frame { fp }, fp, sp)
            }
            // Builtins of earlier versions have no trampoline in the image.
            CodeKind::Guest => {
                self.emit(Frame::HostCall(0))?;
                self.guest_frames(CallerLocation::ReturnAddress { address: pc }, fp, sp)
            }
            // It has called nothing but guests.
            CodeKind::EntryTrampoline => Err(WalkEnd::NoProgress),
        }
    }
}

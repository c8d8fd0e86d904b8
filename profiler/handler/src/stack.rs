//! From interrupted registers to the guest frames of the whole stack, youngest first.
//!
//! ```text
//!   the program counter is in      the walk starts from
//!   ─────────────────────────      ──────────────────────────────────────────────────────────────────────
//!   a guest function               the registers, by way of the function's prologue and epilogue
//!   an exit or builtin trampoline  the registers, likewise; the trampoline names the host call
//!   an entry trampoline            nothing of this activation; the older ones
//!   anything else: the host        the youngest activation that is inside a host call
//! ```
//!
//! Behind the first segment come the older activations. Their exit states can be out of date (see
//! [`crate::activation`]), so one counts only if
//! 1. its exit trampoline's frame lies above everything that was seen before (at the start: the stack pointer),
//! 2. its entry trampoline's frame lies above that again, still on the live stack,
//! 3. and the exit trampoline's return address on the stack is the one that the store holds.
//!
//! A frame that was left lies below the stack pointer, or below the entry of the activation that replaced it,
//! so rule 1 alone rejects what is out of date; rule 3 makes sure.
//!
//! Native frames of the host come before, between and behind the segments if they are asked for; see [`crate::host`].

use core::ops::ControlFlow;

use crate::activation::ExitState;
use crate::arch::{Architecture, CallerLocation, Registers};
use crate::code::{CodeImage, CodeKind, CodeTable, FoundFunction, Function, UNKNOWN_FRAME_SIZE};
use crate::host::{HostCaller, HostFrame, HostUnwinder};
use crate::memory::Memory;
use crate::record::Frame;
use crate::walk::{Callers, WalkEnd};

/// Steps beyond twice the frame limit. A frame is one step; a segment takes two more, for its activation and its
/// entry trampoline, and has two frames (one of them the host call) unless it is empty. The spare ones are for
/// empty segments and for activations that are out of date.
const SPARE_STEPS: usize = 16;

/// Visits the guest frames of an interrupted thread, youngest first, and says why the last segment's walk
/// ended.
///
/// At most `limit` frames are visited; a stack with more ends with [`WalkEnd::FrameLimit`]. `visit` can stop
/// early, which ends the walk as the limit does. Without any guest on the stack nothing is visited and the
/// result is [`WalkEnd::EntryTrampoline`].
///
/// `host` finds the native frames of the host, which are visited where they belong and count towards the limit;
/// [`NoHostFrames`](crate::host::NoHostFrames) leaves them out. The guest frames are the same with any `host`.
///
/// The work is bounded by the limit, too: what is not visited (trampolines, activations that are out of date or
/// hold no guest frame) counts towards a bound of about twice the limit.
pub fn walk<A: Architecture, M: Memory>(
    registers: &Registers,
    memory: &M,
    table: CodeTable<'_>,
    activations: impl Iterator<Item = ExitState>,
    host: &mut impl HostUnwinder,
    limit: usize,
    visit: &mut impl FnMut(Frame) -> ControlFlow<()>,
) -> WalkEnd {
    let mut walk = StackWalk::<A, M, _, _> {
        memory,
        table,
        host,
        host_frame: None,
        has_guest: false,
        floor: registers.sp,
        left: limit,
        steps_left: limit.saturating_mul(2).saturating_add(SPARE_STEPS),
        visit,
        architecture: core::marker::PhantomData,
    };
    let outcome = walk.interrupted(registers).and_then(|()| {
        for state in activations {
            walk.steps_left = walk.steps_left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
            walk.activation(state)?;
        }
        // Without a guest the stack is none of ours.
        if walk.has_guest { walk.host_frames(None) } else { Ok(()) }
    });
    outcome.err().unwrap_or(WalkEnd::EntryTrampoline)
}

struct StackWalk<'a, A, M, H, V> {
    memory: &'a M,
    table: CodeTable<'a>,
    host: &'a mut H,
    /// The native frame that called, or interrupted, what was seen so far; `None` if it cannot be found.
    host_frame: Option<HostFrame>,
    /// Whether a guest frame was seen.
    has_guest: bool,
    /// Everything below this address belongs to frames that were seen, or to the host above them.
    floor: usize,
    left: usize,
    steps_left: usize,
    visit: &'a mut V,
    architecture: core::marker::PhantomData<A>,
}

impl<A: Architecture, M: Memory, H: HostUnwinder, V: FnMut(Frame) -> ControlFlow<()>>
    StackWalk<'_, A, M, H, V>
{
    fn emit(&mut self, frame: Frame) -> Result<(), WalkEnd> {
        self.left = self.left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
        match (self.visit)(frame) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(WalkEnd::FrameLimit),
        }
    }

    /// The segment that the program counter is in, if it is in guest code or a trampoline.
    fn interrupted(&mut self, registers: &Registers) -> Result<(), WalkEnd> {
        let Some((_, found)) = self.table.find(registers.pc) else {
            self.host_frame = Some(HostFrame { registers: *registers, is_return_address: false });
            return Ok(());
        };
        match found.function.kind {
            CodeKind::EntryTrampoline => {
                if H::WANTED {
                    let location = self.caller(registers, found).ok();
                    self.host_frame = location.and_then(|location| self.host_caller(location, registers.fp));
                }
                Ok(())
            }
            CodeKind::Guest => {
                let location = self.caller(registers, found)?;
                self.has_guest = true;
                self.emit(Frame::Instruction(registers.pc))?;
                self.callers(location, registers.fp, None)
            }
            CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline => {
                let location = self.caller(registers, found)?;
                self.callers(location, registers.fp, Some(Frame::HostCall(registers.pc)))
            }
        }
    }

    fn caller(&self, registers: &Registers, found: FoundFunction) -> Result<CallerLocation, WalkEnd> {
        let code = self.memory.code(found.start..found.end);
        A::caller(registers, found.start, code).ok_or(WalkEnd::UnknownPrologue)
    }

    /// Visits the callers from `location` on. `host_call` precedes the first of them, if there is one.
    fn callers(
        &mut self,
        location: CallerLocation,
        fp: usize,
        host_call: Option<Frame>,
    ) -> Result<(), WalkEnd> {
        let mut callers = Callers::<A, M>::new(self.memory, self.table, location, fp, self.steps_left);
        let mut host_call = host_call;
        for return_address in callers.by_ref() {
            if let Some(host_call) = host_call.take() {
                self.emit(host_call)?;
            }
            self.has_guest = true;
            self.emit(Frame::ReturnAddress(return_address))?;
        }
        self.steps_left = callers.steps_left();
        match (callers.end(), callers.entry_fp()) {
            (_, Some(entry_fp)) if self.memory.stack_word(entry_fp).is_none() => Err(WalkEnd::OutsideStack),
            (_, Some(entry_fp)) => {
                self.floor = entry_fp;
                if H::WANTED {
                    self.host_frame = self.host_caller(CallerLocation::Frame { fp: entry_fp }, entry_fp);
                }
                Ok(())
            }
            (end, None) => Err(end.unwrap_or(WalkEnd::NoProgress)),
        }
    }

    /// The segment of an activation that is inside a host call; nothing if it is not.
    fn activation(&mut self, state: ExitState) -> Result<(), WalkEnd> {
        let ExitState { exit_fp, exit_pc, entry_fp } = state;
        if exit_fp < self.floor || entry_fp <= exit_fp || !exit_fp.is_multiple_of(A::FRAME_ALIGNMENT) {
            return Ok(());
        }
        let on_stack =
            |offset: usize| exit_fp.checked_add(offset).and_then(|address| self.memory.stack_word(address));
        if on_stack(A::RETURN_ADDRESS_OFFSET) != Some(exit_pc) || self.memory.stack_word(entry_fp).is_none() {
            return Ok(());
        }
        let image =
            exit_pc.checked_sub(1).and_then(|call| self.table.image(call)).ok_or(WalkEnd::UnknownCode)?;
        self.host_frames(Some(exit_fp))?;
        let host_call = Frame::HostCall(self.trampoline(exit_fp, image));
        self.callers(CallerLocation::Frame { fp: exit_fp }, exit_fp, Some(host_call))
    }

    /// An address in the trampoline through which the guest has left, or 0 if that is not certain.
    ///
    /// The trampoline has called the host from the bottom of its frame, so that its own address lies one word
    /// below it. How large the frame is depends on the trampoline: each size that occurs in the image is tried,
    /// and a word counts if it is an address in a trampoline with just this size. Words of older calls may
    /// still lie around: if more than one size fits, none is believed.
    fn trampoline(&self, exit_fp: usize, image: &CodeImage<'_>) -> usize {
        let mut found = 0;
        if !A::CALL_PUSHES_RETURN_ADDRESS {
            return found;
        }
        for size in image.trampoline_frame_sizes() {
            let below = (*size as usize).saturating_add(size_of::<usize>());
            let Some(address) = exit_fp.checked_sub(below) else { continue };
            let Some(return_address) = self.memory.stack_word(address) else { continue };
            let Some(call) = return_address.checked_sub(1) else { continue };
            if !image.text().contains(&call) {
                continue;
            }
            let fits = |function: Function| function.kind.leaves_guest() && function.frame_size == *size;
            if image.find(call).is_some_and(|hit| fits(hit.function)) {
                if found != 0 {
                    return 0;
                }
                found = call;
            }
        }
        found
    }

    /// The native frame that called an entry trampoline, which was left through `location` with the frame pointer
    /// register at `fp`.
    fn host_caller(&self, location: CallerLocation, fp: usize) -> Option<HostFrame> {
        let word = |address: Option<usize>| self.memory.stack_word(address?);
        let (pc, sp, fp) = match location {
            CallerLocation::Frame { fp } => (
                word(fp.checked_add(A::RETURN_ADDRESS_OFFSET))?,
                fp.checked_add(A::CALLER_SP_OFFSET)?,
                word(fp.checked_add(A::SAVED_FP_OFFSET))?,
            ),
            CallerLocation::ReturnAddressAt { address } => {
                (word(Some(address))?, address.checked_add(size_of::<usize>())?, fp)
            }
            CallerLocation::ReturnAddress { address } => (address, self.floor, fp),
        };
        Some(HostFrame { registers: Registers { pc, sp, fp, lr: pc }, is_return_address: true })
    }

    /// Visits the native frames up to the exit trampoline whose frame is at `exit_fp`; without one, up to the end of
    /// the stack. What is missing in between shows as a gap.
    fn host_frames(&mut self, exit_fp: Option<usize>) -> Result<(), WalkEnd> {
        if !H::WANTED {
            return Ok(());
        }
        let top = exit_fp.unwrap_or(self.memory.live_stack().end);
        let mut next = self.host_frame.take();
        while let Some(frame) = next {
            let Some(instruction) = frame.instruction() else { break };
            if self.table.image(instruction).is_some() {
                if exit_fp
                    .is_some_and(|exit_fp| self.is_left_through(instruction, frame.registers.sp, exit_fp))
                {
                    return Ok(());
                }
                break;
            }
            if !self.host.is_known(&frame) {
                break;
            }
            self.emit(frame.to_record())?;
            let sp = frame.registers.sp;
            next = match self.host.caller(&frame, self.memory) {
                HostCaller::Frame(caller) => {
                    Some(caller).filter(|caller| (sp..=top).contains(&caller.registers.sp))
                }
                HostCaller::None if exit_fp.is_none() => return Ok(()),
                HostCaller::None | HostCaller::Unknown => None,
            };
        }
        self.emit(Frame::HostGap)
    }

    /// Whether the host was called by `call`, with the stack pointer at `sp`, in the trampoline whose frame is at
    /// `exit_fp`.
    fn is_left_through(&self, call: usize, sp: usize, exit_fp: usize) -> bool {
        let Some((_, FoundFunction { function, .. })) = self.table.find(call) else { return false };
        let size = function.frame_size;
        let fits = size == UNKNOWN_FRAME_SIZE || sp.checked_add(size as usize) == Some(exit_fp);
        function.kind.leaves_guest() && fits && sp <= exit_fp
    }
}

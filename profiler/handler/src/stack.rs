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
//! Behind the first segment come the older activations, whose guests are all inside host calls. What a thread's
//! activations are is known exactly ([`crate::activation`]); what is left to tell is whether the guest of the youngest
//! one is inside a host call when the host is interrupted, or not entered yet, or has just ended. It is if
//! 1. it was entered, and its exit trampoline's frame lies below the entry trampoline's,
//! 2. the exit trampoline's frame lies above the stack pointer,
//! 3. and the return address in that frame is the one that the store holds.
//!
//! Each activation also says which part of the stack is its own, and with that what may be read: from the stack
//! pointer, or the exit trampoline's frame, to the activation's record. So guests on fibers need no bounds of their stacks.
//!
//! Native frames of the host come before, between and behind the segments if they are asked for; see [`crate::host`].

use core::ops::{ControlFlow, Range};

use crate::activation::{Activation, ExitState, Next};
use crate::arch::{Architecture, CallerLocation, Registers};
use crate::code::{CodeImage, CodeKind, CodeTable, FoundFunction, Function};
use crate::host::{HostFrame, HostUnwinder};
use crate::memory::Memory;
use crate::record::Frame;
use crate::recorder::Visit;
use crate::walk::{Callers, RUN, WalkEnd};

mod native;

/// Steps beyond twice the frame limit. A frame is one step; a segment takes two more, for its activation and its
/// entry trampoline, and has two frames (one of them the host call) unless it is empty. The spare ones are for
/// empty segments and for activations that are out of date.
const SPARE_STEPS: usize = 16;

/// How far from the address that the store has of it the frame reaches that has entered a guest: Wasmtime's has some 300
/// bytes.
const MOST_ENTERING_FRAME_BYTES: usize = 1024;

/// What is walked, besides the registers.
#[derive(Debug)]
pub struct Thread<'a, M, I> {
    /// What may be read.
    pub memory: &'a M,
    /// The code of all guests.
    pub table: CodeTable<'a>,
    /// The addresses of the thread's own stack.
    pub stack: Range<usize>,
    /// Its activations, youngest first.
    pub activations: &'a mut I,
}

/// What was found besides the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Why the walk ended.
    pub end: WalkEnd,
    /// The address of the context of the store whose guest is the youngest; 0 without a guest.
    pub store: usize,
    /// Bytes of the interrupted stack from the entry of its oldest guest to the stack pointer, as far as guests of one
    /// fiber can be told to share it; 0 without a guest.
    pub stack_used: usize,
    /// Bytes of the interrupted stack from the stack pointer to its end.
    pub stack_left: usize,
}

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
/// The work is bounded by the limit, too: what is not visited (trampolines, activations that are not attached or
/// hold no guest frame) counts towards a bound of about twice the limit.
#[inline(always)]
pub fn walk<A: Architecture, M: Memory>(
    registers: &Registers,
    thread: Thread<'_, M, impl Iterator<Item = Next>>,
    host: &mut impl HostUnwinder,
    limit: usize,
    visit: &mut impl Visit,
) -> Walk {
    let on_thread = thread.stack.contains(&registers.sp);
    let live = if on_thread { registers.sp..thread.stack.end } else { 0..0 };
    let mut walk = StackWalk::<A, M, _, _> {
        memory: thread.memory.part(live),
        table: thread.table,
        thread_stack: thread.stack,
        on_thread,
        host,
        host_frame: None,
        found: Walk { end: WalkEnd::EntryTrampoline, store: 0, stack_used: 0, stack_left: 0 },
        sp: registers.sp,
        floor: registers.sp,
        left: limit,
        steps_left: limit.saturating_mul(2).saturating_add(SPARE_STEPS),
        visit,
        architecture: core::marker::PhantomData,
    };
    if let Err(end) = walk.all(registers, thread.activations) {
        walk.found.end = end;
    }
    walk.found
}

struct StackWalk<'a, A, M, H, V> {
    /// The part of the stack that is being walked.
    memory: M,
    table: CodeTable<'a>,
    thread_stack: Range<usize>,
    /// Whether the stack pointer is on the thread's own stack.
    on_thread: bool,
    host: &'a mut H,
    /// The native frame that called, or interrupted, what was seen so far; `None` if it cannot be found.
    host_frame: Option<HostFrame>,
    found: Walk,
    sp: usize,
    /// Everything below this address of the stack that is being walked belongs to frames that were seen, or to the
    /// host above them.
    floor: usize,
    left: usize,
    steps_left: usize,
    visit: &'a mut V,
    architecture: core::marker::PhantomData<A>,
}

impl<A: Architecture, M: Memory, H: HostUnwinder, V: Visit> StackWalk<'_, A, M, H, V> {
    #[inline(always)]
    fn all(
        &mut self,
        registers: &Registers,
        activations: &mut impl Iterator<Item = Next>,
    ) -> Result<(), WalkEnd> {
        let code = self.table.find(registers.pc);
        let mut next = self.next(activations)?;
        // While a fiber is being resumed or suspended, its activations are in the list, but the stack is the thread's.
        while let Some(activation) = &next
            && self.on_thread
            && code.is_none()
            && !self.thread_stack.contains(&activation.address)
        {
            next = self.next(activations)?;
        }
        let Some(youngest) = next else {
            // Compiled code runs in activations only.
            return if code.is_none() { Ok(()) } else { Err(WalkEnd::UnknownStack) };
        };
        self.begin(&youngest)?;
        let mut oldest = youngest;
        match code {
            None => {
                self.host_frame = Some(HostFrame { registers: *registers, is_return_address: false });
                if youngest.attached {
                    self.interrupted_host(&youngest)?;
                }
            }
            Some((_, found)) if youngest.attached => self.interrupted(registers, found, &youngest)?,
            Some(_) => {}
        }
        while let Some(activation) = self.next(activations)? {
            if activation.attached {
                // A younger guest of the same store has ended, and the store does not know it yet.
                let frame = activation.entering_frame;
                let is_outdated =
                    (self.sp..youngest.address).contains(&frame) && activation.exit.entry_fp < frame;
                let saved = if is_outdated { self.saved_exit(&activation) } else { Some(activation.exit) };
                let exit = saved.ok_or(WalkEnd::NoProgress)?;
                self.in_host_call(&Activation { exit, ..activation })?;
                oldest = activation;
            }
        }
        // Without a guest the stack is none of ours.
        if !self.has_guest() || !H::WANTED {
            return Ok(());
        }
        let on_thread = self.thread_stack.contains(&self.floor);
        let end = if on_thread { self.thread_stack.end } else { oldest.address.max(self.floor) };
        self.memory = self.memory.part(self.floor..end);
        self.host_frames(None)
    }

    #[inline(always)]
    fn next(&mut self, activations: &mut impl Iterator<Item = Next>) -> Result<Option<Activation>, WalkEnd> {
        let next = match activations.next() {
            None => return Ok(None),
            Some(Next::TooMany) => return Err(WalkEnd::FrameLimit),
            Some(Next::Cut) => return Err(WalkEnd::UnknownStack),
            Some(Next::Activation(activation)) => activation,
        };
        self.steps_left = self.steps_left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
        Ok(Some(next))
    }

    fn has_guest(&self) -> bool {
        self.found.store != 0
    }

    /// Shows that the stack pointer is on the stack of the youngest activation.
    #[inline(always)]
    fn begin(&mut self, youngest: &Activation) -> Result<(), WalkEnd> {
        let Activation { address, stack_start, .. } = *youngest;
        let start = if self.on_thread { self.thread_stack.start } else { stack_start };
        let same_stack = self.thread_stack.contains(&address) == self.on_thread;
        if !same_stack || start == 0 || start > self.sp || address < self.sp {
            return Err(WalkEnd::UnknownStack);
        }
        self.found.stack_left = self.sp.saturating_sub(start);
        if !self.on_thread {
            self.memory = self.memory.part(self.sp..address);
        }
        Ok(())
    }

    #[inline(always)]
    fn emit(&mut self, frame: Frame) -> Result<(), WalkEnd> {
        self.left = self.left.checked_sub(1).ok_or(WalkEnd::FrameLimit)?;
        match self.visit.frame(frame) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(WalkEnd::FrameLimit),
        }
    }

    fn emit_return_addresses(&mut self, addresses: &[usize]) -> Result<(), WalkEnd> {
        let (within, beyond) = addresses.split_at(self.left.min(addresses.len()));
        self.left = self.left.saturating_sub(within.len());
        match self.visit.return_addresses(within) {
            ControlFlow::Continue(()) if beyond.is_empty() => Ok(()),
            _ => Err(WalkEnd::FrameLimit),
        }
    }

    /// The segment that the program counter is in, which is in a guest or a trampoline.
    #[inline(always)]
    fn interrupted(
        &mut self,
        registers: &Registers,
        found: FoundFunction,
        youngest: &Activation,
    ) -> Result<(), WalkEnd> {
        if found.function.kind == CodeKind::EntryTrampoline {
            if H::WANTED {
                let location = self.caller(registers, found).ok();
                self.host_frame = location.and_then(|location| self.host_caller(location, registers.fp));
            }
            return Ok(());
        }
        let location = self.caller(registers, found)?;
        let host_call = match found.function.kind {
            CodeKind::Guest => {
                self.found.store = youngest.store;
                self.emit(Frame::Instruction(registers.pc))?;
                None
            }
            _ => Some(Frame::HostCall(registers.pc)),
        };
        self.callers(location, registers.fp, host_call, youngest)
    }

    /// The segment of the youngest activation when the host is interrupted; nothing if it is not inside a host call.
    fn interrupted_host(&mut self, youngest: &Activation) -> Result<(), WalkEnd> {
        if let Some(exit) = self.saved_exit(youngest) {
            return self.in_host_call(&Activation { exit, ..*youngest });
        }
        let ExitState { exit_fp, exit_pc, entry_fp } = youngest.exit;
        let entered = entry_fp < youngest.address && exit_fp < entry_fp;
        if !entered || exit_fp < self.sp || self.word(exit_fp, A::RETURN_ADDRESS_OFFSET) != Some(exit_pc) {
            return Ok(());
        }
        self.in_host_call(youngest)
    }

    /// Where the guest of an activation was left, if the store says that of a younger activation that has ended, above all
    /// with a trap, which the host is making an error of. What is to be put back into the store is then in the frame that
    /// had entered that one: above the frame of its entry trampoline, and below the activation.
    fn saved_exit(&self, activation: &Activation) -> Option<ExitState> {
        let (frame, ended) = (activation.entering_frame, activation.exit.entry_fp);
        if !(ended..activation.address).contains(&frame) {
            return None;
        }
        let start = frame.saturating_sub(MOST_ENTERING_FRAME_BYTES).max(ended).max(self.sp);
        let end = frame.saturating_add(MOST_ENTERING_FRAME_BYTES).min(activation.address);
        (start.checked_next_multiple_of(size_of::<usize>())?..end).step_by(size_of::<usize>()).find_map(
            |address| {
                let entry_fp = self.word(address, activation.saved.entry_fp)?;
                if entry_fp <= ended || entry_fp >= activation.address {
                    return None;
                }
                let exit_fp = self.word(address, activation.saved.exit_fp)?;
                let exit_pc = self.word(address, activation.saved.exit_pc)?;
                // Frames of the host's lie around that are linked in the same way, but return to the host.
                let is_exit = (frame..entry_fp).contains(&exit_fp)
                    && exit_fp.is_multiple_of(A::FRAME_ALIGNMENT)
                    && self.word(exit_fp, A::RETURN_ADDRESS_OFFSET) == Some(exit_pc)
                    && exit_pc.checked_sub(1).is_some_and(|call| self.table.image(call).is_some());
                is_exit.then_some(ExitState { exit_fp, exit_pc, entry_fp })
            },
        )
    }

    fn caller(&self, registers: &Registers, found: FoundFunction) -> Result<CallerLocation, WalkEnd> {
        let code = self.memory.code(found.start..found.end);
        A::caller(registers, found.start, code).ok_or(WalkEnd::UnknownPrologue)
    }

    fn word(&self, address: usize, offset: usize) -> Option<usize> {
        self.memory.stack_word(address.checked_add(offset)?)
    }

    /// Visits the callers from `location` on, up to the entry of `activation`. `host_call` precedes the first of them, if
    /// there is one.
    fn callers(
        &mut self,
        location: CallerLocation,
        fp: usize,
        host_call: Option<Frame>,
        activation: &Activation,
    ) -> Result<(), WalkEnd> {
        let memory = self.memory.part(self.memory.live_stack());
        let mut callers = Callers::<A, M>::new(&memory, self.table, location, fp, self.steps_left);
        if let Some(youngest) = callers.next() {
            if !self.has_guest() {
                self.found.store = activation.store;
            }
            if let Some(host_call) = host_call {
                self.emit(host_call)?;
            }
            self.emit(Frame::ReturnAddress(youngest))?;
        }
        let mut run = [0; RUN];
        loop {
            self.emit_return_addresses(callers.next_run(&mut run))?;
            let Some(return_address) = callers.next() else { break };
            self.emit(Frame::ReturnAddress(return_address))?;
        }
        self.steps_left = callers.steps_left();
        let entry_fp = match (callers.end(), callers.entry_fp()) {
            (_, Some(entry_fp)) => entry_fp,
            (end, None) => return Err(end.unwrap_or(WalkEnd::NoProgress)),
        };
        if self.memory.stack_word(entry_fp).is_none() {
            return Err(WalkEnd::OutsideStack);
        }
        // The segment has to end where this activation began.
        if entry_fp != activation.exit.entry_fp {
            return Err(WalkEnd::NoProgress);
        }
        self.floor = entry_fp;
        let same_stack = self.thread_stack.contains(&entry_fp) == self.on_thread;
        if same_stack && (self.on_thread || self.found.stack_used == 0) {
            self.found.stack_used = entry_fp.saturating_sub(self.sp);
        }
        if H::WANTED {
            self.host_frame = self.host_caller(CallerLocation::Frame { fp: entry_fp }, entry_fp);
        }
        Ok(())
    }

    /// The segment of an activation whose guest is inside a host call.
    fn in_host_call(&mut self, activation: &Activation) -> Result<(), WalkEnd> {
        let ExitState { exit_fp, exit_pc, entry_fp } = activation.exit;
        if !exit_fp.is_multiple_of(A::FRAME_ALIGNMENT) {
            return Err(WalkEnd::Misaligned);
        }
        if exit_fp == 0 || entry_fp <= exit_fp || activation.address <= entry_fp {
            return Err(WalkEnd::NoProgress);
        }
        let live = self.memory.live_stack();
        if live.contains(&exit_fp) && live.contains(&entry_fp) {
            if exit_fp < self.floor {
                return Err(WalkEnd::NoProgress);
            }
        } else {
            // Of another stack only this activation's own part is known to be there, and nothing of how it was left.
            self.memory = self.memory.part(exit_fp..activation.address);
            self.host_frame = None;
        }
        if self.word(exit_fp, A::RETURN_ADDRESS_OFFSET) != Some(exit_pc) {
            return Err(WalkEnd::NoProgress);
        }
        let image =
            exit_pc.checked_sub(1).and_then(|call| self.table.image(call)).ok_or(WalkEnd::UnknownCode)?;
        self.host_frames(Some(exit_fp))?;
        let host_call = Frame::HostCall(self.trampoline(exit_fp, image));
        self.callers(CallerLocation::Frame { fp: exit_fp }, exit_fp, Some(host_call), activation)
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
}

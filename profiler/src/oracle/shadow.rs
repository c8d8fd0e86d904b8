//! The stack as the executed instructions make it: the truth that walks are compared with.
//!
//! Only instructions of compiled code are looked at, and where they go: a call pushes a record, a return pops one, a tail
//! call leaves it. No frame pointer is ever read. Where control gets into compiled code in any other way, an exception or
//! a trap has been caught, and every record below the new stack pointer is gone.

use std::ops::ControlFlow;

use flamewalk_handler::code::{CodeKind, FoundFunction};
use flamewalk_handler::record::Frame;

use super::instruction::{Flow, Instruction};

/// More than any guest of the corpus needs; records are not allocated while stepping.
const CAPACITY: usize = 1 << 16;

/// What a call that has not returned is to the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The host has entered compiled code.
    Entry,
    /// A guest function's.
    Guest,
    /// A trampoline's, of the host.
    Host,
    /// A trampoline's, of compiled code.
    Trampoline,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    return_address: usize,
    /// Where the return address lay when the function was called.
    slot: usize,
    role: Role,
}

/// An instruction of compiled code that is about to be executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) function: FoundFunction,
    pub(super) instruction: Instruction,
}

impl Place {
    fn behind(&self) -> usize {
        self.pc + self.instruction.length
    }
}

/// The shadow stack was at odds with what the program did: a bug of this file, or a guest that does what it must not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    pub(super) what: &'static str,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The shadow stack of one thread.
pub(super) struct Shadow {
    records: Vec<Record>,
    previous: Option<Place>,
    /// How often control came back to compiled code by an exception or a trap.
    pub(super) caught: u64,
    pub(super) tail_calls: u64,
    pub(super) entries: u64,
}

impl Shadow {
    pub(super) fn new() -> Self {
        Self { records: Vec::with_capacity(CAPACITY), previous: None, caught: 0, tail_calls: 0, entries: 0 }
    }

    /// Notes that one instruction was executed, and what is next: `place` if that is in compiled code.
    pub(super) fn step(&mut self, pc: usize, sp: usize, place: Option<Place>) -> Result<(), Broken> {
        let previous = std::mem::replace(&mut self.previous, place);
        let result = match (previous, place) {
            (None, None) => {
                self.drop_below(sp);
                Ok(())
            }
            (None, Some(place)) => self.come_from_host(&place),
            (Some(previous), place) => self.executed(&previous, pc, sp, place),
        };
        let from = previous.map_or(0, |previous| previous.pc);
        result.map_err(|what| Broken { what, from, to: pc })
    }

    fn executed(
        &mut self,
        previous: &Place,
        pc: usize,
        sp: usize,
        place: Option<Place>,
    ) -> Result<(), &'static str> {
        match previous.instruction.flow {
            Flow::Call if sp + 8 == previous.sp && stack_word(sp) == previous.behind() => {
                let role = match (previous.function.function.kind, place) {
                    (CodeKind::Guest, _) => Role::Guest,
                    (_, None) => Role::Host,
                    (_, Some(_)) => Role::Trampoline,
                };
                self.push(Record { return_address: previous.behind(), slot: sp, role })
            }
            Flow::Return => {
                let record = self.records.pop().ok_or("a return without a call")?;
                // A function that makes a tail call with more arguments than it got has moved its frame down.
                if record.return_address != pc || record.slot < previous.sp {
                    return Err("a return to another place than that of the call");
                }
                if (record.role == Role::Entry) != place.is_none() {
                    return Err("a return to the wrong side");
                }
                Ok(())
            }
            flow => {
                let place = place.ok_or("compiled code left the guest without a call or a return")?;
                let starts = pc == place.function.start;
                let inside = previous.function.start == place.function.start;
                let goes_on = match flow {
                    Flow::Jump => inside && !starts,
                    // An instruction with a `rep` prefix is executed step by step.
                    Flow::Other { branches } => {
                        branches && inside || pc == previous.behind() || pc == previous.pc
                    }
                    Flow::Call | Flow::Return => false,
                };
                if goes_on {
                    return Ok(());
                }
                if flow == Flow::Jump && starts {
                    return self.tail_call(sp);
                }
                self.catch(&place);
                Ok(())
            }
        }
    }

    fn tail_call(&mut self, sp: usize) -> Result<(), &'static str> {
        self.tail_calls += 1;
        let record = self.records.last_mut().ok_or("a tail call without a call")?;
        // The callee's arguments may need more or less room than the caller's: the return address moves.
        record.slot = sp;
        if stack_word(sp) == record.return_address {
            Ok(())
        } else {
            Err("a tail call that lost its return address")
        }
    }

    fn come_from_host(&mut self, place: &Place) -> Result<(), &'static str> {
        if place.pc == place.function.start {
            if place.function.function.kind != CodeKind::EntryTrampoline {
                return Err("the host entered compiled code past the entry trampolines");
            }
            self.entries += 1;
            // Records of host code that a panic has unwound.
            self.drop_below(place.sp);
            let return_address = stack_word(place.sp);
            return self.push(Record { return_address, slot: place.sp, role: Role::Entry });
        }
        let returned = |record: &Record| record.slot + 8 == place.sp && record.return_address == place.pc;
        if let Some(index) = self.records.iter().rposition(returned) {
            self.records.truncate(index);
        } else {
            self.catch(place);
        }
        Ok(())
    }

    fn catch(&mut self, place: &Place) {
        self.caught += 1;
        // Nothing is entered behind it: the trampoline returns.
        self.drop_below(place.sp);
    }

    fn drop_below(&mut self, sp: usize) {
        let kept = self.records.iter().rposition(|record| record.slot >= sp).map_or(0, |last| last + 1);
        self.records.truncate(kept);
    }

    fn push(&mut self, record: Record) -> Result<(), &'static str> {
        if self.records.len() == CAPACITY {
            return Err("the stack is deeper than the shadow stack can be");
        }
        self.records.push(record);
        Ok(())
    }

    /// The address below which the stack is the host's, if the host has been called by compiled code.
    pub(super) fn youngest(&self) -> Option<usize> {
        self.records.last().map(|record| record.slot)
    }

    /// Visits the frames that a walk must find, youngest first.
    pub(super) fn frames(&self, visit: &mut impl FnMut(Frame) -> ControlFlow<()>) -> ControlFlow<()> {
        self.visit(false, visit)
    }

    /// As [`Self::frames`], back to where the host entered the guest last.
    pub(super) fn youngest_segment(
        &self,
        visit: &mut impl FnMut(Frame) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.visit(true, visit)
    }

    fn visit(&self, one_segment: bool, visit: &mut impl FnMut(Frame) -> ControlFlow<()>) -> ControlFlow<()> {
        // A host call precedes the guest's frame that made it, if there is one.
        let mut host_call = None;
        let mut records = self.records.as_slice();
        if let Some(place) = self.previous {
            match place.function.function.kind {
                CodeKind::Guest => visit(Frame::Instruction(place.pc))?,
                CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline => {
                    host_call = Some(Frame::HostCall(place.pc));
                }
                CodeKind::EntryTrampoline => {}
            }
        } else if self.records.last().is_some_and(|record| !matches!(record.role, Role::Host | Role::Entry)) {
            // The host has set the stack pointer to where an exception is caught, and jumps there next: what called it
            // is gone, and the guest has not gone on yet. For these instructions its segment does not count.
            let entry = records.iter().rposition(|record| record.role == Role::Entry);
            records = &records[..entry.unwrap_or(0)];
        }
        for record in records.iter().rev() {
            match record.role {
                Role::Guest => {
                    if let Some(host_call) = host_call.take() {
                        visit(host_call)?;
                    }
                    visit(Frame::ReturnAddress(record.return_address))?;
                }
                Role::Host => host_call = Some(Frame::HostCall(record.return_address - 1)),
                Role::Trampoline => {}
                Role::Entry if one_segment => return ControlFlow::Continue(()),
                Role::Entry => host_call = None,
            }
        }
        ControlFlow::Continue(())
    }
}

/// A word of the stack, at or above the stack pointer of this thread, which is in a signal handler.
fn stack_word(address: usize) -> usize {
    // SAFETY: the live part of this thread's stack, as the callers see to.
    unsafe { std::ptr::with_exposed_provenance::<usize>(address).read_volatile() }
}

//! Unwinding by instructions, where there is no unwind information.
//!
//! A function that returns has to bring the stack pointer to its return address, and callee-saved registers back to what
//! they were. So where these are now can be read off the instructions that are still to come ([`Paths`]). What is found is
//! checked on the way: a return address lies behind a call, and where the function that this calls is known, it has to lead
//! to where the frame is, with the stack as deep as it is. What is not certain is said to be unknown.
//!
//! # Cost
//!
//! This allocates. It is for those who look at a process from outside, and no part of what a signal handler may call.
//!
//! What is found is remembered. A rule for an address that was not seen before follows some 180 instructions on average in
//! Wasmtime's C library of versions 25 and 36, which takes 40 µs; one in a thousand follows more than 2,000, for a
//! millisecond, and the longest of 119,000 some 12,000, for 7 to 10 ms on a machine with other work. None follows more than
//! 22,000. Whether the found return address can be right takes 2,000 more at most.
//!
//! ```text
//! FLAMEWALK_UNWIND_CASES=60000 FLAMEWALK_UNWIND_LIBRARIES=/path/to/_libwasmtime.so \
//!     cargo test --workspace --test instructions cost -- --nocapture
//! ```

mod callees;
mod calls;
mod machine;
mod paths;
mod ways;

use flamewalk_handler::arch::Registers;
use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder};
use flamewalk_handler::memory::Memory;
use fnv::FnvHashMap;
pub use paths::{FrameRule, NoRule, Paths, StackPlace};
pub use ways::Code;

use crate::HostFrames;

/// Rules and calls that are remembered at most.
const MOST_REMEMBERED: usize = 1 << 16;

/// Unwinds host code by its unwind information, and by its instructions where it has none. Not for signal handlers.
pub struct InstructionFrames<C> {
    tables: HostFrames,
    code: C,
    paths: Paths,
    /// By the program counter, and whether it is a return address.
    rules: FnvHashMap<(usize, bool), Option<FrameRule>>,
    /// By the return address, the callee's program counter, and how far its stack pointer is below the return address.
    calls: FnvHashMap<(usize, usize, usize), bool>,
}

impl<C> std::fmt::Debug for InstructionFrames<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("InstructionFrames").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

impl<C: Code> InstructionFrames<C> {
    /// Unwinds by `tables` where they say something, and by `code` elsewhere.
    pub fn new(tables: HostFrames, code: C) -> Self {
        Self {
            tables,
            code,
            paths: Paths::default(),
            rules: FnvHashMap::default(),
            calls: FnvHashMap::default(),
        }
    }

    fn caller_by_instructions(&mut self, frame: &HostFrame, memory: &impl Memory) -> Option<HostFrame> {
        let Registers { pc, sp, fp, .. } = frame.registers;
        let rule = self.rule(pc, frame.is_return_address)?;
        let address = |place| match place {
            StackPlace::AboveStackPointer(bytes) => sp.checked_add_signed(isize::try_from(bytes).ok()?),
            StackPlace::AboveFramePointer(bytes) => fp.checked_add_signed(isize::try_from(bytes).ok()?),
        };
        let return_address_at = address(rule.return_address)?;
        let return_address = memory.stack_word(return_address_at)?;
        let caller_fp = match rule.frame_pointer {
            Some(place) => memory.stack_word(address(place)?)?,
            None => fp,
        };
        let sp = return_address_at.checked_add(size_of::<usize>())?;
        let registers = Registers { pc: return_address, sp, fp: caller_fp, lr: 0 };
        Some(HostFrame { registers, is_return_address: true })
    }

    fn rule(&mut self, pc: usize, is_return_address: bool) -> Option<FrameRule> {
        if let Some(rule) = self.rules.get(&(pc, is_return_address)) {
            return *rule;
        }
        let rule = self.paths.rule(&mut self.code, pc as u64, is_return_address).ok();
        if self.rules.len() >= MOST_REMEMBERED {
            self.rules.clear();
        }
        self.rules.insert((pc, is_return_address), rule);
        rule
    }

    /// Whether `frame` can have been called from `caller`. Unwind information is believed where both have it; what is not the
    /// host's is for others to judge.
    fn is_possible_caller(&mut self, frame: &HostFrame, caller: &HostFrame) -> bool {
        let (Some(callee), Some(call)) = (frame.instruction(), caller.instruction()) else { return false };
        let is_described = |address| self.tables.code.has_unwind_information(address);
        if is_described(callee) && is_described(call) || !self.is_host_code(call) {
            return true;
        }
        let depth = caller.registers.sp.checked_sub(size_of::<usize>());
        let depth = depth.and_then(|return_address_at| return_address_at.checked_sub(frame.registers.sp));
        depth.is_some_and(|depth| self.is_call(caller.registers.pc, frame.registers.pc, depth))
    }

    /// Whether what returns to `return_address` can have got to `pc`, with the stack pointer `depth` bytes below the return
    /// address.
    fn is_call(&mut self, return_address: usize, pc: usize, depth: usize) -> bool {
        let key = (return_address, pc, depth);
        if let Some(is_call) = self.calls.get(&key) {
            return *is_call;
        }
        let is_call = calls::is_possible(&mut self.code, return_address as u64, pc as u64, depth as i64);
        if self.calls.len() >= MOST_REMEMBERED {
            self.calls.clear();
        }
        self.calls.insert(key, is_call);
        is_call
    }

    fn is_host_code(&self, address: usize) -> bool {
        self.tables.code.objects().iter().any(|object| object.contains(address))
    }
}

impl<C: Code> HostUnwinder for InstructionFrames<C> {
    const WANTED: bool = true;

    fn is_known(&self, frame: &HostFrame) -> bool {
        frame.instruction().is_some_and(|address| self.is_host_code(address))
    }

    fn caller(&mut self, frame: &HostFrame, memory: &impl Memory) -> HostCaller {
        let found = match frame.instruction() {
            Some(address) if !self.tables.code.has_unwind_information(address) => {
                self.caller_by_instructions(frame, memory).map_or(HostCaller::Unknown, HostCaller::Frame)
            }
            _ => self.tables.caller(frame, memory),
        };
        match found {
            HostCaller::Frame(caller) if !self.is_possible_caller(frame, &caller) => HostCaller::Unknown,
            found => found,
        }
    }
}

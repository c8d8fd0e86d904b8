//! Native frames of the host, between and around guest segments, for those who ask for them.
//!
//! ```text
//!   youngest   host      from the registers, if the host was interrupted       ─┐ until a return address lies
//!              guest     its segment, by frame pointers                         │ in guest code, or the stack
//!              host      from the frame of the trampoline that entered it      ─┘ ends
//!   oldest     …
//! ```
//!
//! Host code is compiled without frame pointers and unwound by its unwind information, which is more than this crate
//! can do without allocating: [`crate::stack::walk`] is handed a [`HostUnwinder`] that knows the process. What the
//! unwinder says is checked on the way (the stack pointer rises, stays on the stack, and meets the trampoline that the
//! store names), and guest frames never depend on it: where host frames cannot be had, [`Frame::HostGap`] stands for
//! them and the walk goes on with the next guest segment.

use crate::arch::Registers;
use crate::memory::Memory;
use crate::record::Frame;

/// A native frame that a host unwinder starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFrame {
    /// The registers in this frame.
    pub registers: Registers,
    /// Whether the program counter is where a call returns to, and not an interrupted instruction.
    pub is_return_address: bool,
}

impl HostFrame {
    /// An address inside the instruction that runs: the interrupted one, or the call that has not returned. `None` if
    /// nothing can return there.
    pub const fn instruction(&self) -> Option<usize> {
        if self.is_return_address { self.registers.pc.checked_sub(1) } else { Some(self.registers.pc) }
    }

    /// The frame as a sample has it.
    pub const fn to_record(self) -> Frame {
        if self.is_return_address {
            Frame::HostReturnAddress(self.registers.pc)
        } else {
            Frame::HostInstruction(self.registers.pc)
        }
    }
}

/// What called a native frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCaller {
    /// The caller's frame. It may be one of the guest.
    Frame(HostFrame),
    /// Nothing: the frame is where the thread has begun.
    None,
    /// There is no telling, for want of unwind information.
    Unknown,
}

/// Unwinds native code of the host in a signal handler.
pub trait HostUnwinder {
    /// Whether host frames are wanted at all.
    const WANTED: bool;

    /// Whether the frame is one of native code that is known, so that it can be shown.
    fn is_known(&self, frame: &HostFrame) -> bool;

    /// The frame that called `frame`, which is known. Reads the stack through `memory` only, and does not allocate.
    fn caller(&mut self, frame: &HostFrame, memory: &impl Memory) -> HostCaller;
}

/// Leaves host frames out.
#[derive(Clone, Copy, Debug)]
pub struct NoHostFrames;

impl HostUnwinder for NoHostFrames {
    const WANTED: bool = false;

    fn is_known(&self, _: &HostFrame) -> bool {
        false
    }

    fn caller(&mut self, _: &HostFrame, _: &impl Memory) -> HostCaller {
        HostCaller::Unknown
    }
}

//! What differs between processors: where a frame keeps its caller, and how code enters and leaves a frame.
//!
//! Every architecture is a file of the same shape with a type that implements [`Architecture`].

pub mod aarch64;
pub mod x86_64;

/// The registers that a walk starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction that was about to run.
    pub pc: usize,
    /// The stack pointer.
    pub sp: usize,
    /// The frame pointer (`rbp`, `x29`).
    pub fp: usize,
    /// The link register, on architectures that have one.
    pub lr: usize,
}

/// Where the interrupted function's caller is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerLocation {
    /// The frame is complete: the saved frame pointer and the return address are at this frame pointer.
    Frame {
        /// Address of the saved frame pointer.
        fp: usize,
    },
    /// The frame is not there yet or no longer: the frame pointer register is still, or again, the caller's,
    /// and the return address lies on the stack.
    ReturnAddressAt {
        /// Address of the return address.
        address: usize,
    },
    /// As above, with the return address still in a register.
    ReturnAddress {
        /// The return address.
        address: usize,
    },
}

/// The layout of frames, and the code that builds and takes down frames, of one architecture.
pub trait Architecture {
    /// From a frame's pointer to where the caller's frame pointer is saved, in bytes.
    const SAVED_FP_OFFSET: usize;
    /// From a frame's pointer to where the return address is saved, in bytes.
    const RETURN_ADDRESS_OFFSET: usize;
    /// From a frame's pointer to the caller's stack pointer just after the return, in bytes.
    const CALLER_SP_OFFSET: usize;
    /// What every frame pointer is a multiple of, in bytes.
    const FRAME_ALIGNMENT: usize;
    /// Whether a call leaves its return address on the stack, just below the caller's frame.
    const CALL_PUSHES_RETURN_ADDRESS: bool;

    /// Finds the caller of a function that was interrupted at `registers.pc`.
    ///
    /// `code` is the function's machine code, whose first byte is at address `start`. `None` if the code is
    /// not of a shape that Wasmtime's compilers produce, so that nothing certain can be said.
    fn caller(registers: &Registers, start: usize, code: &[u8]) -> Option<CallerLocation>;

    /// The size in bytes of the frame that a trampoline's prologue makes below its saved frame pointer; `None` if
    /// the prologue does not have the usual shape, which is that a size of 0 takes no instruction.
    fn frame_size(code: &[u8]) -> Option<u32>;
}

/// The architecture that this crate is compiled for.
#[cfg(target_arch = "x86_64")]
pub use x86_64::X86_64 as Native;

/// The architecture that this crate is compiled for.
#[cfg(target_arch = "aarch64")]
pub use aarch64::Aarch64 as Native;

//! The code and the calls of a synthetic processor, for each architecture.

use flamewalk_handler::arch::aarch64::Aarch64;
use flamewalk_handler::arch::x86_64::X86_64;
use flamewalk_handler::arch::{Architecture, Registers};

/// Where in a function's code things happen, as offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundaries {
    /// The caller's frame pointer is saved, the own one is not set.
    pub(crate) saved: usize,
    /// The frame pointer is set.
    pub(crate) framed: usize,
    /// The frame has its full size, from here to `restore`.
    pub(crate) body: usize,
    /// The saved frame pointer is about to be restored.
    pub(crate) restore: usize,
    /// About to return.
    pub(crate) leave: usize,
}

/// What the synthetic processor needs to know of an architecture.
pub(crate) trait Shape: Architecture {
    /// Code with a frame of `frame` bytes, and where things happen in it.
    fn code(frame: u32) -> (Vec<u8>, Boundaries);
    /// Calls: the return address goes where the callee expects it.
    fn call(registers: &mut Registers, return_address: usize, write: &mut dyn FnMut(usize, usize));
    /// Saves the caller's frame pointer, as the first instruction of a function does.
    fn save(registers: &mut Registers, write: &mut dyn FnMut(usize, usize));
    /// Restores it, as the last instruction but one does.
    fn restore(registers: &mut Registers, read: &dyn Fn(usize) -> usize);
    /// Returns; the program counter is up to the caller.
    fn leave(registers: &mut Registers);
}

const BODY: usize = 24;

impl Shape for X86_64 {
    fn code(frame: u32) -> (Vec<u8>, Boundaries) {
        let mut code = vec![0x55, 0x48, 0x89, 0xe5];
        if frame != 0 {
            code.extend([0x48, 0x81, 0xec]);
            code.extend(frame.to_le_bytes());
        }
        let body = code.len();
        code.extend([0x90; BODY]);
        code.extend([0x48, 0x81, 0xc4]);
        code.extend(frame.to_le_bytes());
        code.extend([0x48, 0x89, 0xec, 0x5d, 0xc3]);
        let leave = code.len() - 1;
        (code, Boundaries { saved: 1, framed: 4, body, restore: leave - 1, leave })
    }

    fn call(registers: &mut Registers, return_address: usize, write: &mut dyn FnMut(usize, usize)) {
        registers.sp -= 8;
        write(registers.sp, return_address);
    }

    fn save(registers: &mut Registers, write: &mut dyn FnMut(usize, usize)) {
        registers.sp -= 8;
        write(registers.sp, registers.fp);
    }

    fn restore(registers: &mut Registers, read: &dyn Fn(usize) -> usize) {
        registers.fp = read(registers.sp);
        registers.sp += 8;
    }

    fn leave(registers: &mut Registers) {
        registers.sp += 8;
    }
}

impl Shape for Aarch64 {
    fn code(frame: u32) -> (Vec<u8>, Boundaries) {
        let mut code = vec![0xa9bf_7bfd_u32, 0x9100_03fd, 0xd100_03ff | frame << 10];
        code.extend([0xd503_201f; BODY / 4]);
        code.extend([0x9100_03ff | frame << 10, 0xa8c1_7bfd, 0xd65f_03c0]);
        let leave = 4 * (code.len() - 1);
        let boundaries = Boundaries { saved: 4, framed: 8, body: 12, restore: leave - 4, leave };
        (code.into_iter().flat_map(u32::to_le_bytes).collect(), boundaries)
    }

    fn call(registers: &mut Registers, return_address: usize, _: &mut dyn FnMut(usize, usize)) {
        registers.lr = return_address;
    }

    fn save(registers: &mut Registers, write: &mut dyn FnMut(usize, usize)) {
        registers.sp -= 16;
        write(registers.sp, registers.fp);
        write(registers.sp + 8, registers.lr);
    }

    fn restore(registers: &mut Registers, read: &dyn Fn(usize) -> usize) {
        registers.fp = read(registers.sp);
        registers.lr = read(registers.sp + 8);
        registers.sp += 16;
    }

    fn leave(_: &mut Registers) {}
}

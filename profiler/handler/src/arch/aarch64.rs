//! AArch64: frames, prologues and epilogues as Cranelift emits them.
//!
//! ```text
//!        higher addresses            instruction                    caller is found through
//!      ┌──────────────────┐          stp x29, x30, [sp, #-16]!      x30          (entry)
//!      │ return address   │ x29+8    mov x29, sp                    [sp+8]
//!      │ caller's x29     │ x29+0    ...                            x29
//!      │ clobbers, spills │          ldp x29, x30, [sp], #16        x29
//!      └──────────────────┘ sp       ret                            x30
//! ```
//!
//! Tested on synthetic stacks only; no AArch64 machine has run it.

use super::{Architecture, CallerLocation, Registers};

/// Frames of AArch64.
#[derive(Clone, Copy, Debug)]
pub struct Aarch64;

/// `stp x29, x30, [sp, #-16]!`
const STP_FP_LR: u32 = 0xa9bf_7bfd;
/// `mov x29, sp`
const MOV_FP_SP: u32 = 0x9100_03fd;
/// `bti c`, `paciasp` and the like may precede the prologue; all are hints.
const HINT_MASK: u32 = 0xffff_f01f;
const HINT: u32 = 0xd503_201f;
/// `ret` (through any register).
const RET_MASK: u32 = 0xffff_fc1f;
const RET: u32 = 0xd65f_0000;
/// `ldp x29, x30, [sp], #16`, after which the frame is gone.
const LDP_FP_LR: u32 = 0xa8c1_7bfd;
/// `b` and `br`, with which a tail call ends.
const B_MASK: u32 = 0xfc00_0000;
const B: u32 = 0x1400_0000;
const BR_MASK: u32 = 0xffff_fc1f;
const BR: u32 = 0xd61f_0000;

impl Architecture for Aarch64 {
    const SAVED_FP_OFFSET: usize = 0;
    const RETURN_ADDRESS_OFFSET: usize = 8;
    const CALLER_SP_OFFSET: usize = 16;
    const FRAME_ALIGNMENT: usize = 16;
    const CALL_PUSHES_RETURN_ADDRESS: bool = false;

    fn caller(registers: &Registers, start: usize, code: &[u8]) -> Option<CallerLocation> {
        let at = registers.pc.checked_sub(start)?;
        let stp = prologue_start(code)?;
        if at <= stp {
            return Some(CallerLocation::ReturnAddress { address: registers.lr });
        }
        if at == stp.checked_add(4)? {
            return Some(CallerLocation::ReturnAddressAt { address: registers.sp.checked_add(8)? });
        }
        let here = instruction(code, at)?;
        let before = instruction(code, at.checked_sub(4)?)?;
        let leaves = here & RET_MASK == RET || here & B_MASK == B || here & BR_MASK == BR;
        if here & RET_MASK == RET || (leaves && before == LDP_FP_LR) {
            return Some(CallerLocation::ReturnAddress { address: registers.lr });
        }
        Some(CallerLocation::Frame { fp: registers.fp })
    }

    fn frame_size(_code: &[u8]) -> Option<u32> {
        None
    }
}

fn prologue_start(code: &[u8]) -> Option<usize> {
    let mut offset = 0usize;
    while instruction(code, offset)? & HINT_MASK == HINT {
        offset = offset.checked_add(4)?;
    }
    let shape = (instruction(code, offset)?, instruction(code, offset.checked_add(4)?)?);
    (shape == (STP_FP_LR, MOV_FP_SP)).then_some(offset)
}

fn instruction(code: &[u8], offset: usize) -> Option<u32> {
    let bytes = code.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

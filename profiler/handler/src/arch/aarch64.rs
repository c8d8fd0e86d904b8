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
//! Behind the `ldp` may come `add sp, sp, #n` (through `x16` if `n` is large), which frees stack arguments, and then
//! a `b` or `br` in place of the `ret`: a tail call. A function that makes a tail call with more stack arguments than
//! it got itself moves its frame down in the prologue, while the return address is still in `x30`:
//!
//! ```text
//!      sub sp, sp, #d;  ldr x29, [sp, #d];     x29
//!      stp x29, x30, [sp];  mov x29, sp        x30
//! ```
//!
//! Return addresses that are signed (pointer authentication) are not understood. Tested on synthetic stacks only; no
//! AArch64 machine has run it.

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
/// `stp x29, x30, [sp]`, which is in prologues that move the frame only.
const STP_FP_LR_AT_SP: u32 = 0xa900_7bfd;
/// `add sp, sp, #n`, `add sp, sp, x16`, and `movz`, `movn` and `movk` of `x16`.
const ADD_SP_MASK: u32 = 0xff80_03ff;
const ADD_SP: u32 = 0x9100_03ff;
const ADD_SP_X16: u32 = 0x8b30_63ff;
const MOVE_X16_MASK: u32 = 0x9f80_001f;
const MOVE_X16: u32 = 0x9280_0010 & MOVE_X16_MASK;
/// The most instructions between the `ldp` and the jump: a constant of two parts, the addition, a hint.
const MOST_AFTER_LDP: usize = 5;

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
        if frame_is_gone(code, at) || frame_is_moving(code, at) {
            return Some(CallerLocation::ReturnAddress { address: registers.lr });
        }
        Some(CallerLocation::Frame { fp: registers.fp })
    }

    fn frame_size(code: &[u8]) -> Option<u32> {
        let mut offset = prologue_start(code)?.checked_add(8)?;
        let mut size = 0u32;
        // Pushes of saved registers, then `sub sp, sp, #n`.
        while let Some(word) = instruction(code, offset) {
            let pushes = word & 0xffff_ffe0 == STR_PUSH
                || word & 0xffff_83e0 == STP_PUSH
                || word & 0xffff_83e0 == STP_PUSH_VECTOR;
            let more = if pushes { Some(16) } else { sub_sp(word) };
            let Some(more) = more else { break };
            size = size.checked_add(more)?;
            offset = offset.checked_add(4)?;
        }
        Some(size)
    }
}

/// `str xN, [sp, #-16]!`, and the pair forms for integer and vector registers.
const STR_PUSH: u32 = 0xf81f_0fe0;
const STP_PUSH: u32 = 0xa9bf_03e0;
const STP_PUSH_VECTOR: u32 = 0x6dbf_03e0;

/// The immediate of `sub sp, sp, #n`.
fn sub_sp(word: u32) -> Option<u32> {
    let immediate = word >> 10 & 0xfff;
    (word & 0xff80_03ff == 0xd100_03ff).then_some(if word & 1 << 22 == 0 {
        immediate
    } else {
        immediate << 12
    })
}

fn prologue_start(code: &[u8]) -> Option<usize> {
    let mut offset = 0usize;
    while instruction(code, offset)? & HINT_MASK == HINT {
        offset = offset.checked_add(4)?;
    }
    let shape = (instruction(code, offset)?, instruction(code, offset.checked_add(4)?)?);
    (shape == (STP_FP_LR, MOV_FP_SP)).then_some(offset)
}

/// Whether the instruction at `at` runs after the `ldp` of an epilogue.
fn frame_is_gone(code: &[u8], at: usize) -> bool {
    if instruction(code, at).is_some_and(|here| here & RET_MASK == RET) {
        return true;
    }
    for back in 1..=MOST_AFTER_LDP {
        let before = at.checked_sub(back.saturating_mul(4)).and_then(|before| instruction(code, before));
        match before {
            Some(LDP_FP_LR) => return true,
            Some(before) if adjusts_sp(before) => {}
            _ => return false,
        }
    }
    false
}

fn adjusts_sp(instruction: u32) -> bool {
    instruction & ADD_SP_MASK == ADD_SP
        || instruction == ADD_SP_X16
        || instruction & MOVE_X16_MASK == MOVE_X16
        || instruction & HINT_MASK == HINT
}

/// Whether the frame is being moved, with the caller's frame pointer in `x29`.
fn frame_is_moving(code: &[u8], at: usize) -> bool {
    let before = at.checked_sub(4).and_then(|before| instruction(code, before));
    instruction(code, at) == Some(STP_FP_LR_AT_SP) || before == Some(STP_FP_LR_AT_SP)
}

fn instruction(code: &[u8], offset: usize) -> Option<u32> {
    let bytes = code.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

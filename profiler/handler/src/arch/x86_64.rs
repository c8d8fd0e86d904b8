//! x86-64: frames, prologues, epilogues and tail calls as Cranelift and Winch emit them.
//!
//! ```text
//!        higher addresses            instruction            caller is found through
//!      ┌──────────────────┐          push rbp               [rsp]        (entry)
//!      │ return address   │ rbp+8    mov  rbp, rsp          [rsp+8]
//!      │ caller's rbp     │ rbp+0    ...                    rbp
//!      │ clobbers, spills │          mov  rsp, rbp          rbp
//!      │ outgoing args    │ rsp      pop  rbp               rbp
//!      └──────────────────┘          ret [n]                [rsp]
//! ```
//!
//! A tail call replaces `ret` by `jmp`; if the callee takes fewer stack arguments, the return address is first
//! moved up:
//!
//! ```text
//!      pop rbp;  mov t, [rsp];  mov [rsp+d], t;  add rsp, d;  jmp callee       all of these after the pop: [rsp]
//! ```
//!
//! A function that makes a tail call with *more* stack arguments than it got itself moves its own frame down
//! first, which leaves a window in which `rbp` already points to the new place and the words are still at the
//! old one:
//!
//! ```text
//!      sub rsp, d;  mov rbp, rsp;  mov r11, [rsp+d];    mov [rsp], r11;                   rbp+d for the four
//!                                  mov r11, [rsp+d+8];  mov [rsp+8], r11                  moves of r11
//! ```
//!
//! Each of these is recognized from the bytes at the program counter. Why that is certain:
//! 1. The program counter is at an instruction's first byte, so a `c3` or `c2` there *is* a return.
//! 2. `mov rbp, rsp` occurs once in a prologue and a second time only in the move of the frame.
//! 3. A `jmp` to an address outside the function, or to its first byte, is a tail call: branches inside a
//!    function never go to its first byte, which is the prologue.
//! 4. An indirect `jmp` is either a tail call, behind `mov rsp, rbp; pop rbp` or the move of the return address,
//!    or the end of a jump table, behind an `add` of two registers, whose last byte is never that of a
//!    `pop rbp` or of an `add rsp, d`.
//! 5. The move of the return address is matched whole, from the `mov rsp, rbp; pop rbp` before it to a `jmp` that
//!    leaves the function: moves of a block's results on the stack look the same up to where they jump.

use super::{Architecture, CallerLocation, Registers};

/// Frames of x86-64.
#[derive(Clone, Copy, Debug)]
pub struct X86_64;

const PUSH_RBP: u8 = 0x55;
const POP_RBP: u8 = 0x5d;
const RET: u8 = 0xc3;
const RET_IMM16: u8 = 0xc2;
const JMP_REL32: u8 = 0xe9;
/// `mov rbp, rsp`, in the two encodings that exist.
const MOV_RBP_RSP: [[u8; 3]; 2] = [[0x48, 0x89, 0xe5], [0x48, 0x8b, 0xec]];
/// `mov rsp, rbp; pop rbp`, with which a frame is taken down, in the two encodings that exist.
const LEAVE: [[u8; 4]; 2] = [[0x48, 0x89, 0xec, POP_RBP], [0x48, 0x8b, 0xe5, POP_RBP]];
/// `endbr64`, with which functions begin where indirect branches are tracked.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `mov r11, rsp` and `mov dword [rsp], imm32`, with which the probes of a frame of several pages begin.
const MOV_R11_RSP: [u8; 3] = [0x49, 0x89, 0xe3];
const MOV_TO_RSP_0: [u8; 3] = [0xc7, 0x04, 0x24];
/// The move of a frame follows the prologue and its stack check, which are about 40 bytes.
const FRAME_MOVE_ENDS_BEFORE: usize = 160;

impl Architecture for X86_64 {
    const SAVED_FP_OFFSET: usize = 0;
    const RETURN_ADDRESS_OFFSET: usize = 8;
    const CALLER_SP_OFFSET: usize = 16;
    const FRAME_ALIGNMENT: usize = 8;
    const CALL_PUSHES_RETURN_ADDRESS: bool = true;

    fn caller(registers: &Registers, start: usize, code: &[u8]) -> Option<CallerLocation> {
        let at = registers.pc.checked_sub(start)?;
        let push = prologue_start(code)?;
        if at <= push {
            return Some(CallerLocation::ReturnAddressAt { address: registers.sp });
        }
        if at == push.checked_add(1)? {
            return Some(CallerLocation::ReturnAddressAt { address: registers.sp.checked_add(8)? });
        }
        if frame_is_gone(code, at) {
            return Some(CallerLocation::ReturnAddressAt { address: registers.sp });
        }
        let moved_by = if at < FRAME_MOVE_ENDS_BEFORE { frame_move(code, at).unwrap_or(0) } else { 0 };
        Some(CallerLocation::Frame { fp: registers.fp.checked_add(moved_by)? })
    }

    fn frame_size(code: &[u8]) -> Option<u32> {
        let behind = code.get(prologue_start(code)?.checked_add(4)?..)?;
        if behind.starts_with(&MOV_R11_RSP) {
            return None;
        }
        let Some((size, length)) = add_or_sub_rsp(behind, 0xec) else {
            // No frame, or a subtraction of what is no size.
            return (!matches!(behind, [0x48, 0x81 | 0x83, 0xec, ..])).then_some(0);
        };
        let probes = behind.get(length..)?.starts_with(&MOV_TO_RSP_0);
        if probes { None } else { u32::try_from(size).ok() }
    }
}

/// Offset of `push rbp`, if the code begins with the prologue that all of Wasmtime's code begins with.
fn prologue_start(code: &[u8]) -> Option<usize> {
    let push = if code.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
    let rest = code.get(push..)?;
    let mov = rest.get(1..4)?;
    (rest.first() == Some(&PUSH_RBP) && MOV_RBP_RSP.iter().any(|known| known == mov)).then_some(push)
}

/// Whether the instruction at `at` runs after `pop rbp`: a return, or a part of a tail call.
fn frame_is_gone(code: &[u8], at: usize) -> bool {
    match code.get(at..) {
        Some([RET | RET_IMM16, ..]) => true,
        Some([JMP_REL32, ..]) => jumps_out(code, at),
        Some(here) if indirect_jump(here) && ends_with_leave(code, at) => true,
        _ => return_address_is_moving(code, at),
    }
}

/// Whether a frame is taken down right before `at`.
fn ends_with_leave(code: &[u8], at: usize) -> bool {
    code.get(..at).is_some_and(|before| LEAVE.iter().any(|leave| before.ends_with(leave)))
}

/// Whether there is a `jmp` at `at` to another function, or to this one's first byte.
fn jumps_out(code: &[u8], at: usize) -> bool {
    let Some([JMP_REL32, a, b, c, d, ..]) = code.get(at..) else { return false };
    let displacement = i64::from(i32::from_le_bytes([*a, *b, *c, *d]));
    let target = (at as i64).wrapping_add(5).wrapping_add(displacement);
    target <= 0 || target >= code.len() as i64
}

/// `jmp reg`.
fn indirect_jump(code: &[u8]) -> bool {
    matches!(code, [0xff, 0xe0..=0xe7, ..] | [0x41, 0xff, 0xe0..=0xe7, ..])
}

/// Decodes `add rsp, imm` (`operation` = 0xc4) or `sub rsp, imm` (0xec): the immediate and the length.
fn add_or_sub_rsp(code: &[u8], operation: u8) -> Option<(usize, usize)> {
    match *code {
        [0x48, 0x83, found, imm, ..] if found == operation => Some((usize::try_from(imm as i8).ok()?, 4)),
        [0x48, 0x81, found, a, b, c, d, ..] if found == operation => {
            Some((usize::try_from(i32::from_le_bytes([a, b, c, d])).ok()?, 7))
        }
        _ => None,
    }
}

/// Whether `at` is one of `mov t, [rsp]`, `mov [rsp+d], t`, `add rsp, d` and `jmp`, behind the `pop rbp` of a
/// tail call. The whole sequence has to be there.
fn return_address_is_moving(code: &[u8], at: usize) -> bool {
    // Of the four instructions, whatever the others are.
    if !matches!(
        code.get(at..),
        Some(
            [0x48 | 0x4c, 0x8b | 0x89, _, 0x24, ..]
                | [0x48, 0x81 | 0x83, 0xc4, ..]
                | [JMP_REL32 | 0xff, ..]
                | [0x41, 0xff, ..]
        )
    ) {
        return false;
    }
    // The sequence begins at `at`, or one to three instructions earlier. Lengths: 4; 5 or 8; 4 or 7, where the
    // short forms, and the long ones, go together.
    [0usize, 4, 4 + 5, 4 + 8, 4 + 5 + 4, 4 + 8 + 7]
        .into_iter()
        .filter_map(|back| at.checked_sub(back))
        .any(|begin| moving_sequence(code, begin).is_some_and(|boundaries| boundaries.contains(&at)))
}

/// The offsets of the four instructions, if the sequence begins at `begin`, right behind a `pop rbp`.
fn moving_sequence(code: &[u8], begin: usize) -> Option<[usize; 4]> {
    if !ends_with_leave(code, begin) {
        return None;
    }
    let (load, displacement) = rsp_move(code.get(begin..)?, 0x8b)?;
    if displacement != 0 {
        return None;
    }
    let second = begin.checked_add(load.length)?;
    let (store, up) = rsp_move(code.get(second..)?, 0x89)?;
    let third = second.checked_add(store.length)?;
    let (added, length) = add_or_sub_rsp(code.get(third..)?, 0xc4)?;
    let jump = third.checked_add(length)?;
    let leaves = jumps_out(code, jump) || indirect_jump(code.get(jump..)?);
    (leaves && load.register == store.register && up == added).then_some([begin, second, third, jump])
}

struct RspMove {
    register: u8,
    length: usize,
}

/// Decodes `mov reg, [rsp+disp]` (`opcode` 0x8b) or `mov [rsp+disp], reg` (0x89) of 64 bits.
fn rsp_move(code: &[u8], opcode: u8) -> Option<(RspMove, usize)> {
    let [rex @ (0x48 | 0x4c), found, modrm, 0x24, rest @ ..] = code else { return None };
    if *found != opcode || modrm & 0b111 != 0b100 {
        return None;
    }
    let register = (modrm >> 3 & 0b111) | (rex & 0b100) << 1;
    let (displacement, length) = match (modrm >> 6, rest) {
        (0b00, _) => (0, 4),
        (0b01, [disp, ..]) => (usize::try_from(*disp as i8).ok()?, 5),
        (0b10, [a, b, c, d, ..]) => (usize::try_from(i32::from_le_bytes([*a, *b, *c, *d])).ok()?, 8),
        _ => return None,
    };
    Some((RspMove { register, length }, displacement))
}

/// If `at` is one of the four moves of a frame that grows its argument area, the distance that it moved by.
fn frame_move(code: &[u8], at: usize) -> Option<usize> {
    // All four move r11 from or to the stack, whatever the others are.
    let Some([0x4c, 0x8b | 0x89, _, 0x24, ..]) = code.get(at..) else { return None };
    // Behind the first move come moves of 4 or 5+4 or 8+4 bytes and so on; the sequence is matched whole from
    // each place where it can have begun.
    [0usize, 5, 8, 5 + 4, 8 + 4, 5 + 4 + 5, 5 + 4 + 8, 8 + 4 + 8]
        .into_iter()
        .filter_map(|back| at.checked_sub(back))
        .find_map(|begin| {
            let (boundaries, distance) = frame_move_sequence(code, begin)?;
            boundaries.contains(&at).then_some(distance)
        })
}

fn frame_move_sequence(code: &[u8], begin: usize) -> Option<([usize; 4], usize)> {
    const R11: u8 = 11;
    let second_mov_rbp = begin.checked_sub(3)?;
    let before = code.get(second_mov_rbp..begin)?;
    if second_mov_rbp <= prologue_start(code)?.checked_add(1)? || !MOV_RBP_RSP.iter().any(|mov| mov == before)
    {
        return None;
    }
    let mut boundaries = [begin; 4];
    let mut displacements = [0usize; 4];
    let mut offset = begin;
    for (index, opcode) in [0x8bu8, 0x89, 0x8b, 0x89].into_iter().enumerate() {
        let (instruction, displacement) = rsp_move(code.get(offset..)?, opcode)?;
        if instruction.register != R11 {
            return None;
        }
        *boundaries.get_mut(index)? = offset;
        *displacements.get_mut(index)? = displacement;
        offset = offset.checked_add(instruction.length)?;
    }
    let [distance, to_fp, from_return_address, to_return_address] = displacements;
    let consistent =
        to_fp == 0 && to_return_address == 8 && from_return_address == distance.checked_add(8)?;
    consistent.then_some((boundaries, distance))
}

//! The caller of an interrupted function on AArch64, at every instruction of Cranelift's prologues, epilogues and tail
//! calls. Instructions are written with where the caller is before each of them.

use flamewalk_handler::arch::aarch64::Aarch64;
use flamewalk_handler::arch::{Architecture, CallerLocation, Registers};

const CODE: usize = 0x4000_0000;
const REGISTERS: Registers = Registers { pc: 0, sp: 0x7000_0000, fp: 0x7000_0100, lr: 0x4000_1000 };

#[derive(Clone, Copy, Debug)]
enum At {
    /// In `x30`.
    Lr,
    /// Just pushed.
    Sp,
    /// At `x29`.
    Fp,
}
use At::{Fp, Lr, Sp};

const NOP: u32 = 0xd503_201f;
const BTI_C: u32 = 0xd503_245f;
const STP: u32 = 0xa9bf_7bfd;
const MOV_FP_SP: u32 = 0x9100_03fd;
const LDP: u32 = 0xa8c1_7bfd;
const RET: u32 = 0xd65f_03c0;
/// `b` backwards, far out of the function.
const B: u32 = 0x1700_0000;
/// `b` forwards by two instructions.
const B_NEAR: u32 = 0x1400_0002;
/// `br x9`
const BR_X9: u32 = 0xd61f_0120;
/// `sub sp, sp, #32` and `add sp, sp, #32`
const SUB_SP: u32 = 0xd100_83ff;
const ADD_SP: u32 = 0x9100_83ff;
/// `movz x16, #0x4320`, `movk x16, #1, lsl #16`, `add sp, sp, x16`
const LARGE_ADD_SP: [u32; 3] = [0xd288_6410, 0xf2a0_0030, 0x8b30_63ff];
/// `ldr x29, [sp, #32]`, `stp x29, x30, [sp]`
const LDR_FP: u32 = 0xf940_13fd;
const STP_AT_SP: u32 = 0xa900_7bfd;
/// `stp x19, x20, [sp, #-16]!` and `ldp x19, x20, [sp], #16`
const SAVE: u32 = 0xa9bf_53f3;
const RESTORE: u32 = 0xa8c1_53f3;

fn check(function: &[(u32, At)]) {
    let code: Vec<u8> = function.iter().flat_map(|(instruction, _)| instruction.to_le_bytes()).collect();
    for (index, (instruction, at)) in function.iter().enumerate() {
        let registers = Registers { pc: CODE + 4 * index, ..REGISTERS };
        let expected = match at {
            Lr => CallerLocation::ReturnAddress { address: REGISTERS.lr },
            Sp => CallerLocation::ReturnAddressAt { address: REGISTERS.sp + 8 },
            Fp => CallerLocation::Frame { fp: REGISTERS.fp },
        };
        let found = Aarch64::caller(&registers, CODE, &code);
        assert_eq!(found, Some(expected), "instruction {index} ({instruction:#x}) of {function:x?}");
    }
}

const PROLOGUE: [(u32, At); 2] = [(STP, Lr), (MOV_FP_SP, Sp)];
const BODY: [(u32, At); 6] = [(SAVE, Fp), (SUB_SP, Fp), (NOP, Fp), (B_NEAR, Fp), (ADD_SP, Fp), (RESTORE, Fp)];

#[test]
fn returns() {
    check(&[&PROLOGUE[..], &BODY, &[(LDP, Fp), (RET, Lr)]].concat());
    check(&[&[(BTI_C, Lr)], &PROLOGUE[..], &BODY, &[(LDP, Fp), (RET, Lr), (NOP, Fp), (B_NEAR, Fp)]].concat());
}

/// Where stack arguments are freed behind the `ldp`, the walk took the caller's frame for this function's, and lost
/// the caller.
#[test]
fn stack_arguments_are_freed_after_the_frame() {
    let [movz, movk, add] = LARGE_ADD_SP.map(|instruction| (instruction, Lr));
    check(&[&PROLOGUE[..], &BODY, &[(LDP, Fp), (ADD_SP, Lr), (RET, Lr)]].concat());
    check(&[&PROLOGUE[..], &BODY, &[(LDP, Fp), movz, movk, add, (RET, Lr)]].concat());
}

#[test]
fn tail_calls() {
    let [movz, movk, add] = LARGE_ADD_SP.map(|instruction| (instruction, Lr));
    for jump in [B, BR_X9] {
        check(&[&PROLOGUE[..], &BODY, &[(LDP, Fp), (jump, Lr)]].concat());
        check(&[&PROLOGUE[..], &BODY, &[(LDP, Fp), (ADD_SP, Lr), (jump, Lr), (NOP, Fp)]].concat());
        check(&[&PROLOGUE[..], &BODY, &[(LDP, Fp), movz, movk, add, (jump, Lr)]].concat());
    }
}

#[test]
fn a_frame_moves_for_a_tail_call_with_more_arguments() {
    let moves = [(SUB_SP, Fp), (LDR_FP, Fp), (STP_AT_SP, Lr), (MOV_FP_SP, Lr)];
    check(&[&PROLOGUE[..], &moves, &BODY, &[(LDP, Fp), (B, Lr)]].concat());
}

#[test]
fn an_unknown_prologue_is_refused() {
    for code in [&[][..], &[NOP], &[STP], &[STP, NOP], &[MOV_FP_SP, STP], &[RET]] {
        let code: Vec<u8> = code.iter().flat_map(|instruction: &u32| instruction.to_le_bytes()).collect();
        for at in [0, 4, 8] {
            let registers = Registers { pc: CODE + at, ..REGISTERS };
            assert_eq!(Aarch64::caller(&registers, CODE, &code), None);
        }
    }
}

proptest::proptest! {
    #![proptest_config(crate::cases(5_000))]

    /// Any instructions and any registers give an answer, whatever it is.
    #[test]
    fn any_instructions_give_an_answer(
        body in proptest::collection::vec(proptest::sample::select(&[NOP, LDP, RET, B, ADD_SP, STP, STP_AT_SP][..]), 0..12),
        at in 0usize..60,
        sp in proptest::num::usize::ANY,
        start in proptest::sample::select(&[0, CODE, usize::MAX - 50][..]),
    ) {
        let mut code: Vec<u8> = [STP, MOV_FP_SP].into_iter().chain(body).flat_map(u32::to_le_bytes).collect();
        code.pop();
        for sp in [sp, 0, usize::MAX] {
            let registers = Registers { pc: start.wrapping_add(at), sp, fp: sp, lr: sp };
            Aarch64::caller(&registers, start, &code);
        }
    }
}

#[test]
fn frame_sizes_of_trampolines() {
    let size = |words: &[u32]| {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Aarch64::frame_size(&code)
    };
    // stp x29, x30, [sp, #-16]!; mov x29, sp; stp x27, x28, [sp, #-16]!; sub sp, sp, #32; ret
    assert_eq!(size(&[0xa9bf_7bfd, 0x9100_03fd, 0xa9bf_73fb, 0xd100_83ff, 0xd65f_03c0]), Some(48));
    assert_eq!(size(&[0xd503_245f, 0xa9bf_7bfd, 0x9100_03fd, 0xd65f_03c0]), Some(0));
    assert_eq!(size(&[0xd100_83ff]), None);
}

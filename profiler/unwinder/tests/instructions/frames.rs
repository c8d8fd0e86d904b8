//! From a frame to its caller's, on a stack of a few words.

use std::sync::Arc;

use flamewalk_handler::arch::Registers;
use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder};
use flamewalk_handler::memory::CopiedMemory;
use flamewalk_symbolizer::HostObject;
use flamewalk_unwinder::instructions::InstructionFrames;
use flamewalk_unwinder::{HostCode, HostFrames};

use crate::hostile::Bytes;

const START: usize = 0x1000;
const STACK: usize = 0x7000;
/// Calls, and the functions that they call.
#[rustfmt::skip]
const CODE: [u8; 61] = [
    0xe8, 0x0b, 0x00, 0x00, 0x00, 0x90, 0x90, 0x90, //  0  call 16
    0xe8, 0x13, 0x00, 0x00, 0x00, 0xc3, 0x90, 0x90, //  8  call 32
    0x55, 0x31, 0xed, 0x5d, 0xc3, 0x90, 0x90, 0x90, // 16  push rbp; xor ebp, ebp; pop rbp; ret
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, // 32  ret
    0xe8, 0x03, 0x00, 0x00, 0x00, 0x90, 0x90, 0x90, // 40  call 48
    0x74, 0x08, 0x50, 0xe8, 0xe8, 0xff, 0xff, 0xff, // 48  je 58; push rax; call 32
    0x90, 0x90, 0x90, 0x59, 0xc3,                   // 56  pop rcx; ret
];

/// The caller of the function at 16, behind its `xor`, with this word as its return address.
fn caller(return_address: usize) -> HostCaller {
    caller_of(START + 19, return_address)
}

/// The caller of a function that has pushed a word and then come to `pc`.
fn caller_of(pc: usize, return_address: usize) -> HostCaller {
    let object = HostObject {
        name: "library".into(),
        path: None,
        bias: START,
        code: std::iter::once(START..START + CODE.len()).collect(),
        build_id: None,
    };
    let tables = HostFrames::new(Arc::new(HostCode::new([(object, None)])));
    let mut frames = InstructionFrames::new(tables, Bytes { start: START as u64, bytes: &CODE });
    let memory = CopiedMemory { stack_start: STACK, words: &[0x7777, return_address], ..Default::default() };
    let registers = Registers { pc, sp: STACK, fp: 0x5555, lr: 0 };
    let frame = HostFrame { registers, is_return_address: false };
    assert!(frames.is_known(&frame));
    frames.caller(&frame, &memory)
}

fn found(return_address: usize) -> HostCaller {
    found_with(return_address, 0x7777)
}

fn found_with(return_address: usize, fp: usize) -> HostCaller {
    let registers = Registers { pc: return_address, sp: STACK + 16, fp, lr: 0 };
    HostCaller::Frame(HostFrame { registers, is_return_address: true })
}

#[test]
fn a_call_of_the_function_is_its_caller() {
    assert_eq!(caller(START + 5), found(START + 5));
}

#[test]
fn what_called_another_function_is_not() {
    assert_eq!(caller(START + 13), HostCaller::Unknown);
}

#[test]
fn what_lies_behind_no_call_is_not() {
    assert_eq!(caller(START + 6), HostCaller::Unknown);
}

/// It can be a guest's, of which this knows nothing.
#[test]
fn code_that_is_not_the_hosts_is_for_others_to_judge() {
    assert_eq!(caller(0x9_0000), found(0x9_0000));
}

/// The way that was followed first has another depth: it does not go where it seems to.
#[test]
fn a_call_behind_another_one_leads_to_the_frame() {
    assert_eq!(caller_of(START + 58, START + 45), found_with(START + 45, 0x5555));
    // It is no way to the function at 16.
    assert_eq!(caller_of(START + 19, START + 45), HostCaller::Unknown);
}

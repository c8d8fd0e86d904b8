//! Whether a word that is taken for a return address can be one.

use iced_x86::Instruction;

use super::machine::{Machine, STACK_POINTER};
use super::ways::{Code, Ways, decode, is_call, target};

/// The lengths that calls have, in bytes, with a prefix.
const CALL_LENGTHS: std::ops::RangeInclusive<u64> = 2..=8;
/// Instructions that are followed at most to find the way from a function's beginning.
const MOST_INSTRUCTIONS: usize = 2000;

/// The calls that can lie before `return_address`. Several can, since code can be read from any byte on.
fn calls_before(code: &mut impl Code, return_address: u64) -> Vec<Instruction> {
    CALL_LENGTHS
        .filter_map(|length| {
            let call = decode(code, return_address.checked_sub(length)?);
            (is_call(&call) && call.next_ip() == return_address).then_some(call)
        })
        .collect()
}

/// The function that the call before a return address calls, if it is known.
pub(super) fn callee_before(code: &mut impl Code, return_address: u64) -> Option<u64> {
    calls_before(code, return_address).iter().find_map(|call| target(code, call))
}

/// Whether what returns to `return_address` can have got to `pc`, with the stack pointer `depth` bytes below the return
/// address.
pub(super) fn is_possible(code: &mut impl Code, return_address: u64, pc: u64, depth: i64) -> bool {
    calls_before(code, return_address).iter().any(|call| match target(code, call) {
        Some(function) => leads_to(code, function, pc, depth),
        None => true,
    })
}

/// Whether a function leads to `pc` with the stack as deep; also if not all of its ways can be followed and none of the others
/// comes to `pc`.
fn leads_to(code: &mut impl Code, function: u64, pc: u64, depth: i64) -> bool {
    let mut ways = Ways::new(function, Machine::new(false), MOST_INSTRUCTIONS);
    let mut comes_to_pc = false;
    loop {
        ways.follow(code);
        for stack_pointer in ways.stack_pointers_at(pc) {
            if stack_pointer.is_none_or(|top| top.base != STACK_POINTER || top.offset == -depth) {
                return true;
            }
            comes_to_pc = true;
        }
        // What calls do not return is of no interest: nothing is believed that lies behind them alone.
        if !ways.cross_calls(|_| true) {
            return ways.is_cut && !comes_to_pc;
        }
    }
}

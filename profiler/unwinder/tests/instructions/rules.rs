//! Functions of a few instructions, and the rules that follow from them.

use flamewalk_unwinder::instructions::{FrameRule, NoRule, Paths, StackPlace};

use crate::hostile::Bytes;

const START: u64 = 0x1000;

fn rule(bytes: &[u8], offset: u64, is_return_address: bool) -> Result<FrameRule, NoRule> {
    Paths::default().rule(&mut Bytes { start: START, bytes }, START + offset, is_return_address)
}

fn above_stack_pointer(return_address: i64, frame_pointer: Option<i64>) -> Result<FrameRule, NoRule> {
    Ok(FrameRule {
        return_address: StackPlace::AboveStackPointer(return_address),
        frame_pointer: frame_pointer.map(StackPlace::AboveStackPointer),
    })
}

#[test]
fn pushes_pops_and_the_room_of_a_frame() {
    // push rbp; push rbx; sub rsp, 0x28; nop; add rsp, 0x28; pop rbx; pop rbp; ret
    let code = [0x55, 0x53, 0x48, 0x83, 0xec, 0x28, 0x90, 0x48, 0x83, 0xc4, 0x28, 0x5b, 0x5d, 0xc3];
    assert_eq!(rule(&code, 0, false), above_stack_pointer(0, None));
    assert_eq!(rule(&code, 1, false), above_stack_pointer(8, Some(0)));
    assert_eq!(rule(&code, 6, false), above_stack_pointer(0x38, Some(0x30)));
    assert_eq!(rule(&code, 12, false), above_stack_pointer(8, Some(0)));
    assert_eq!(rule(&code, 13, false), above_stack_pointer(0, None));
}

#[test]
fn a_frame_pointer_finds_a_stack_of_unknown_depth() {
    // push rbp; mov rbp, rsp; sub rsp, rax; lea rsp, [rbp - 8]; pop rbx; pop rbp; ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x29, 0xc4, 0x48, 0x8d, 0x65, 0xf8, 0x5b, 0x5d, 0xc3];
    let by_frame_pointer = FrameRule {
        return_address: StackPlace::AboveFramePointer(8),
        frame_pointer: Some(StackPlace::AboveFramePointer(0)),
    };
    assert_eq!(rule(&code, 7, false), Ok(by_frame_pointer));
    // leave; ret
    assert_eq!(rule(&[0xc9, 0xc3], 0, false), Ok(by_frame_pointer));
}

#[test]
fn ways_that_disagree_say_nothing() {
    // je +2; pop rax; ret; ret
    assert_eq!(rule(&[0x74, 0x02, 0x58, 0xc3, 0xc3], 0, false), Err(NoRule::Disagreement));
    // xor ebp, ebp; ret: a function does not lose its caller's registers.
    assert_eq!(rule(&[0x31, 0xed, 0xc3], 0, false), Err(NoRule::Disagreement));
}

#[test]
fn what_ends_in_anything_but_a_return_says_nothing() {
    for end in [&[0x0f, 0x0b][..], &[0xcc], &[0xf4], &[0xff, 0xe0], &[0xeb, 0xfe], &[]] {
        assert_eq!(rule(end, 0, false), Err(NoRule::NoReturn), "{end:x?}");
    }
}

/// GCC lets the default of a `switch` be the beginning of whatever comes next, if no value leads there: in Python's
/// `bytearray_richcompare` that was another function's code, of another depth.
///
/// The table can be the last that can be read: eight bytes were asked for where an entry has four.
#[test]
fn a_switch_is_followed_to_its_first_case() {
    #[rustfmt::skip]
    let code = [
        0x77, 0x10,                               //  0  ja 18
        0x48, 0x8d, 0x0d, 0x0f, 0x00, 0x00, 0x00, //  2  lea rcx, [rip + 15]: the table
        0x48, 0x63, 0x04, 0x91,                   //  9  movsxd rax, dword [rcx + rdx * 4]
        0x48, 0x01, 0xc8,                         // 13  add rax, rcx
        0xff, 0xe0,                               // 16  jmp rax
        0x58, 0xc3,                               // 18  pop rax; ret
        0xc3, 0x90, 0x90, 0x90,                   // 20  ret
        0xfc, 0xff, 0xff, 0xff,                   // 24  the table: 20 - 24
    ];
    assert_eq!(rule(&code, 0, false), above_stack_pointer(0, None));
}

/// The next function was taken for the rest of this one, and its return address for this one's.
#[test]
fn a_call_that_does_not_return_ends_a_way() {
    // push rax; call [rax]; and the next function: ret
    let code = [0x50, 0xff, 0x10, 0xc3];
    assert_eq!(rule(&code, 0, false), Err(NoRule::NoReturn));
    assert_eq!(rule(&code, 3, true), Err(NoRule::NoReturn));
    // As deep as the next function's rest has it, and the called function ends in a trap: push rax; call +2; pop rcx; ret; ud2
    let code = [0x50, 0xe8, 0x02, 0x00, 0x00, 0x00, 0x59, 0xc3, 0x0f, 0x0b];
    assert_eq!(rule(&code, 0, false), Err(NoRule::NoReturn));
    assert_eq!(rule(&code, 6, true), Err(NoRule::NoReturn));
    // It returns instead.
    let code = [0x50, 0xe8, 0x02, 0x00, 0x00, 0x00, 0x59, 0xc3, 0xc3];
    assert_eq!(rule(&code, 0, false), above_stack_pointer(0, None));
    assert_eq!(rule(&code, 6, true), above_stack_pointer(8, None));
}

/// Functions that call each other, and one that calls the first.
#[rustfmt::skip]
const MUTUAL: [u8; 37] = [
    0x50,                         //  0  push rax
    0x74, 0x07,                   //  1  je 10
    0xe8, 0x0a, 0x00, 0x00, 0x00, //  3  call 18
    0x59, 0xc3,                   //  8  pop rcx; ret
    0xe8, 0x02, 0x00, 0x00, 0x00, // 10  call 17
    0x59, 0xc3,                   // 15  pop rcx; ret
    0xc3,                         // 17  ret
    0x50,                         // 18  push rax
    0xe8, 0xe8, 0xff, 0xff, 0xff, // 19  call 0
    0x59, 0xc3,                   // 24  pop rcx; ret
    0x50,                         // 26  push rax
    0xe8, 0xe0, 0xff, 0xff, 0xff, // 27  call 0
    0x59, 0xc3,                   // 32  pop rcx; ret
    0x90, 0x90, 0x90,
];

/// While the function at 0 is looked into, it is supposed not to return. That the one at 18, which calls it, does not return
/// either was then remembered for good, so that what was asked first made a difference.
#[test]
fn what_is_supposed_of_a_function_that_is_looked_into_is_not_remembered_of_another() {
    for order in [[32, 8], [8, 32]] {
        let mut paths = Paths::default();
        for offset in order {
            let mut code = Bytes { start: START, bytes: &MUTUAL };
            let rule = paths.rule(&mut code, START + offset, true);
            assert_eq!(rule, above_stack_pointer(8, None), "{offset} of {order:?}");
        }
    }
}

/// Functions were looked into four deep, and that those above return was remembered.
#[test]
fn a_function_returns_only_if_the_last_one_of_a_long_chain_does() {
    const LENGTH: u64 = 12;
    // push rax; call +2, which is the next one; pop rcx; ret
    let link = [0x50, 0xe8, 0x02, 0x00, 0x00, 0x00, 0x59, 0xc3];
    let mut code = link.repeat(LENGTH as usize);
    code.push(0xc3);
    for index in 0..LENGTH {
        assert_eq!(rule(&code, index * 8 + 6, true), above_stack_pointer(8, None), "{index}");
    }
    // ud2
    code.splice(LENGTH as usize * 8.., [0x0f, 0x0b]);
    let mut paths = Paths::default();
    for index in 0..LENGTH {
        let pc = START + index * 8 + 6;
        let rule = paths.rule(&mut Bytes { start: START, bytes: &code }, pc, true);
        assert_eq!(rule, Err(NoRule::NoReturn), "{index}");
    }
}

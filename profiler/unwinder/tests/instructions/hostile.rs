//! Code that no compiler makes.

use flamewalk_unwinder::instructions::{Code, Paths};
use proptest::prelude::*;

/// Bytes at an address.
pub(crate) struct Bytes<'a> {
    pub(crate) start: u64,
    pub(crate) bytes: &'a [u8],
}

impl Code for Bytes<'_> {
    fn bytes(&mut self, address: u64) -> &[u8] {
        let offset = address.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.bytes.get(offset..)).unwrap_or(&[])
    }

    fn read_only(&mut self, address: u64, buffer: &mut [u8]) -> Option<()> {
        buffer.copy_from_slice(self.bytes(address).get(..buffer.len())?);
        Some(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_followed_to_an_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..512),
        start in prop_oneof![Just(0), Just(u64::MAX - 255), any::<u64>()],
        offset in 0..600u64,
        is_return_address: bool,
    ) {
        let mut code = Bytes { start, bytes: &bytes };
        // It ends, and says something or not.
        _ = Paths::default().rule(&mut code, start.wrapping_add(offset), is_return_address);
    }

    /// Instructions of what functions begin and end with, in any order: few bytes are code that is followed far.
    #[test]
    fn any_instructions_are_followed_to_an_end(
        chosen in proptest::collection::vec(0..INSTRUCTIONS.len(), 0..100),
        targets in proptest::collection::vec(any::<i8>(), 100),
        offset in 0..64u64,
    ) {
        let mut bytes = Vec::new();
        for (index, target) in chosen.into_iter().zip(targets) {
            bytes.extend_from_slice(INSTRUCTIONS[index]);
            // A jump.
            if INSTRUCTIONS[index].len() == 1 && matches!(INSTRUCTIONS[index][0], 0x74 | 0xeb) {
                bytes.push(target.cast_unsigned());
            }
        }
        for start in [0x1000, u64::MAX - 100] {
            let mut code = Bytes { start, bytes: &bytes };
            _ = Paths::default().rule(&mut code, start.wrapping_add(offset), false);
        }
    }
}

const INSTRUCTIONS: [&[u8]; 16] = [
    &[0x55],                                                       // push rbp
    &[0x5d],                                                       // pop rbp
    &[0x48, 0x89, 0xe5],                                           // mov rbp, rsp
    &[0x48, 0x89, 0xec],                                           // mov rsp, rbp
    &[0xc9],                                                       // leave
    &[0xc3],                                                       // ret
    &[0x48, 0x83, 0xec, 0x28],                                     // sub rsp, 0x28
    &[0x48, 0x83, 0xc4, 0x28],                                     // add rsp, 0x28
    &[0x48, 0x81, 0xec, 0xff, 0xff, 0xff, 0x7f],                   // sub rsp, 0x7fffffff
    &[0x48, 0x8d, 0x65, 0xf0],                                     // lea rsp, [rbp - 0x10]
    &[0x48, 0xb8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // mov rax, 0x7fffffffffffffff
    &[0xe8, 0xf0, 0xff, 0xff, 0xff],                               // call, a little back
    &[0xff, 0x15, 0x08, 0x00, 0x00, 0x00],                         // call [rip + 8]
    &[0xff, 0x25, 0xf8, 0xff, 0xff, 0xff],                         // jmp [rip - 8]
    &[0x74],                                                       // je
    &[0xeb],                                                       // jmp
];

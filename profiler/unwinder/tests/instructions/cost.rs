//! What rules cost.
//!
//! `FLAMEWALK_UNWIND_LIBRARIES` and `FLAMEWALK_UNWIND_CASES` are as for rules (`tables.rs`); unwind information is not needed.

use std::path::Path;
use std::time::{Duration, Instant};

use flamewalk_unwinder::instructions::{Code, NoRule, Paths};
use iced_x86::{Decoder, DecoderOptions};
use object::{Object, ObjectSection};

use crate::hostile::Bytes;
use crate::process::{Process, cases, libraries};

const START: u64 = 0x1000;
/// Of the frame's function, of those that it calls, and what can be a call before a return address.
const MOST_INSTRUCTIONS: usize = 2_000 + 20_000 + 7;

/// Code that counts how often an instruction is asked for.
struct Counted<C> {
    code: C,
    instructions: usize,
}

impl<C> Counted<C> {
    fn new(code: C) -> Self {
        Self { code, instructions: 0 }
    }
}

impl<C: Code> Code for Counted<C> {
    fn bytes(&mut self, address: u64) -> &[u8] {
        self.instructions += 1;
        self.code.bytes(address)
    }

    fn read_only(&mut self, address: u64, buffer: &mut [u8]) -> Option<()> {
        self.code.read_only(address, buffer)
    }
}

/// A rule took as long as it takes to follow all functions that are called, and those that they call, and so on.
#[test]
fn what_a_rule_costs_is_bounded() {
    const FUNCTIONS: usize = 100;
    const SIZE: usize = 902;
    // Functions that end in a trap: nop; …; ud2
    let mut code = [vec![0x90; SIZE - 2], vec![0x0f, 0x0b]].concat().repeat(FUNCTIONS);
    let caller = START + code.len() as u64;
    // The caller: push rax; and for each function: je +5; call; and behind the last call, over which no jump leads: pop rcx; ret
    code.push(0x50);
    for index in 0..FUNCTIONS {
        if index + 1 < FUNCTIONS {
            code.extend([0x74, 0x05]);
        }
        let distance = (index * SIZE) as i32 - (code.len() + 5) as i32;
        code.push(0xe8);
        code.extend(distance.to_le_bytes());
    }
    let last_return_address = START + code.len() as u64;
    code.extend([0x59, 0xc3]);
    let mut counted = Counted::new(Bytes { start: START, bytes: &code });
    let mut paths = Paths::default();
    _ = paths.rule(&mut counted, caller, false);
    assert!(counted.instructions <= MOST_INSTRUCTIONS, "{}", counted.instructions);
    // That a function was not looked into says nothing about it: the last one does not return.
    let rule = paths.rule(&mut counted, last_return_address, true);
    assert_eq!(rule, Err(NoRule::NoReturn));
}

/// All instructions of a library, and where its calls return to.
fn places(text: &[u8], address: u64) -> Vec<(u64, bool)> {
    let mut places = Vec::new();
    for instruction in Decoder::with_ip(64, text, address, DecoderOptions::NONE).iter() {
        places.push((instruction.ip(), false));
        if instruction.is_call_near() || instruction.is_call_near_indirect() {
            places.push((instruction.next_ip(), true));
        }
    }
    places
}

/// Prints mean and most of what rules of a library cost, by the first to the last address, and nothing known before.
fn measure(path: &Path, cases: usize) {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let places = places(text.data().unwrap(), text.address());
    let process = Process::load(path);
    let mut code = Counted::new(process.code());
    // Copies the library.
    code.bytes(process.base + text.address());
    let mut paths = Paths::default();
    let (mut instructions, mut times) = (Vec::new(), Vec::new());
    for (pc, is_return_address) in places.iter().step_by(places.len().div_ceil(cases)) {
        code.instructions = 0;
        let started = Instant::now();
        _ = paths.rule(&mut code, process.base + pc, *is_return_address);
        times.push(started.elapsed());
        instructions.push(code.instructions);
    }
    let count = times.len();
    instructions.sort_unstable();
    times.sort_unstable();
    let (mean, most) = (instructions.iter().sum::<usize>() / count, instructions[count - 1]);
    println!("{}: {count} rules", path.display());
    println!(
        "  instructions of a rule: {mean} (mean), {} (99.9 %), {most} (most)",
        instructions[count * 999 / 1000]
    );
    let mean = times.iter().sum::<Duration>() / count as u32;
    println!(
        "  time of a rule: {mean:.1?} (mean), {:.1?} (99.9 %), {:.1?} (most)",
        times[count * 999 / 1000],
        times[count - 1]
    );
    assert!(most <= MOST_INSTRUCTIONS, "{}: {most}", path.display());
}

#[test]
fn rules_of_libraries_cost_no_more() {
    for library in libraries() {
        measure(&library, cases(2_000));
    }
}

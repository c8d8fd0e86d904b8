//! Stacks that an attacker, or a bug, has filled: any words, any registers, any exit states. A walk must do a bounded
//! amount of work, ask for no code but that of registered functions, deliver no address that is not guest code, and
//! never panic.

use std::cell::{Cell, RefCell};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use flamewalk_handler::activation::{Activation, ExitState, Next};
use flamewalk_handler::arch::Registers;
use flamewalk_handler::arch::aarch64::Aarch64;
use flamewalk_handler::arch::x86_64::X86_64;
use flamewalk_handler::code::{CodeImage, CodeKind, CodeTable, Function, MAX_TRAMPOLINE_FRAME_SIZES};
use flamewalk_handler::host::NoHostFrames;
use flamewalk_handler::memory::{CopiedMemory, Memory};
use flamewalk_handler::record::Frame;
use flamewalk_handler::stack::{Thread, walk};
use flamewalk_handler::walk::WalkEnd;
use proptest::prelude::*;

use crate::shape::Shape;

/// Notes what is asked for.
struct Recorder<'a> {
    memory: CopiedMemory<'a>,
    asked: Rc<RefCell<Vec<usize>>>,
    codes: Rc<RefCell<Vec<Range<usize>>>>,
}

impl Memory for Recorder<'_> {
    fn part(&self, stack: Range<usize>) -> Self {
        let (asked, codes) = (Rc::clone(&self.asked), Rc::clone(&self.codes));
        Self { memory: self.memory.part(stack), asked, codes }
    }

    fn stack_word(&self, address: usize) -> Option<usize> {
        self.asked.borrow_mut().push(address);
        self.memory.stack_word(address)
    }

    fn code(&self, addresses: Range<usize>) -> &[u8] {
        self.codes.borrow_mut().push(addresses.clone());
        self.memory.code(addresses)
    }

    fn live_stack(&self) -> Range<usize> {
        self.memory.live_stack()
    }
}

/// Seeds of words, which `place` turns into words once it is known where the stack and the code are.
#[derive(Clone, Copy, Debug)]
enum Seed {
    Stack(usize, usize),
    /// A frame pointer that leads on: to a slot a little above the one that it is in.
    Up(usize),
    Code(usize, usize),
    Small(usize),
    Large(usize),
    Any(usize),
}

fn seed() -> impl Strategy<Value = Seed> {
    prop_oneof![
        2 => (any::<usize>(), prop::sample::select(&[0, 0, 0, 1, 4, 7][..])).prop_map(|(slot, off)| Seed::Stack(slot, off)),
        6 => (0usize..8).prop_map(Seed::Up),
        6 => (any::<usize>(), any::<usize>()).prop_map(|(function, offset)| Seed::Code(function, offset)),
        1 => (0usize..40).prop_map(Seed::Small),
        1 => (0usize..40).prop_map(Seed::Large),
        1 => any::<usize>().prop_map(Seed::Any),
    ]
}

struct World {
    stack_start: usize,
    length: usize,
    code_start: usize,
    functions: Vec<Function>,
}

impl World {
    fn place(&self, seed: Seed, slot: usize) -> usize {
        match seed {
            Seed::Stack(slot, off) => self.stack_start.wrapping_add(8 * (slot % (self.length + 4)) + off),
            Seed::Up(by) => self.stack_start.wrapping_add(8 * (slot + by)),
            Seed::Code(function, offset) => {
                let function = self.functions[function % self.functions.len()];
                self.code_start
                    .wrapping_add(function.start as usize + offset % (function.length as usize + 3))
            }
            Seed::Small(value) => value,
            Seed::Large(value) => usize::MAX - value,
            Seed::Any(value) => value,
        }
    }
}

/// Two images, one after the other, with a gap, whose code is of the shape of `A`'s.
fn functions<A: Shape>() -> (Vec<Function>, Vec<u8>) {
    use CodeKind::{BuiltinTrampoline, EntryTrampoline, ExitTrampoline, Guest};
    let (mut functions, mut bytes) = (vec![], vec![]);
    for (kind, frame) in [
        (Guest, 16),
        (Guest, 0),
        (EntryTrampoline, 16),
        (Guest, 32),
        (ExitTrampoline, 16),
        (BuiltinTrampoline, 0),
    ] {
        let (code, _) = A::code(frame);
        let frame_size = if kind.leaves_guest() { frame } else { 0 };
        functions.push(Function { start: bytes.len() as u32, length: code.len() as u32, kind, frame_size });
        bytes.extend(code);
        bytes.resize(bytes.len() + 5, 0xc3);
    }
    (functions, bytes)
}

fn survives<A: Shape>(
    seeds: &[Seed],
    registers: [Seed; 4],
    activations: &[[Seed; 5]],
    limit: usize,
    (stack_start, code_start): (usize, usize),
) -> usize {
    let (functions, bytes) = functions::<A>();
    let world = World { stack_start, length: seeds.len(), code_start, functions };
    let words: Vec<usize> = seeds.iter().enumerate().map(|(slot, seed)| world.place(*seed, slot)).collect();
    let activations: Vec<Next> = activations
        .iter()
        .map(|words| words.map(|seed| world.place(seed, 1)))
        .map(|[exit_fp, exit_pc, entry_fp, address, stack_start]| {
            let exit = ExitState { exit_fp, exit_pc, entry_fp };
            let attached = exit_pc % 7 != 1;
            Next::Activation(Activation { address, exit, stack_start, attached, ..crate::ACTIVATION })
        })
        .collect();
    let [pc, sp, fp, lr] = registers.map(|seed| world.place(seed, 0));
    let text = code_start..code_start.saturating_add(bytes.len());
    let images = [CodeImage::new(text.clone(), &world.functions)];
    let table = CodeTable::new(&images, 1);
    let memory = Recorder {
        memory: CopiedMemory { stack_start, words: &words, code_start, code_bytes: &bytes },
        asked: Rc::default(),
        codes: Rc::default(),
    };
    let mut frames = vec![];
    let count = 1_000 * usize::from(!activations.is_empty());
    let mut activations = activations.into_iter().cycle().take(count);
    let registers = Registers { pc, sp, fp, lr };
    // The whole stack is the thread's, or nothing of it, and it is a fiber's.
    let stack_end = stack_start.saturating_add(8 * words.len());
    let stack = if limit.is_multiple_of(2) { stack_start..stack_end } else { 8..16 };
    let thread = Thread { memory: &memory, table, stack, activations: &mut activations };
    let end = walk::<A, _>(&registers, thread, &mut NoHostFrames, limit, &mut |frame| {
        frames.push(frame);
        ControlFlow::Continue(())
    })
    .end;

    assert!(frames.len() <= limit);
    assert!(frames.len() == limit || end != WalkEnd::FrameLimit || frames.len() + 16 >= limit / 4);
    let reads_of_a_step = 3 + MAX_TRAMPOLINE_FRAME_SIZES;
    let asked = memory.asked.borrow().len();
    assert!(asked <= (2 * limit + 20) * reads_of_a_step, "{asked} reads for {limit} frames");
    for code in memory.codes.borrow().iter() {
        let of_a_function = |function: &Function| {
            code_start.saturating_add(function.start as usize) == code.start
                && code_start.saturating_add(function.end() as usize).min(text.end) == code.end
        };
        assert!(world.functions.iter().any(of_a_function), "{code:x?}");
    }
    let kind = |address: usize| table.find(address).map(|(_, found)| found.function.kind);
    for frame in &frames {
        match *frame {
            Frame::Instruction(address) => {
                assert_eq!((address, kind(address)), (pc, Some(CodeKind::Guest)));
            }
            // Between two guest functions may be padding, which no call returns to on a real stack.
            Frame::ReturnAddress(address) => {
                assert!(kind(address - 1) == Some(CodeKind::Guest) || images[0].is_surely_guest(address - 1));
            }
            Frame::HostCall(0) => {}
            Frame::HostCall(address) => assert!(kind(address).is_some_and(CodeKind::leaves_guest)),
            Frame::HostInstruction(_) | Frame::HostReturnAddress(_) | Frame::HostGap => {
                panic!("no host frames were asked for")
            }
        }
    }
    frames.len()
}

/// Where stack and code may lie: apart, at both ends of the address space, and overlapping.
const PLACES: &[(usize, usize)] = &[
    (0x7000_0000, 0x4000_0000),
    (0, 0x4000_0000),
    (16, 0x4000_0000),
    (usize::MAX - 511, 0x4000_0000),
    (usize::MAX - 1023, 8),
    (0x7000_0000, usize::MAX - 400),
    (0x7000_0000, usize::MAX - 20),
    (0x7000_0000, 0x7000_0010),
];

#[test]
fn hostile_stacks_are_survived() {
    let mut runner = proptest::test_runner::TestRunner::new(crate::cases(20_000));
    // Half of the words and registers are what a walk believes, so that walks get somewhere.
    let code =
        || (any::<usize>(), any::<usize>()).prop_map(|(function, offset)| Seed::Code(function, offset));
    let up = || (0usize..8).prop_map(Seed::Up);
    let pair = prop_oneof![(up(), code()), (seed(), seed())];
    let registers = (
        prop_oneof![code(), seed()],
        prop_oneof![3 => Just(Seed::Up(0)), 1 => seed()],
        prop_oneof![3 => up(), 1 => seed()],
        prop_oneof![code(), seed()],
    );
    let up_or_any = || prop_oneof![up(), seed()];
    // What is far up the stack passes for an activation's record.
    let far_up = prop_oneof![3 => (20usize..40).prop_map(Seed::Up), 1 => seed()];
    let start = prop_oneof![3 => Just(Seed::Up(0)), 1 => seed()];
    let activation = (up_or_any(), code(), up_or_any(), far_up, start).prop_map(
        |(exit_fp, exit_pc, entry_fp, address, start)| [exit_fp, exit_pc, entry_fp, address, start],
    );
    let cases = (
        prop::collection::vec(pair, 0..40),
        registers,
        prop::collection::vec(activation, 0..5),
        0usize..40,
        prop::sample::select(PLACES),
    );
    // Frames by architecture, to see that the stacks are not too hostile to be walked.
    let seen = [Cell::new(0), Cell::new(0)];
    let outcome = runner.run(&cases, |(pairs, (pc, sp, fp, lr), activations, limit, place)| {
        let seeds: Vec<Seed> = pairs.into_iter().flat_map(|(first, second)| [first, second]).collect();
        let registers = [pc, sp, fp, lr];
        let frames = [
            survives::<X86_64>(&seeds, registers, &activations, limit, place),
            survives::<Aarch64>(&seeds, registers, &activations, limit, place),
        ];
        seen.iter().zip(frames).for_each(|(seen, frames)| seen.set(seen.get() + frames));
        Ok(())
    });
    outcome.unwrap();
    assert!(cfg!(miri) || seen.iter().all(|seen| seen.get() > 1_000), "{seen:?}");
}

/// A frame that leads to itself, and two that lead to each other.
#[test]
fn cycles_end() {
    for cycle in [[Seed::Up(0), Seed::Code(0, 9)], [Seed::Stack(0, 0), Seed::Code(0, 9)]] {
        let seeds = [cycle, cycle].concat();
        for pc in [Seed::Code(0, 14), Seed::Small(1)] {
            survives::<X86_64>(&seeds, [pc, Seed::Up(0), Seed::Up(0), Seed::Up(0)], &[], 30, PLACES[0]);
        }
    }
}

/// Host calls that were entered without a guest function have no frames, and cost steps all the same.
#[test]
fn activations_without_frames_do_not_make_the_work_unbounded() {
    let (functions, bytes) = functions::<X86_64>();
    let code_start = 0x4000_0000;
    let images = [CodeImage::new(code_start..code_start + bytes.len(), &functions)];
    let in_entry = code_start + functions[2].start as usize + 12;
    let stack_start = 0x7000_0000;
    let count = 10_000;
    // Each: the exit trampoline's frame, which returns into the entry trampoline, and the latter's frame.
    let words: Vec<usize> =
        (0..count).flat_map(|index| [stack_start + 32 * index + 16, in_entry, 0, 0]).collect();
    let memory = Recorder {
        memory: CopiedMemory { stack_start, words: &words, code_start, code_bytes: &bytes },
        asked: Rc::default(),
        codes: Rc::default(),
    };
    let mut activations = (0..count).map(|index| {
        let exit_fp = stack_start + 32 * index;
        let exit = ExitState { exit_fp, exit_pc: in_entry, entry_fp: exit_fp + 16 };
        let address = exit_fp + 24;
        Next::Activation(Activation { address, exit, ..crate::ACTIVATION })
    });
    let registers = Registers { pc: 1, sp: stack_start, fp: 0, lr: 0 };
    let visit = &mut |_| -> ControlFlow<()> { panic!("there is no frame") };
    let thread = Thread {
        memory: &memory,
        table: CodeTable::new(&images, 1),
        stack: stack_start..stack_start + 8 * words.len(),
        activations: &mut activations,
    };
    let end = walk::<X86_64, _>(&registers, thread, &mut NoHostFrames, 24, visit).end;
    assert_eq!(end, WalkEnd::FrameLimit);
    assert!(memory.asked.borrow().len() < 1_000, "{}", memory.asked.borrow().len());
}

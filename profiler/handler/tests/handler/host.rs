//! Native host frames come where they belong, whatever the unwinder says, and change no guest frame.
//!
//! The host of these tests has frames of two words, a local and the return address:
//!
//! ```text
//!   lowest   host        local, return address into the exit trampoline      ← sp
//!            trampoline  two words, saved frame pointer, return address into the guest
//!            guest       saved frame pointer, return address into the entry trampoline
//!            trampoline  saved frame pointer of the host, return address into the host
//!   highest  host        local, return address to where the thread begins
//! ```

use std::ops::{ControlFlow, Range};

use flamewalk_handler::activation::{Activation, ExitState, Next};
use flamewalk_handler::arch::Registers;
use flamewalk_handler::arch::x86_64::X86_64;
use flamewalk_handler::code::{CodeImage, CodeKind, CodeTable, Function};
use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder, NoHostFrames};
use flamewalk_handler::memory::{CopiedMemory, Memory};
use flamewalk_handler::record::Frame;
use flamewalk_handler::stack::{Thread, walk};
use flamewalk_handler::walk::WalkEnd;
use proptest::prelude::*;

const STACK: usize = 0x7000_0000;
const CODE: usize = 0x4000_0000;
const GUEST: usize = CODE + 8;
const ENTRY: usize = CODE + 0x40;
const EXIT: usize = CODE + 0x88;
const EXIT_FRAME: u32 = 16;
const HOST: Range<usize> = 0x5000_0000..0x5000_1000;
/// Host code that is known but cannot be unwound.
const OPAQUE: usize = HOST.start + 0x800;
/// Where the thread begins.
const BEGINNING: usize = HOST.start + 0xf00;
/// Neither guest nor host.
const NOWHERE: usize = 0x6000_0000;

/// A host function, as the return address into it.
const fn host(number: usize) -> usize {
    HOST.start + 0x10 * number
}

/// Unwinds the host described above.
struct TwoWords;

impl HostUnwinder for TwoWords {
    const WANTED: bool = true;

    fn is_known(&self, frame: &HostFrame) -> bool {
        HOST.contains(&frame.registers.pc)
    }

    fn caller(&mut self, frame: &HostFrame, memory: &impl Memory) -> HostCaller {
        let Registers { pc, sp, fp, lr } = frame.registers;
        match memory.stack_word(sp + 8) {
            _ if pc == OPAQUE => HostCaller::Unknown,
            Some(BEGINNING) => HostCaller::None,
            Some(pc) => HostCaller::Frame(HostFrame {
                registers: Registers { pc, sp: sp + 16, fp, lr },
                is_return_address: true,
            }),
            None => HostCaller::Unknown,
        }
    }
}

/// A stack under construction, highest address first.
#[derive(Clone, Debug, Default)]
struct Stack {
    words: Vec<usize>,
    /// For each word whether it is the distance from the top of the stack of an address on it.
    on_stack: Vec<bool>,
    /// Distances from the top of the exit and entry frames of each activation, and of its record.
    activations: Vec<(Option<usize>, Option<usize>, usize)>,
    entry: usize,
}

impl Stack {
    fn word(mut self, word: usize) -> Self {
        self.words.push(word);
        self.on_stack.push(false);
        self
    }

    fn frame_pointer(mut self, distance: usize) -> Self {
        self.words.push(distance);
        self.on_stack.push(true);
        self
    }

    fn distance(&self) -> usize {
        8 * self.words.len()
    }

    /// A host function that returns to `caller`.
    fn host(self, caller: usize) -> Self {
        self.word(caller).word(0)
    }

    /// The host calls a guest from `caller`.
    fn enter(self, caller: usize) -> Self {
        let mut stack = self.entering().word(caller).word(0);
        stack.entry = stack.distance();
        stack.activations[0].1 = Some(stack.entry);
        stack
    }

    /// The host is about to call a guest: the record is the lowest word.
    fn entering(mut self) -> Self {
        let record = self.distance();
        self.activations.insert(0, (None, None, record));
        self
    }

    /// The guest function that was entered, in which it runs.
    fn guest(self) -> Self {
        let entry = self.entry;
        self.word(ENTRY + 8).frame_pointer(entry)
    }

    /// The guest calls the host.
    fn leave(self) -> Self {
        let guest = self.distance();
        let mut stack = self.word(GUEST).frame_pointer(guest);
        stack.activations[0].0 = Some(stack.distance());
        stack.word(0).word(0)
    }

    fn memory(&self) -> Vec<usize> {
        let top = STACK + self.distance();
        let words = self.words.iter().zip(&self.on_stack);
        words.rev().map(|(word, on_stack)| if *on_stack { top - word } else { *word }).collect()
    }

    fn walk(
        &self,
        pc: usize,
        fp: usize,
        host: &mut impl HostUnwinder,
        limit: usize,
    ) -> (Vec<Frame>, WalkEnd) {
        let function = |start: usize, kind, frame_size| Function {
            start: (start - CODE) as u32,
            length: 0x20,
            kind,
            frame_size,
        };
        let functions = [
            function(CODE, CodeKind::Guest, 0),
            function(ENTRY, CodeKind::EntryTrampoline, 0),
            function(CODE + 0x80, CodeKind::ExitTrampoline, EXIT_FRAME),
        ];
        let mut code = vec![0x90; 0x100];
        for start in [0, 0x40, 0x80] {
            code[start..start + 4].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5]);
        }
        let words = self.memory();
        let memory = CopiedMemory { stack_start: STACK, words: &words, code_start: CODE, code_bytes: &code };
        let images = [CodeImage::new(CODE..CODE + code.len(), &functions)];
        let top = STACK + self.distance();
        let mut activations = self.activations.iter().map(|(exit, entry, record)| {
            let at = |distance: &Option<usize>| distance.map_or(0, |distance| top - distance);
            let exit = ExitState { exit_fp: at(exit), exit_pc: GUEST, entry_fp: at(entry) };
            let address = top - record;
            Next::Activation(Activation { address, exit, ..crate::ACTIVATION })
        });
        let registers = Registers { pc, sp: STACK, fp, lr: 0 };
        let mut frames = Vec::new();
        let table = CodeTable::new(&images, 1);
        let thread = Thread { memory: &memory, table, stack: STACK..top, activations: &mut activations };
        let walk = walk::<X86_64, _>(&registers, thread, host, limit, &mut |frame| {
            frames.push(frame);
            ControlFlow::Continue(())
        });
        (frames, walk.end)
    }

    fn frames(&self, pc: usize) -> Vec<Frame> {
        let (frames, end) = self.walk(pc, STACK, &mut TwoWords, 99);
        assert_eq!(end, WalkEnd::EntryTrampoline);
        frames
    }
}

const CALL: Frame = Frame::HostCall(EXIT - 1);
const CALLER: Frame = Frame::ReturnAddress(GUEST);

fn at(number: usize) -> Frame {
    Frame::HostReturnAddress(host(number))
}

fn interrupted(number: usize) -> Frame {
    Frame::HostInstruction(host(number))
}

/// Host 1 calls host 2, that calls a guest, that calls host 3, that calls a guest, that calls host 4, that calls host 5.
fn nested() -> Stack {
    Stack::default()
        .host(BEGINNING)
        .host(host(1))
        .enter(host(2))
        .guest()
        .leave()
        .host(EXIT)
        .enter(host(3))
        .guest()
        .leave()
        .host(EXIT)
        .host(host(4))
}

#[test]
fn host_frames_are_between_the_segments() {
    let frames = [interrupted(5), at(4), CALL, CALLER, at(3), CALL, CALLER, at(2), at(1)];
    assert_eq!(nested().frames(host(5)), frames);
    for limit in 0..frames.len() {
        let cut = (frames[..limit].to_vec(), WalkEnd::FrameLimit);
        assert_eq!(nested().walk(host(5), 0, &mut TwoWords, limit), cut, "{limit}");
    }
    let guests: Vec<_> = frames.into_iter().filter(|frame| !frame.is_host()).collect();
    assert_eq!(nested().walk(host(5), 0, &mut NoHostFrames, 99), (guests, WalkEnd::EntryTrampoline));
}

#[test]
fn below_an_interrupted_guest() {
    let stack = Stack::default().host(BEGINNING).host(host(1)).enter(host(2)).guest();
    assert_eq!(stack.frames(GUEST), [Frame::Instruction(GUEST), at(2), at(1)]);
}

#[test]
fn below_an_interrupted_entry_trampoline() {
    let older = Stack::default().host(BEGINNING).enter(host(1)).guest().leave().host(EXIT).entering();
    let frames = [at(2), CALL, CALLER, at(1)];
    // Before and after its frame is made.
    assert_eq!(older.clone().word(host(2)).frames(ENTRY), frames);
    assert_eq!(older.clone().word(host(2)).word(0).frames(ENTRY + 1), frames);
    assert_eq!(older.word(host(2)).word(0).frames(ENTRY + 8), frames);
}

#[test]
fn without_a_guest_nothing_is_visited() {
    let stack = Stack::default().host(BEGINNING).host(host(1));
    assert_eq!(stack.frames(host(2)), []);
    assert_eq!(stack.enter(host(3)).frames(ENTRY + 8), []);
}

#[test]
fn what_cannot_be_unwound_is_a_gap() {
    let guest = Stack::default().host(BEGINNING).enter(host(1)).guest().leave();
    let with = |host_part: &[Frame]| [host_part, &[CALL, CALLER, at(1)]].concat();
    let gap = Frame::HostGap;
    // Code that cannot be unwound, that is not known, and where no code is.
    assert_eq!(guest.clone().host(EXIT).frames(OPAQUE), with(&[Frame::HostInstruction(OPAQUE), gap]));
    let stack = guest.clone().host(EXIT).host(OPAQUE);
    assert_eq!(stack.frames(host(2)), with(&[interrupted(2), Frame::HostReturnAddress(OPAQUE), gap]));
    assert_eq!(guest.clone().host(EXIT).frames(NOWHERE), with(&[gap]));
    for pc in [NOWHERE, 0, usize::MAX] {
        assert_eq!(
            guest.clone().host(EXIT).host(pc).frames(host(2)),
            with(&[interrupted(2), gap]),
            "{pc:#x}"
        );
    }
    // Guest code that is not where the store has left its guest: the guest's own, and the trampoline from elsewhere.
    for pc in [GUEST, ENTRY + 8, EXIT] {
        assert_eq!(
            guest.clone().host(EXIT).host(pc).frames(host(2)),
            with(&[interrupted(2), gap]),
            "{pc:#x}"
        );
    }
    // The thread seems to begin before the guest does, and a frame seems to lie behind it.
    assert_eq!(guest.clone().host(EXIT).host(BEGINNING).frames(host(2)), with(&[interrupted(2), gap]));
    let stack = Stack::default().host(NOWHERE).enter(host(1)).guest().leave().host(EXIT);
    assert_eq!(stack.frames(host(2)), [interrupted(2), CALL, CALLER, at(1), gap]);
}

/// Says whatever it is told to say.
#[derive(Debug)]
struct Liar {
    answers: std::vec::IntoIter<(u8, usize, usize)>,
}

impl HostUnwinder for Liar {
    const WANTED: bool = true;

    fn is_known(&self, frame: &HostFrame) -> bool {
        frame.registers.pc != NOWHERE
    }

    fn caller(&mut self, _: &HostFrame, _: &impl Memory) -> HostCaller {
        match self.answers.next() {
            Some((0, ..)) | None => HostCaller::Unknown,
            Some((1, ..)) => HostCaller::None,
            Some((_, pc, sp)) => HostCaller::Frame(HostFrame {
                registers: Registers { pc, sp, fp: pc, lr: sp },
                is_return_address: true,
            }),
        }
    }
}

#[test]
fn frames_behind_the_guest_or_further_down_are_a_gap() {
    let guest = Stack::default().host(BEGINNING).enter(host(1)).guest().leave().host(EXIT).host(host(2));
    let behind = STACK + guest.distance() - 16;
    for sp in [behind, STACK - 8, 0, usize::MAX] {
        let mut liar = Liar { answers: vec![(2, host(2), sp)].into_iter() };
        let (frames, end) = guest.walk(host(3), 0, &mut liar, 99);
        assert_eq!(end, WalkEnd::EntryTrampoline);
        // It has nothing more to say behind the guest.
        let gap = Frame::HostGap;
        assert_eq!(frames, [interrupted(3), gap, CALL, CALLER, at(1), gap], "{sp:#x}");
    }
}

proptest! {
    #![proptest_config(crate::cases(4_000))]

    #[test]
    fn no_unwinder_can_change_a_guest_frame(
        answers in prop::collection::vec(
            (
                0u8..8,
                prop_oneof![Just(EXIT), Just(GUEST), Just(NOWHERE), Just(0), HOST, any::<usize>()],
                prop_oneof![STACK..STACK + 300, any::<usize>()],
            ),
            0..40,
        ),
        limit in prop_oneof![0usize..12, Just(1_000)],
    ) {
        let mut liar = Liar { answers: answers.into_iter() };
        let (frames, end) = nested().walk(host(5), 0, &mut liar, limit);
        prop_assert!(frames.len() <= limit);
        let (guests, _) = nested().walk(host(5), 0, &mut NoHostFrames, 99);
        let found: Vec<_> = frames.iter().copied().filter(|frame| !frame.is_host()).collect();
        prop_assert_eq!(&found[..], &guests[..found.len()]);
        if end == WalkEnd::EntryTrampoline {
            prop_assert_eq!(found.len(), guests.len());
        } else {
            prop_assert_eq!((end, frames.len()), (WalkEnd::FrameLimit, limit));
        }
    }
}

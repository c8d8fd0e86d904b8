//! Why walks end: one stack for each reason.

use std::ops::ControlFlow;

use flamewalk_handler::activation::{Activation, ExitState, Next};
use flamewalk_handler::arch::x86_64::X86_64;
use flamewalk_handler::arch::{CallerLocation, Registers};
use flamewalk_handler::code::{CodeImage, CodeKind, CodeTable, Function, MAX_TRAMPOLINE_FRAME_SIZES};
use flamewalk_handler::host::NoHostFrames;
use flamewalk_handler::memory::CopiedMemory;
use flamewalk_handler::record::Frame;
use flamewalk_handler::stack::{Thread, walk};
use flamewalk_handler::walk::{Callers, WalkEnd};

const STACK: usize = 0x7000_0000;
const CODE: usize = 0x4000_0000;
const GUEST: usize = CODE;
const ENTRY: usize = CODE + 0x40;
const EXIT: usize = CODE + 0x80;
const ODD: usize = CODE + 0xc0;

/// An address in the body of a function.
const fn in_body(function: usize) -> usize {
    function + 8
}

fn table() -> [Function; 4] {
    let function =
        |start: usize, kind| Function { start: (start - CODE) as u32, length: 0x20, kind, frame_size: 0 };
    [
        function(GUEST, CodeKind::Guest),
        function(ENTRY, CodeKind::EntryTrampoline),
        function(EXIT, CodeKind::ExitTrampoline),
        function(ODD, CodeKind::Guest),
    ]
}

fn code() -> Vec<u8> {
    let mut bytes = vec![0x90; 0x100];
    for start in [GUEST, ENTRY, EXIT] {
        bytes[start - CODE..start - CODE + 4].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5]);
    }
    bytes
}

/// The frames and the end of a walk from `pc` with the frame pointer at the bottom of `words`.
fn ends(pc: usize, words: &[usize], limit: usize) -> (Vec<Frame>, WalkEnd) {
    // The entry trampoline's frame is the one before its return address.
    let entry = words.windows(2).find(|pair| pair[1] == in_body(ENTRY)).map_or(0, |pair| pair[0]);
    let exit = ExitState { entry_fp: entry, ..ExitState::default() };
    ends_in(Activation { exit, ..crate::ACTIVATION }, pc, words, limit)
}

/// As [`ends`], in an activation that is above all of the words.
fn ends_in(activation: Activation, pc: usize, words: &[usize], limit: usize) -> (Vec<Frame>, WalkEnd) {
    let (functions, bytes) = (table(), code());
    let images = [CodeImage::new(CODE..CODE + bytes.len(), &functions)];
    let memory = CopiedMemory { stack_start: STACK, words, code_start: CODE, code_bytes: &bytes };
    let registers = Registers { pc, sp: STACK, fp: STACK, lr: 0 };
    let mut frames = vec![];
    let activation = Activation { address: STACK + 0x800, ..activation };
    let thread = Thread {
        memory: &memory,
        table: CodeTable::new(&images, 1),
        stack: STACK..STACK + 0x1000,
        activations: &mut std::iter::once(Next::Activation(activation)),
    };
    let walk = walk::<X86_64, _>(&registers, thread, &mut NoHostFrames, limit, &mut |frame| {
        frames.push(frame);
        ControlFlow::Continue(())
    });
    (frames, walk.end)
}

const HERE: Frame = Frame::Instruction(in_body(GUEST));
const CALLER: Frame = Frame::ReturnAddress(in_body(GUEST));

#[test]
fn entry_trampoline() {
    let words = [STACK + 16, in_body(GUEST), STACK + 32, in_body(ENTRY), 0, 0];
    assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE, CALLER], WalkEnd::EntryTrampoline));
    assert_eq!(ends(in_body(GUEST), &words, 2), (vec![HERE, CALLER], WalkEnd::EntryTrampoline));
    assert_eq!(ends(in_body(ENTRY), &words, 9), (vec![], WalkEnd::EntryTrampoline));
    assert_eq!(ends(1, &words, 9), (vec![], WalkEnd::EntryTrampoline));
}

/// A guest that the host had entered from a host call has ended, and the host has not yet put back where the outer one was
/// left. It was looked for among the words of the host's frames, where two that were linked like guests' were taken for it.
#[test]
fn frames_of_the_host_are_not_taken_for_where_a_guest_was_left() {
    let at = |index: usize| STACK + 8 * index;
    let mut words = [0; 24];
    // Kept by the host: first a frame of its own, then the guest's.
    words[4..7].copy_from_slice(&[at(12), 0x1234, at(16)]);
    words[8..11].copy_from_slice(&[at(16), in_body(GUEST), at(20)]);
    words[13] = 0x1234;
    words[16..20].copy_from_slice(&[at(18), in_body(GUEST), at(20), in_body(ENTRY)]);
    let exit = ExitState { entry_fp: at(2), ..ExitState::default() };
    let activation = Activation { exit, entering_frame: at(4), ..crate::ACTIVATION };
    let (frames, end) = ends_in(activation, 1, &words, 9);
    assert_eq!((frames, end), (vec![Frame::HostCall(0), CALLER], WalkEnd::EntryTrampoline));
}

#[test]
fn frame_limit() {
    let words = [STACK + 16, in_body(GUEST), STACK + 32, in_body(ENTRY), 0, 0];
    assert_eq!(ends(in_body(GUEST), &words, 1), (vec![HERE], WalkEnd::FrameLimit));
    assert_eq!(ends(in_body(GUEST), &words, 0), (vec![], WalkEnd::FrameLimit));
}

#[test]
fn outside_stack() {
    for fp in [STACK + 0x100, STACK + 24, usize::MAX - 7, usize::MAX - 15] {
        let words = [fp, in_body(GUEST), 0, 0];
        assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE, CALLER], WalkEnd::OutsideStack), "{fp:#x}");
        // The entry trampoline's own frame has to be there, too.
        let words = [fp, in_body(ENTRY), 0];
        assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE], WalkEnd::OutsideStack), "{fp:#x}");
    }
    assert_eq!(ends(GUEST, &[], 9), (vec![HERE_AT_START], WalkEnd::OutsideStack));
}

const HERE_AT_START: Frame = Frame::Instruction(GUEST);

#[test]
fn misaligned() {
    for off in 1..8 {
        let words = [STACK + 16 + off, in_body(GUEST), 0, 0, 0];
        assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE, CALLER], WalkEnd::Misaligned));
    }
}

#[test]
fn no_progress() {
    // To itself, back to the one before, below the stack, and to nowhere.
    for words in [[STACK, in_body(GUEST), 0, 0], [STACK - 8, in_body(GUEST), 0, 0], [0, in_body(GUEST), 0, 0]]
    {
        assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE, CALLER], WalkEnd::NoProgress));
    }
    let words = [STACK + 16, in_body(GUEST), STACK, in_body(GUEST)];
    assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE, CALLER, CALLER], WalkEnd::NoProgress));
    let words = [STACK, in_body(ENTRY)];
    assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE], WalkEnd::NoProgress));
}

#[test]
fn unknown_code() {
    for address in [0, 1, CODE - 1, CODE, CODE + 0x30, CODE + 0x1000, usize::MAX] {
        let words = [STACK + 16, address, 0, 0];
        assert_eq!(ends(in_body(GUEST), &words, 9), (vec![HERE], WalkEnd::UnknownCode), "{address:#x}");
    }
}

#[test]
fn unknown_prologue() {
    let words = [STACK + 16, in_body(GUEST), STACK + 32, in_body(ENTRY), 0, 0];
    assert_eq!(ends(in_body(ODD), &words, 9), (vec![], WalkEnd::UnknownPrologue));
}

/// Trampolines between frames are not frames. They cost steps, so that they cannot make the work unbounded.
#[test]
fn trampolines_between_frames_count_towards_the_work() {
    let chain = |length: usize| -> Vec<usize> {
        let frames = (0..length).flat_map(|index| [STACK + 16 * (index + 1), in_body(EXIT)]);
        frames.chain([STACK + 16 * (length + 1), in_body(ENTRY), 0, 0]).collect()
    };
    assert_eq!(ends(in_body(GUEST), &chain(20), 8), (vec![HERE], WalkEnd::EntryTrampoline));
    assert_eq!(ends(in_body(GUEST), &chain(1_000), 8), (vec![HERE], WalkEnd::FrameLimit));

    let (functions, words) = (table(), chain(20));
    let images = [CodeImage::new(CODE..CODE + 0x100, &functions)];
    let memory = CopiedMemory { stack_start: STACK, words: &words, ..CopiedMemory::default() };
    for (limit, end) in [(0, WalkEnd::FrameLimit), (20, WalkEnd::FrameLimit), (21, WalkEnd::EntryTrampoline)]
    {
        let location = CallerLocation::Frame { fp: STACK };
        let mut callers =
            Callers::<X86_64, _>::new(&memory, CodeTable::new(&images, 1), location, STACK, limit);
        assert_eq!((callers.next(), callers.end()), (None, Some(end)));
        assert_eq!(callers.steps_left(), 0);
        let entry_fp = STACK + 16 * 21;
        assert_eq!(callers.entry_fp(), (end == WalkEnd::EntryTrampoline).then_some(entry_fp));
    }
}

/// With a frame size missing, the word of an older call could name the wrong host function.
#[test]
fn too_many_trampoline_frame_sizes_are_none() {
    let functions = |count: u32| -> Vec<Function> {
        let size = |index| Function {
            start: 16 * index,
            length: 16,
            kind: CodeKind::ExitTrampoline,
            frame_size: 16 * index,
        };
        (0..count).map(size).collect()
    };
    let most = MAX_TRAMPOLINE_FRAME_SIZES as u32;
    let sizes =
        |count| CodeImage::new(CODE..CODE + 0x1000, &functions(count)).trampoline_frame_sizes().to_vec();
    assert_eq!(sizes(most), (0..most).map(|index| 16 * index).collect::<Vec<_>>());
    assert_eq!(sizes(most + 1), []);
}

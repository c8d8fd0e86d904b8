//! The caller of an interrupted function on x86-64, at every instruction boundary of the prologues, bodies,
//! epilogues and tail calls that Cranelift and Winch emit, against a processor that runs them.

use flamewalk_handler::arch::x86_64::X86_64;
use flamewalk_handler::arch::{Architecture, CallerLocation, Registers};
use iced_x86::Register;

use crate::x86_assembler::{Assembler, Gpr, R10, R11, RAX, RBP, RBX, RDI, RSP};
use crate::x86_interpreter::{Processor, Step};

const CODE: usize = 0x7f12_3456_7000;
const SP: usize = 0x7ffe_0001_0008;
const CALLER: usize = 0x7f12_3400_1234;
const CALLER_FP: usize = 0x7ffe_0001_0040;

/// How a function ends.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Return,
    /// A tail call whose callee takes `arguments` bytes on the stack; the return address travels in `through`.
    TailCall {
        arguments: usize,
        through: Gpr,
        to: Callee,
    },
}

#[derive(Clone, Copy, Debug)]
enum Callee {
    Before,
    Behind,
    Itself,
    InRegister(Gpr),
}

/// A function as Cranelift lays it out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    endbr: bool,
    /// Stack arguments of the function, and the most that its tail calls need, in bytes.
    incoming: usize,
    tail: usize,
    frame: usize,
    probes: Probes,
    exit: Exit,
}

#[derive(Clone, Copy, Debug)]
enum Probes {
    None,
    Unrolled(usize),
    Loop(usize),
}

const PAGE: i32 = 4096;

/// What Cranelift's `gen_prologue`, `gen_epilogue` and `emit_return_call_common_sequence` emit, with a body between
/// that resembles a tail call as far as a body can.
fn cranelift(layout: &Layout) -> Vec<u8> {
    let mut code = Assembler::default();
    let trap = code.label();
    if layout.endbr {
        code.bytes(&[0xf3, 0x0f, 0x1e, 0xfa]);
    }
    code.push(RBP);
    code.mov(RBP, RSP);
    stack_check(&mut code, layout.frame, trap);
    match layout.probes {
        Probes::None => {}
        Probes::Unrolled(count) => {
            for _ in 0..count {
                code.sub(RSP, PAGE);
                code.bytes(&[0xc7, 0x04, 0x24, 0, 0, 0, 0]);
            }
            code.add(RSP, PAGE * count as i32);
        }
        Probes::Loop(count) => {
            code.mov(R11, RSP);
            code.sub(R11, PAGE * count as i32);
            let again = code.label();
            code.bind(again);
            code.sub(RSP, PAGE);
            code.bytes(&[0xc7, 0x04, 0x24, 0, 0, 0, 0]);
            code.cmp(RSP, R11);
            code.jne(again);
            code.add(RSP, PAGE * count as i32);
        }
    }
    let grown = layout.tail.saturating_sub(layout.incoming) as i32;
    if grown > 0 {
        code.sub(RSP, grown);
        code.mov(RBP, RSP);
        code.load(R11, RSP, grown);
        code.store(RSP, 0, R11);
        code.load(R11, RSP, grown + 8);
        code.store(RSP, 8, R11);
    }
    let clobbers = [RBX, Gpr(12), Gpr(15)];
    let frame = (layout.frame + 8 * clobbers.len()) as i32;
    code.sub(RSP, frame);
    for (index, register) in clobbers.into_iter().enumerate() {
        code.store(RSP, layout.frame as i32 + 8 * index as i32, register);
    }

    body(&mut code);
    if let Exit::TailCall { to: Callee::InRegister(register), .. } = layout.exit {
        code.mov_immediate(register, 0x1_0000);
    }

    for (index, register) in clobbers.into_iter().enumerate() {
        code.load(register, RSP, layout.frame as i32 + 8 * index as i32);
    }
    code.add(RSP, frame);
    code.mov(RSP, RBP);
    code.pop(RBP);
    let arguments = layout.tail.max(layout.incoming);
    match layout.exit {
        Exit::Return => code.ret(arguments as u16),
        Exit::TailCall { arguments: new, through, to } => {
            let up = (arguments - new) as i32;
            if up > 0 {
                code.load(through, RSP, 0);
                code.store(RSP, up, through);
                code.add(RSP, up);
            }
            match to {
                Callee::Before => code.jmp_offset(-0x1000),
                Callee::Behind => code.jmp_offset(0x10_0000),
                Callee::Itself => code.jmp_offset(0),
                Callee::InRegister(register) => code.jmp_register(register),
            }
        }
    }
    code.bind(trap);
    code.bytes(&[0x0f, 0x0b]);
    code.finish()
}

fn stack_check(code: &mut Assembler, frame: usize, trap: crate::x86_assembler::Label) {
    code.load(R10, RDI, 8);
    code.load(R10, R10, 0x18);
    if frame >= 32 * 1024 {
        code.cmp(R10, RSP);
        code.ja(trap);
    }
    code.add(R10, frame as i32 + 16);
    code.cmp(R10, RSP);
    code.ja(trap);
}

/// Calls, branches and moves on the stack, with bytes in them that look like the end of a frame.
fn body(code: &mut Assembler) {
    code.call(RAX);
    // Immediates that end in `mov rsp, rbp; pop rbp`, and in a return.
    let looks_like_leave = [0x48, 0xb8, 1, 2, 3, 4, 0x48, 0x89, 0xec, 0x5d];
    let next = code.label();
    code.bytes(&looks_like_leave);
    code.jmp(next);
    code.bytes(&[0xcc; 3]);
    code.bind(next);
    // Winch moves the results of a block up the stack, and takes the rest of the stack down, before it branches.
    for (d, through) in [(8, R11), (16, R11), (0x100, RAX)] {
        let next = code.label();
        code.sub(RSP, 0x400);
        code.bytes(&looks_like_leave);
        code.load(through, RSP, 0);
        code.store(RSP, d, through);
        code.add(RSP, d);
        code.jmp(next);
        code.bytes(&[0xcc; 5]);
        code.bind(next);
        code.add(RSP, 0x400 - d);
    }
    // A jump table for each pair of registers that changes the encoding.
    for (index, base, entry) in [(RAX, R11, RAX), (Gpr(9), RBX, Gpr(13)), (RDI, Gpr(13), RDI)] {
        let targets = [code.label(), code.label(), code.label()];
        code.mov_immediate(index, 1);
        code.jump_table(index, base, entry, &targets);
        for target in targets {
            code.bind(target);
            code.bytes(&looks_like_leave);
        }
    }
    // Not the move of a frame: `rbp` stays.
    code.sub(RSP, 32);
    code.load(R11, RSP, 16);
    code.store(RSP, 0, R11);
    code.load(R11, RSP, 24);
    code.store(RSP, 8, R11);
    code.add(RSP, 32);
}

/// What Winch's `prologue` and `epilogue` emit.
fn winch(frame: usize) -> Vec<u8> {
    let mut code = Assembler::default();
    let trap = code.label();
    code.push(RBP);
    code.mov(RBP, RSP);
    code.load(R11, RDI, 8);
    code.load(R11, R11, 0x10);
    // Patched later, so that the immediate is always a long one.
    code.bytes(&[0x49, 0x81, 0xc3]);
    code.bytes(&(frame as u32).to_le_bytes());
    code.cmp(R11, RSP);
    code.ja(trap);
    code.sub(RSP, frame as i32);
    // Values that live on the stack are pushed and popped, into registers that share a byte with `pop rbp`, too.
    code.push(Gpr(13));
    code.pop(Gpr(13));
    let next = code.label();
    code.push(RAX);
    code.pop(Gpr(13));
    code.jmp(next);
    code.bind(next);
    body(&mut code);
    code.add(RSP, frame as i32);
    code.pop(RBP);
    code.ret(0);
    code.bind(trap);
    code.bytes(&[0x0f, 0x0b]);
    code.finish()
}

/// Runs the function from its first byte until it is left, and compares at every boundary. Returns how many
/// boundaries there were.
fn check(code: &[u8], what: &dyn std::fmt::Debug) -> usize {
    let mut processor = Processor::new(CODE, code, SP, CALLER_FP);
    processor.stack.insert(SP, CALLER);
    for boundary in 1.. {
        let sp = processor.register(Register::RSP);
        // Nothing below the stack pointer may be relied on: a signal handler can run there.
        processor.stack.retain(|address, _| *address >= sp);
        let fp = processor.register(Register::RBP);
        let registers = Registers { pc: processor.pc, sp, fp, lr: 0 };
        let location = X86_64::caller(&registers, CODE, code);
        let word = |address: usize| processor.stack.get(&address).copied();
        let found = match location {
            Some(CallerLocation::Frame { fp }) => (word(fp + 8), word(fp)),
            Some(CallerLocation::ReturnAddressAt { address }) => (word(address), Some(fp)),
            _ => (None, None),
        };
        let at = processor.pc - CODE;
        assert_eq!(
            found,
            (Some(CALLER), Some(CALLER_FP)),
            "offset {at:#x} of {code:02x?}: {location:?}\n{what:?}"
        );
        let before = processor.pc;
        if processor.step() == Step::Left {
            let returned = matches!(code.get(before - CODE), Some(0xc3 | 0xc2));
            let sp = processor.register(Register::RSP);
            let arrived = if returned { Some(processor.pc) } else { processor.stack.get(&sp).copied() };
            assert_eq!(arrived, Some(CALLER), "{what:?}");
            assert_eq!(processor.register(Register::RBP), CALLER_FP, "{what:?}");
            return boundary;
        }
    }
    unreachable!()
}

fn tail_calls() -> Vec<Exit> {
    let mut exits = vec![];
    for arguments in [0, 16, 112, 128, 144, 0x1000] {
        for through in [RAX, R11, Gpr(14), RBX] {
            for to in [
                Callee::Before,
                Callee::Behind,
                Callee::Itself,
                Callee::InRegister(R10),
                Callee::InRegister(RAX),
            ] {
                if !matches!(to, Callee::InRegister(register) if register == through) {
                    exits.push(Exit::TailCall { arguments, through, to });
                }
            }
        }
    }
    exits
}

#[test]
#[cfg_attr(miri, ignore = "Miri refuses the decoder that the processor uses")]
fn cranelift_functions_at_every_boundary() {
    let mut exits = tail_calls();
    exits.push(Exit::Return);
    let sizes = [0, 16, 112, 120, 128, 0x1000];
    let frames = [
        (0, Probes::None),
        (0x78, Probes::None),
        (0x1000, Probes::Unrolled(1)),
        (0x4800, Probes::Unrolled(4)),
        (0x9000, Probes::Loop(9)),
    ];
    let mut boundaries = 0;
    for exit in exits {
        for incoming in sizes {
            for tail in sizes {
                let needed = match exit {
                    Exit::Return => 0,
                    Exit::TailCall { arguments, .. } => arguments,
                };
                let tail = tail.max(needed);
                for (index, (frame, probes)) in frames.into_iter().enumerate() {
                    let layout = Layout { endbr: index == 1, incoming, tail, frame, probes, exit };
                    boundaries += check(&cranelift(&layout), &layout);
                }
            }
        }
    }
    assert!(boundaries > 500_000, "{boundaries} boundaries");
}

#[test]
#[cfg_attr(miri, ignore = "Miri refuses the decoder that the processor uses")]
fn winch_functions_at_every_boundary() {
    for frame in [8, 0x78, 0x80, 0x1000] {
        assert!(check(&winch(frame), &frame) > 50);
    }
}

/// Winch moves a block's result up the stack, takes the stack down and branches: the same instructions as in a tail
/// call, except for where they jump. With a `5d` byte in front of them the walk took the frame for gone, and lost
/// the caller.
#[test]
#[cfg_attr(miri, ignore = "Miri refuses the decoder that the processor uses")]
fn a_block_result_moved_on_the_stack_is_not_a_tail_call() {
    let mut code = Assembler::default();
    code.push(RBP);
    code.mov(RBP, RSP);
    code.sub(RSP, 32);
    code.add(RAX, 0x5d);
    let moves = code.code.len();
    code.load(R11, RSP, 0);
    code.store(RSP, 8, R11);
    code.add(RSP, 8);
    let next = code.label();
    code.jmp(next);
    code.bytes(&[0xcc; 2]);
    code.bind(next);
    code.add(RSP, 24);
    code.pop(RBP);
    code.ret(0);
    let code = code.finish();
    let registers = Registers { pc: CODE + moves, sp: SP - 40, fp: SP - 8, lr: 0 };
    assert_eq!(X86_64::caller(&registers, CODE, &code), Some(CallerLocation::Frame { fp: SP - 8 }));
    check(&code, &"a block's result");
}

/// A walk through a function with another prologue would be wrong somewhere: it has to be refused.
#[test]
fn an_unknown_prologue_is_refused() {
    for code in
        [&[][..], &[0x55], &[0x55, 0x48, 0x89], &[0x55, 0x48, 0x89, 0xe7], &[0x48, 0x89, 0xe5, 0x55], &[0xc3]]
    {
        for at in 0..8 {
            let registers = Registers { pc: CODE + at, sp: SP, fp: SP, lr: 0 };
            assert_eq!(X86_64::caller(&registers, CODE, code), None, "{code:02x?}");
        }
    }
}

#[test]
fn frame_sizes_of_trampolines() {
    let size = |frame: i32| {
        let mut code = Assembler::default();
        code.push(RBP);
        code.mov(RBP, RSP);
        code.sub(RSP, frame);
        X86_64::frame_size(&code.finish())
    };
    assert_eq!([0x10, 0x78, 0x80, 0x1_0000].map(size), [Some(0x10), Some(0x78), Some(0x80), Some(0x1_0000)]);
    assert_eq!(X86_64::frame_size(&[0x55, 0x48, 0x89, 0xe5, 0xc3]), Some(0));
    // A frame of several pages is probed first: the first `sub` is not the frame.
    assert_eq!(X86_64::frame_size(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0xc7, 0x04, 0x24]), None);
    assert_eq!(X86_64::frame_size(&[0x55, 0x48, 0x89, 0xe5, 0x49, 0x89, 0xe3, 0x48, 0x83, 0xec, 0x10]), None);
    assert_eq!(
        X86_64::frame_size(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x80]),
        None,
        "a negative size"
    );
    assert_eq!(X86_64::frame_size(&[]), None);
}

proptest::proptest! {
    #![proptest_config(crate::cases(20_000))]

    /// Any bytes and any registers give an answer, whatever it is.
    #[test]
    fn any_bytes_give_an_answer(
        prologue in proptest::bool::ANY,
        bytes in proptest::collection::vec(proptest::sample::select(INTERESTING), 0..60),
        at in 0usize..80,
        sp in proptest::num::usize::ANY,
        fp in proptest::num::usize::ANY,
        start in proptest::sample::select(&[0, CODE, usize::MAX - 70, usize::MAX][..]),
    ) {
        let mut code = if prologue { vec![0x55, 0x48, 0x89, 0xe5] } else { vec![] };
        code.extend(bytes);
        for sp in [sp, 0, usize::MAX, usize::MAX - 7] {
            let registers = Registers { pc: start.wrapping_add(at), sp, fp, lr: 0 };
            let location = X86_64::caller(&registers, start, &code);
            proptest::prop_assert!(prologue || code.len() >= 4 || location.is_none());
        }
        X86_64::frame_size(&code);
    }
}

/// The bytes of the instructions that the decoder knows.
const INTERESTING: &[u8] = &[
    0x48, 0x4c, 0x41, 0x55, 0x5d, 0x81, 0x83, 0x89, 0x8b, 0xc2, 0xc3, 0xc4, 0xe0, 0xe5, 0xe9, 0xec, 0xff,
    0x24, 0x04, 0x44, 0x5c, 0x9c, 0x08, 0x10, 0x00, 0x7f, 0x80,
];

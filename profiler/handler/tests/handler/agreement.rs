//! Walks agree with the shadow stack of a synthetic thread, at every step, whatever it does.

use std::ops::{ControlFlow, Range};

use flamewalk_handler::arch::aarch64::Aarch64;
use flamewalk_handler::arch::x86_64::X86_64;
use flamewalk_handler::code::CodeTable;
use flamewalk_handler::host::NoHostFrames;
use flamewalk_handler::memory::{CopiedMemory, LiveStack, Memory};
use flamewalk_handler::record::Frame;
use flamewalk_handler::stack::{Thread, walk};
use flamewalk_handler::walk::WalkEnd;
use proptest::prelude::*;

use crate::machine::{Action, Machine, Program};
use crate::shape::Shape;

const STACK_WORDS: usize = 1024;

fn walk_machine<A: Shape, M: Memory>(
    machine: &Machine<'_, A>,
    memory: &M,
    table: CodeTable<'_>,
    stack: Range<usize>,
    limit: usize,
) -> (Vec<Frame>, WalkEnd) {
    let mut frames = vec![];
    let thread = Thread { memory, table, stack, activations: &mut machine.activations() };
    let walk = walk::<A, M>(&machine.registers, thread, &mut NoHostFrames, limit, &mut |frame| {
        frames.push(frame);
        ControlFlow::Continue(())
    });
    assert!(walk.store != 0 || frames.is_empty());
    (frames, walk.end)
}

/// How much the machines of a test have shown, so that a test cannot pass on empty stacks.
#[derive(Default)]
struct Seen {
    checks: usize,
    frames: usize,
    host_calls: usize,
    named_host_calls: usize,
    segments_below: usize,
    cut: usize,
    unclear: usize,
}

fn check<A: Shape>(machine: &Machine<'_, A>, table: CodeTable<'_>, limit: usize, seen: &mut Seen) {
    let truth = machine.truth(table);
    let first = (machine.registers.sp - machine.base).div_ceil(8);
    let words: Vec<usize> =
        machine.words[first..].iter().map(|word| word.load(std::sync::atomic::Ordering::Relaxed)).collect();
    let copied = CopiedMemory {
        stack_start: machine.base + 8 * first,
        words: &words,
        code_start: machine.program.bytes.as_ptr().addr(),
        code_bytes: &machine.program.bytes,
    };
    let bounds = machine.base..machine.base + 8 * machine.words.len();
    // SAFETY: the machine's words and code outlive the walk, and only this thread changes them.
    let live = unsafe { LiveStack::new() };

    let whole = (truth.clone(), WalkEnd::EntryTrampoline);
    let walk = |limit| walk_machine(machine, &live, table, bounds.clone(), limit);
    assert_eq!(
        walk_machine(machine, &copied, table, bounds.clone(), 1024),
        whole,
        "{:x?}",
        machine.registers
    );
    assert_eq!(walk(truth.len()), whole, "{:x?}", machine.registers);
    if limit < truth.len() {
        assert_eq!(walk(limit), (truth[..limit].to_vec(), WalkEnd::FrameLimit));
        seen.cut += 1;
    }
    // As a fiber: nothing is known of the stack but what activations say, and of older segments not the trampoline. Where
    // that does not tell whether an older guest's exit is the one that the store holds, nothing is shown.
    let (mut frames, end) = walk_machine(machine, &live, table, 8..16, truth.len());
    if end.is_sound() {
        assert_eq!(frames.len(), truth.len());
        for (found, expected) in frames.iter_mut().zip(&truth) {
            if *found == Frame::HostCall(0) && matches!(expected, Frame::HostCall(_)) {
                *found = *expected;
            }
        }
        assert_eq!((frames, end), whole, "on a fiber, {:x?}", machine.registers);
    } else {
        seen.unclear += 1;
    }
    seen.checks += 1;
    seen.frames += truth.len();
    seen.host_calls += truth.iter().filter(|frame| matches!(frame, Frame::HostCall(_))).count();
    let named = |frame: &&Frame| matches!(frame, Frame::HostCall(1..) if **frame != Frame::HostCall(machine.registers.pc));
    seen.named_host_calls += truth.iter().filter(named).count();
    seen.segments_below += usize::from(truth.iter().skip(1).any(|frame| matches!(frame, Frame::HostCall(_))));
}

fn agrees<A: Shape>() {
    let mut seen = Seen::default();
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        crate::cases(300),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let actions = prop::collection::vec((any::<u8>(), any::<u32>()), 0..if cfg!(miri) { 25 } else { 250 });
    let program = Program::new::<A>();
    let seen_so_far = std::cell::RefCell::new(&mut seen);
    runner
        .run(&(actions, any::<usize>(), 0usize..20), |(actions, seed, limit)| {
            let images = program.images();
            let table = CodeTable::new(&images, 1);
            let mut machine = Machine::<A>::new(&program, STACK_WORDS, seed);
            for (what, choice) in actions {
                let action = Action { what, choice: choice as usize };
                machine
                    .act(action, &mut |machine| check(machine, table, limit, &mut seen_so_far.borrow_mut()));
            }
            Ok(())
        })
        .unwrap();
    if !cfg!(miri) {
        assert!(seen.checks > 50_000 && seen.frames > 200_000, "{} {}", seen.checks, seen.frames);
        assert!(seen.host_calls > 10_000 && seen.segments_below > 10_000 && seen.cut > 10_000);
        assert!(seen.unclear < seen.checks / 10, "{}", seen.unclear);
        assert_eq!(seen.named_host_calls > 10_000, A::CALL_PUSHES_RETURN_ADDRESS);
    }
}

#[test]
fn x86_64_agrees_with_the_shadow_stack() {
    agrees::<X86_64>();
}

#[test]
fn aarch64_agrees_with_the_shadow_stack() {
    agrees::<Aarch64>();
}

/// The regression: a store's context still holds, or holds again, the exit of an older activation, while a younger
/// one of the same store has just begun or was unwound by a panic. The older segment was taken for the younger
/// one's, and the segments of other stores between the two were skipped.
#[test]
fn a_panic_below_another_store_does_not_hide_that_store() {
    let program = Program::new::<X86_64>();
    let images = program.images();
    let table = CodeTable::new(&images, 1);
    let mut machine = Machine::<X86_64>::new(&program, STACK_WORDS, 1);
    let (enter_a, enter_b, call, leave_by_panic) = ((0, 0), (0, 1), (0, 0), (5, 1));
    let (trampoline, host) = ((4, 0), (0, 0));
    let into_host = [call, trampoline, host];
    let mut actions = vec![];
    for enter in [enter_a, enter_b, enter_a, enter_a] {
        actions.push(enter);
        actions.extend(into_host);
    }
    actions.push(leave_by_panic);
    let mut most = 0;
    for (what, choice) in actions {
        machine.act(Action { what, choice }, &mut |machine| {
            check(machine, table, 3, &mut Seen::default());
            most = most.max(machine.truth(table).len());
        });
    }
    assert_eq!((most, machine.truth(table).len()), (8, 4));
}

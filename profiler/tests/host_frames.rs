//! Native host frames: one stack reads host → guest → host, with the names and lines of this file's own functions.
//!
//! A guest calls into this file, where all of the time is spent, so that every sample has the same guest frames.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flamewalk::profile::{Frame, FrameKind, Profile};
use flamewalk::{Guest, Options, Profiler};
use wasmtime::{Caller, Engine, Linker, Module, Store};

/// Counts the allocations of each thread, those of its signal handlers included.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What was allocated while the CPU was burnt, by the handler then.
static ALLOCATIONS_IN_HANDLERS: AtomicU64 = AtomicU64::new(0);

/// There is one profiler in a process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const GUEST: &str = r#"
    (module
        (import "host" "burn" (func $burn))
        (import "host" "again" (func $again))
        (import "host" "through_a_gap" (func $through_a_gap))
        (func $direct (export "direct") call $burn)
        (func $reenter (export "reenter") call $again)
        (func $through (export "through_a_gap") call $through_a_gap))
"#;

const BURN_FROM: u32 = line!();
/// Burns CPU for some hundred milliseconds.
#[inline(never)]
fn inner_host() -> u64 {
    let before = ALLOCATIONS.get();
    let mut state = black_box(1);
    for _ in 0..100_000_000u32 {
        state = step(state);
    }
    ALLOCATIONS_IN_HANDLERS.fetch_add(ALLOCATIONS.get() - before, Ordering::Relaxed);
    black_box(state)
}

/// Part of `inner_host`, which has no frame of its own.
#[inline(always)]
fn step(state: u64) -> u64 {
    (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
const BURN_TO: u32 = line!();

extern "C" fn inner_host_for_assembly() {
    black_box(inner_host());
}

std::arch::global_asm!(
    ".pushsection .text.without_unwind_information,\"ax\",@progbits",
    ".balign 16",
    ".globl without_unwind_information",
    ".hidden without_unwind_information",
    ".type without_unwind_information,@function",
    "without_unwind_information:",
    "sub rsp, 8",
    "call rdi",
    "add rsp, 8",
    "ret",
    ".size without_unwind_information, . - without_unwind_information",
    ".popsection",
);

unsafe extern "C" {
    /// Calls a function from code that nothing tells how to unwind.
    fn without_unwind_information(function: extern "C" fn());
}

/// Enters the guest.
#[inline(never)]
fn outer_host(store: &mut Store<()>, function: &wasmtime::TypedFunc<(), ()>) -> u32 {
    let line = line!() + 1;
    function.call(&mut *store, ()).unwrap();
    black_box(line)
}

/// Runs an export of the guest and profiles it; returns the line on which the host has called it, too.
fn profile(export: &str, host_frames: bool, frame_limit: usize) -> (Profile, u32) {
    let engine = Engine::default();
    let module = Module::new(&engine, GUEST).unwrap();
    let mut linker = Linker::new(&engine);
    linker
        .func_wrap("host", "burn", || {
            black_box(inner_host());
        })
        .unwrap()
        .func_wrap("host", "again", |mut caller: Caller<'_, ()>| {
            let direct = caller.get_export("direct").unwrap().into_func().unwrap();
            direct.typed::<(), ()>(&caller).unwrap().call(&mut caller, ()).unwrap();
        })
        .unwrap()
        .func_wrap("host", "through_a_gap", || {
            // SAFETY: it does nothing but call the function.
            unsafe { without_unwind_information(inner_host_for_assembly) };
        })
        .unwrap();
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &module).unwrap();
    let function = instance.get_typed_func::<(), ()>(&mut store, export).unwrap();

    let mut options = Options::default();
    options.rate = 1999;
    options.host_frames = host_frames;
    options.frame_limit = frame_limit;
    let profiler = Profiler::new(options).unwrap();
    profiler.register_module(&module, Guest::named("guest").binary(wat::parse_str(GUEST).unwrap())).unwrap();
    profiler.attach(&mut store).unwrap();
    profiler.start().unwrap();
    let line = outer_host(&mut store, &function);
    // This is no guest's.
    black_box(inner_host());
    (profiler.stop(Default::default()).unwrap(), line)
}

/// The stacks with what fell on them, oldest frame first.
fn stacks(profile: &Profile) -> Vec<(Vec<Frame>, u64)> {
    let frames = |stack: &[_]| stack.iter().map(|id| profile.frame(*id).clone()).collect();
    profile.stacks().map(|stack| (frames(stack.frames), stack.tally.samples)).collect()
}

/// Those that lead to `inner_host`: nearly all, and enough for the handler to have been busy.
fn burning(profile: &Profile) -> Vec<Vec<Frame>> {
    let all = stacks(profile);
    let total: u64 = all.iter().map(|(_, samples)| samples).sum();
    let burning: Vec<_> =
        all.into_iter().filter(|(stack, _)| stack.iter().any(|frame| is(frame, "inner_host"))).collect();
    let samples: u64 = burning.iter().map(|(_, samples)| samples).sum();
    assert!(samples > 50 && samples * 10 > total * 9, "{samples} of {total}");
    burning.into_iter().map(|(stack, _)| stack).collect()
}

fn is(frame: &Frame, function: &str) -> bool {
    frame.kind == FrameKind::Host && frame.name.strip_prefix("host_frames::") == Some(function)
}

/// Each kind once for as many frames as follow each other.
fn kinds(stack: &[Frame]) -> Vec<FrameKind> {
    let mut kinds: Vec<_> = stack.iter().map(|frame| frame.kind).collect();
    kinds.dedup();
    kinds
}

fn without_host_frames(stack: &[Frame]) -> Vec<Frame> {
    stack.iter().filter(|frame| frame.kind != FrameKind::Host).cloned().collect()
}

fn has_gap(stack: &[Frame]) -> bool {
    stack.iter().any(|frame| &*frame.name == "(missing host frames)")
}

fn lock() -> impl Sized {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn one_stack_reads_host_guest_host() {
    let _one = lock();
    ALLOCATIONS_IN_HANDLERS.store(0, Ordering::Relaxed);
    let (profile, line) = profile("direct", true, 1024);
    for stack in burning(&profile) {
        use FrameKind::{Guest, Host, HostCall};
        assert_eq!(kinds(&stack), [Host, Guest, HostCall, Host], "{stack:#?}");
        assert!(!has_gap(&stack), "{stack:#?}");

        // Below the guest: from where the thread begins to the call.
        let below = &stack[..stack.iter().position(|frame| frame.kind == Guest).unwrap()];
        let outer = below.iter().find(|frame| is(frame, "outer_host")).unwrap();
        let location = outer.location.as_ref().unwrap();
        assert!(location.file.ends_with("profiler/tests/host_frames.rs"), "{location:?}");
        assert_eq!(location.line, line);
        assert!(!outer.inlined);
        assert!(
            below[0].module.as_deref().is_some_and(|module| module.starts_with("libc.so")),
            "{:?}",
            below[0]
        );

        // In the host call: from the import's implementation to the loop.
        let call = stack.iter().position(|frame| frame.kind == HostCall).unwrap();
        let inner = stack[call..].iter().position(|frame| is(frame, "inner_host")).unwrap() + call;
        let inside = stack[inner].location.as_ref().unwrap();
        assert!((BURN_FROM..BURN_TO).contains(&inside.line), "{inside:?}");
        for frame in &stack[inner + 1..] {
            assert!(frame.inlined, "{frame:?}");
        }
    }
    // Tables of lines name inlined functions without their path.
    let inlined = |stack: &Vec<Frame>| stack.iter().any(|frame| &*frame.name == "step" && frame.inlined);
    assert!(burning(&profile).iter().any(inlined));
    assert_eq!(ALLOCATIONS_IN_HANDLERS.load(Ordering::Relaxed), 0);
}

#[test]
fn guests_that_are_entered_again_have_host_frames_between_them() {
    let _one = lock();
    let (profile, _) = profile("reenter", true, 1024);
    for stack in burning(&profile) {
        use FrameKind::{Guest, Host, HostCall};
        assert_eq!(kinds(&stack), [Host, Guest, HostCall, Host, Guest, HostCall, Host], "{stack:#?}");
        assert!(!has_gap(&stack), "{stack:#?}");
        let guests: Vec<_> =
            stack.iter().filter(|frame| frame.kind == Guest).map(|frame| &*frame.name).collect();
        assert_eq!(guests, ["reenter", "direct"]);
    }
}

#[test]
fn guest_frames_are_the_same_without_host_frames() {
    let _one = lock();
    for export in ["direct", "reenter", "through_a_gap"] {
        let (with, without) = (profile(export, true, 1024).0, profile(export, false, 1024).0);
        let without = stacks(&without);
        assert!(without.iter().all(|(stack, _)| stack.iter().all(|frame| frame.kind != FrameKind::Host)));
        let (most, _) = without.into_iter().max_by_key(|(_, samples)| *samples).unwrap();
        let same: BTreeSet<bool> =
            burning(&with).iter().map(|stack| without_host_frames(stack) == most).collect();
        assert_eq!(same, BTreeSet::from([true]), "{export}");
    }
}

#[test]
fn stacks_without_a_guest_stay_outside() {
    let _one = lock();
    let (profile, _) = profile("direct", true, 1024);
    for (stack, _) in stacks(&profile) {
        assert!(stack.iter().any(|frame| frame.kind == FrameKind::Guest), "{stack:#?}");
    }
    // `inner_host` runs as long outside of the guest as inside of it.
    let statistics = &profile.metadata.statistics;
    assert!(statistics.outside.samples > statistics.ticks.samples / 3, "{statistics:?}");
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
}

#[test]
fn code_without_unwind_information_leaves_a_gap_and_nothing_else() {
    let _one = lock();
    let (profile, _) = profile("through_a_gap", true, 1024);
    for stack in burning(&profile) {
        use FrameKind::{Guest, Host, HostCall};
        assert_eq!(kinds(&stack), [Host, Guest, HostCall, Host], "{stack:#?}");
        let gaps: Vec<_> = (0..stack.len()).filter(|index| has_gap(&stack[*index..=*index])).collect();
        let call = stack.iter().position(|frame| frame.kind == HostCall).unwrap();
        assert_eq!(gaps, [call + 1], "{stack:#?}");
        // The assembly might be what called it, or not: there is no telling.
        assert!(is(&stack[call + 2], "inner_host_for_assembly"), "{stack:#?}");
        assert!(stack[..call].iter().any(|frame| is(frame, "outer_host")), "{stack:#?}");
    }
}

#[test]
fn host_frames_count_towards_the_frame_limit() {
    let _one = lock();
    let (profile, _) = profile("direct", true, 2);
    for stack in burning(&profile) {
        assert_eq!(kinds(&stack), [FrameKind::Truncated, FrameKind::Host], "{stack:#?}");
        assert_eq!(stack.iter().filter(|frame| !frame.inlined).count(), 3, "{stack:#?}");
    }
}

#[test]
fn no_address_of_the_process_shows() {
    let _one = lock();
    let (profile, _) = profile("direct", true, 1024);
    for (_, frame) in profile.frames() {
        // Offsets in a file have fewer digits than any address at which it is loaded.
        if let Some((_, offset)) = frame.name.split_once("+0x") {
            assert!(offset.len() < 9, "{frame:?}");
        }
    }
}

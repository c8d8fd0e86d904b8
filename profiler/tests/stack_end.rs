//! Guests at the very end of their stack, under 9,997 signals a second: they trap as they do without a profiler, host
//! functions that they call there return, and the handler leaves their stack alone.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flamewalk::profile::{Metadata, Profile};
use flamewalk::{BoundedStacks, Guest, Options, Profiler};
use wasmtime::{Config, Engine, Linker, Module, StackCreator, StackMemory, Store, Trap};

/// `overflow` calls itself until there is no stack left, and counts how deep it gets. `near` goes as deep as it is told,
/// and there calls the host a hundred times.
const GUEST: &str = r#"(module $deep
  (import "env" "call" (func $call (param i32) (result i32)))
  (global $depth (export "depth") (mut i32) (i32.const 0))
  (func $overflow (export "overflow") (param $n i32) (result i32)
    (global.set $depth (local.get $n))
    (i32.add (call $overflow (i32.add (local.get $n) (i32.const 1))) (local.get $n)))
  (func $near (export "near") (param $n i32) (result i32) (local $i i32)
    (if (local.get $n) (then
      (return (i32.add (call $near (i32.sub (local.get $n) (i32.const 1))) (local.get $n)))))
    (loop
      (local.set $i (call $call (local.get $i)))
      (br_if 0 (i32.lt_u (local.get $i) (i32.const 100))))
    (local.get $i)))"#;

const PAGE: usize = 4096;

#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "memory for others")] [u8; PAGE]);

/// Fibers' stacks that are kept, to be looked at afterwards.
#[derive(Default)]
struct Stacks(Arc<Mutex<Vec<Range<usize>>>>);

struct Stack(Range<usize>);

// SAFETY: the memory is leaked, as large as was asked for, and has no guard.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.0.end)
    }

    fn range(&self) -> Range<usize> {
        self.0.clone()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        std::ptr::null_mut()..std::ptr::null_mut()
    }
}

// SAFETY: as above.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let pages = vec![Page([0; PAGE]); size.div_ceil(PAGE)].leak();
        let start = pages.as_mut_ptr().expose_provenance();
        let range = start..start + size_of_val(pages);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(range.clone());
        Ok(Box::new(Stack(range)))
    }
}

/// The lowest byte of a stack that was written.
fn deepest(stack: &Range<usize>) -> usize {
    (stack.clone().step_by(8))
        // SAFETY: a word of leaked memory, on which no fiber runs any more.
        .find(|address| unsafe { std::ptr::with_exposed_provenance::<u64>(*address).read_volatile() } != 0)
        .unwrap_or(stack.end)
}

/// What does not depend on being sampled.
struct Seen {
    /// How deep the two functions get, together.
    depth: i32,
    /// Bytes between the end of the fiber's stack and the lowest byte that was written by `near`.
    untouched: Option<usize>,
}

/// Runs the guest for a while on this thread, or on fibers.
fn run(profiler: Option<&Profiler>, asynchronous: bool) -> Seen {
    let stacks = Stacks::default();
    let known = Arc::clone(&stacks.0);
    let mut config = Config::new();
    config.max_wasm_stack(256 << 10);
    config.async_stack_size(384 << 10);
    if asynchronous {
        config.with_host_stack(Arc::new(BoundedStacks::new(Arc::new(stacks))));
    }
    let engine = Engine::new(&config).unwrap();
    let binary = wat::parse_str(GUEST).unwrap();
    let module = Module::new(&engine, &binary).unwrap();
    let _registration = profiler
        .map(|profiler| profiler.register_module(&module, Guest::named("deep").binary(binary)).unwrap());
    let new_store = || {
        let mut store = Store::new(&engine, ());
        if let Some(profiler) = profiler {
            profiler.attach(&mut store).unwrap();
        }
        store
    };
    let mut store = new_store();
    let mut linker = Linker::new(&engine);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if asynchronous {
        linker.func_wrap_async("env", "call", |_, (n,): (i32,)| Box::new(async move { n + 1 })).unwrap();
    } else {
        linker.func_wrap("env", "call", |n: i32| n + 1).unwrap();
    }
    let instance = runtime.block_on(linker.instantiate_async(&mut store, &module)).unwrap();
    let depth = instance.get_global(&mut store, "depth").unwrap();
    let [overflow, near] =
        ["overflow", "near"].map(|name| instance.get_typed_func::<i32, i32>(&mut store, name).unwrap());
    let call = |function: &wasmtime::TypedFunc<i32, i32>, n, store: &mut Store<()>| {
        if asynchronous { runtime.block_on(function.call_async(store, n)) } else { function.call(store, n) }
    };

    let error = call(&overflow, 0, &mut store).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow));
    let deep = depth.get(&mut store).unwrap_i32();
    // The deepest that `near` can get: at one call more it traps.
    let (mut fits, mut traps) = (0, deep);
    while fits + 1 < traps {
        let middle = i32::midpoint(fits, traps);
        *(if call(&near, middle, &mut store).is_ok() { &mut fits } else { &mut traps }) = middle;
    }
    let end = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < end {
        for _ in 0..50 {
            assert!(call(&near, fits, &mut store).is_ok());
        }
        assert!(call(&near, fits + 1, &mut store).is_err());
        let error = call(&overflow, 0, &mut store).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow));
        assert_eq!(depth.get(&mut store).unwrap_i32(), deep);
    }
    // A store keeps its fiber's stack for the next call: one of its own for calls that go to the end and come back.
    let mut store = new_store();
    let instance = runtime.block_on(linker.instantiate_async(&mut store, &module)).unwrap();
    let near = instance.get_typed_func::<i32, i32>(&mut store, "near").unwrap();
    for _ in 0..500 {
        assert!(call(&near, fits, &mut store).is_ok());
    }
    let stacks = known.lock().unwrap_or_else(PoisonError::into_inner);
    Seen { depth: deep + fits, untouched: stacks.last().map(|stack| deepest(stack) - stack.start) }
}

fn agrees(asynchronous: bool) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let none = run(None, asynchronous);
    let mut options = Options::default();
    options.rate = 9_997;
    // Whole stacks of thousands of frames would fill the rings.
    options.frame_limit = 64;
    let profiler = Profiler::new(options).unwrap();
    // The call hook takes some bytes of the host function's stack; the handler must take none.
    let without = run(Some(&profiler), asynchronous);
    profiler.start().unwrap();
    let with = run(Some(&profiler), asynchronous);
    let profile: Profile = profiler.stop(Metadata::default()).unwrap();
    let statistics = &profile.metadata.statistics;
    statistics.check().unwrap();
    assert!(profile.total().samples > 1_000, "{statistics:?}");
    // In Wasmtime's own handler of the trap, which runs on a stack of its own, there is no telling.
    assert!(statistics.lost.keys().all(|cause| cause == "unknown stack"), "{statistics:?}");
    assert!(statistics.total_lost().samples < profile.total().samples / 2, "{statistics:?}");
    assert_eq!((with.depth, without.depth), (none.depth, none.depth));
    assert_eq!(with.untouched, without.untouched);
    assert_eq!(with.untouched.is_some(), asynchronous);
    let left = profile.stacks().filter_map(|stack| stack.headroom).map(|headroom| headroom.least_left).min();
    // Seen down to where the host functions are that were called at the very end, or Wasmtime's own that make a trap.
    let end = with.untouched.map_or(u64::MAX, |untouched| untouched as u64 + 1_000);
    assert!(left.is_some_and(|left| (1..end).contains(&left)), "{left:?} {end}");
    println!("{} calls, {left:?} bytes left, {:?} untouched", with.depth, with.untouched);
}

#[test]
fn on_a_threads_stack() {
    agrees(false);
}

#[test]
fn on_fibers() {
    agrees(true);
}

//! What an attached store costs while nothing is sampled: in instructions, which are the same each time.

use std::sync::Arc;

use flamewalk_handler::arch::Registers;
use wasmtime::{Engine, Linker, Module, Store, TypedFunc};

use super::stepper::{Next, Observer, step_through};
use crate::options::Options;
use crate::shared::Shared;
use crate::store::StoreHook;
use crate::{check, thread};

const GUEST: &str = r#"(module
  (import "" "host" (func $host (param i32) (result i32)))
  (func (export "enter") (param i32) (result i32) (local.get 0))
  (func (export "call") (param $times i32) (result i32) (local $sum i32)
    (loop
      (local.set $sum (i32.add (local.get $sum) (call $host (local.get $times))))
      (br_if 0 (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
    (local.get $sum))
  (func (export "compute") (param $times i32) (result i32) (local $sum i32)
    (loop
      (local.set $sum (i32.rotl (i32.xor (local.get $sum) (local.get $times)) (i32.const 3)))
      (br_if 0 (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
    (local.get $sum)))"#;

/// How a store is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Detached,
    /// Not at all, with a call hook that does nothing.
    EmptyHook,
    /// Through its call hook.
    CallHook,
    /// By a hook that is kept elsewhere, on a thread that was attached by hand.
    ByHand,
}

/// Counts instructions.
struct Counter(u64);

impl Observer for Counter {
    fn boundary(&mut self, _: &Registers) -> Next {
        self.0 += 1;
        Next::Step
    }
}

struct Dormant {
    store: Store<()>,
    /// Keeps the store attached.
    _kept: Option<StoreHook>,
    functions: [TypedFunc<i32, i32>; 3],
}

impl Dormant {
    fn new(form: Form) -> Self {
        let engine = Engine::default();
        check::check(&engine).expect("an engine whose stacks can be walked");
        let module = Module::new(&engine, GUEST).expect("the guest compiles");
        let mut linker = Linker::new(&engine);
        linker.func_wrap("", "host", |value: i32| value ^ 1).expect("one import");
        let mut store = Store::new(&engine, ());
        let instance = linker.instantiate(&mut store, &module).expect("all imports");
        let functions = ["enter", "call", "compute"]
            .map(|name| instance.get_typed_func::<i32, i32>(&mut store, name).expect("the export"));
        let shared = Arc::new(Shared::new(Options::default()));
        let hook =
            StoreHook::new(Arc::clone(&shared), &mut store, functions[0].func()).expect("a store of ours");
        let kept = match form {
            Form::Detached => None,
            Form::EmptyHook => {
                store.call_hook(|_, _| Ok(()));
                None
            }
            Form::ByHand => Some(hook),
            Form::CallHook => {
                store.call_hook(move |_, event| {
                    hook.call(event);
                    Ok(())
                });
                None
            }
        };
        if matches!(form, Form::CallHook | Form::ByHand) {
            thread::attach_current(&shared).expect("this thread can be sampled");
        }
        Self { store, _kept: kept, functions }
    }

    /// How many instructions it takes to call a function with `argument`.
    fn count(&mut self, function: usize, argument: i32) -> u64 {
        let Self { store, functions, .. } = self;
        // What is made on first use is there.
        functions[function].call(&mut *store, argument).expect("it returns");
        let (count, result) = counted(|| functions[function].call(&mut *store, argument));
        result.expect("it returns");
        count
    }

    /// Instructions of entering the guest and leaving it, of a host call, and of a thousand rounds of computing.
    fn costs(&mut self) -> [u64; 3] {
        let host_calls = self.count(1, 201) - self.count(1, 101);
        assert!(host_calls.is_multiple_of(100), "host calls differ: {host_calls} for 100");
        [self.count(0, 0), host_calls / 100, self.count(2, 2_000) - self.count(2, 1_000)]
    }
}

/// How many instructions it takes to run `run`.
fn counted<R>(run: impl FnOnce() -> R) -> (u64, R) {
    let mut counter = Counter(0);
    let result = step_through(&mut counter, std::iter::empty(), run);
    (counter.0, result)
}

#[test]
fn a_dormant_profiler_costs_next_to_nothing() {
    let [detached, empty, hooked, by_hand] = [Form::Detached, Form::EmptyHook, Form::CallHook, Form::ByHand]
        .map(|form| Dormant::new(form).costs());
    println!("instructions    entering a guest   a host call   1,000 rounds of computing");
    let rows =
        [("not attached", detached), ("empty hook", empty), ("call hook", hooked), ("by hand", by_hand)];
    for (form, costs) in rows {
        println!("{form:14}{:18}{:14}{:28}", costs[0], costs[1], costs[2]);
    }
    assert_eq!(by_hand, detached, "a store that is attached by hand runs what it ran before");
    assert!(hooked[0] > empty[0] && hooked[1] > empty[1], "the hook is not called");
    // What Wasmtime takes to call any hook twice, and a look at whether the thread is known.
    let (ours, floor) = (hooked[1] - detached[1], empty[1] - detached[1]);
    assert!(
        ours as f64 <= 1.3 * floor as f64,
        "a host call takes {ours} instead of {floor} instructions more"
    );
    assert_eq!(hooked[2], detached[2], "the guest itself is as it was");
}

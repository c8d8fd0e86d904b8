//! The ways in which a store is attached, and calls that go back and forth between guest and host.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flamewalk::profile::FrameKind;
use flamewalk::{Error, Guest as Registered, Profiler, StoreHook};
use wasmtime::{Caller, Engine, Func, Instance, Linker, Module, Store};

use crate::support::{KnownAnswer, alone, check_losses_of_nested, kinds, options, share, stop};

/// Runs the guest with whatever `attach` does around it.
fn profile_with(attach: impl FnOnce(&Profiler, &mut Store<()>, &mut dyn FnMut(&mut Store<()>))) {
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    guest.register(&profiler);
    let (mut store, run) = guest.instantiate(|| {});
    profiler.start().unwrap();
    attach(&profiler, &mut store, &mut |store| {
        run.call(store, 300).unwrap();
    });
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
    assert_eq!(share(&profile, |stack| stack[0] == "run"), 1.0);
    // A tenth is its share; there to tell whether host calls are seen at all.
    let host = share(&profile, |stack| *stack == ["run", "[host] env.burn"]);
    assert!((0.02..0.5).contains(&host), "{host}");
}

#[test]
fn the_hook_can_be_called_from_the_embedders_own() {
    let _alone = alone();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    profile_with(|profiler, store, run| {
        let hook = profiler.hook(&mut *store).unwrap();
        store.call_hook(move |_, event| {
            counter.fetch_add(1, Ordering::Relaxed);
            hook.call(event);
            Ok(())
        });
        run(store);
    });
    // Into the guest and back, and 10 host calls a round, each with its return.
    assert_eq!(calls.load(Ordering::Relaxed), 2 + 2 * 10 * 300);
}

#[test]
fn a_thread_attached_by_hand_needs_no_call_hook() {
    let _alone = alone();
    profile_with(|profiler, store, run| {
        let _hook = profiler.hook(&mut *store).unwrap();
        profiler.attach_thread().unwrap();
        run(store);
    });
}

#[test]
fn a_function_of_the_host_leads_to_no_store() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 997)).unwrap();
    let mut store = Store::new(&Engine::default(), ());
    let func = Func::wrap(&mut store, || {});
    let refused = profiler.hook_with(&mut store, &func);
    assert!(matches!(refused, Err(Error::Store { .. })), "{refused:?}");
}

/// `outer` calls the host, which calls `inner`, as often as it is told, each below the last.
const BACK_AND_FORTH: &str = r#"(module $back_and_forth
  (import "env" "again" (func $again (param i32)))
  (func $outer (export "outer") (param $levels i32)
    (call $spin)
    (if (local.get $levels) (then (call $again (i32.sub (local.get $levels) (i32.const 1))))))
  (func $spin (local $i i32)
    (loop (br_if 0 (i32.ne (i32.const 300000000) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))))"#;

const LEVELS: i32 = 3;

fn back_and_forth(attach: impl FnOnce(&Profiler, &mut Store<()>) -> Option<StoreHook>) {
    let binary = wat::parse_str(BACK_AND_FORTH).unwrap();
    let module = Module::new(&Engine::default(), &binary).unwrap();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    profiler.register_module(&module, Registered::named("guest").binary(binary)).unwrap();
    let mut linker = Linker::new(module.engine());
    let again = |mut caller: Caller<'_, ()>, levels: i32| -> wasmtime::Result<()> {
        let outer = caller.get_export("outer").unwrap().into_func().unwrap().typed::<i32, ()>(&caller)?;
        outer.call(&mut caller, levels)
    };
    linker.func_wrap("env", "again", again).unwrap();
    let mut store = Store::new(module.engine(), ());
    let instance: Instance = linker.instantiate(&mut store, &module).unwrap();
    let outer = instance.get_typed_func::<i32, ()>(&mut store, "outer").unwrap();
    let hook = attach(&profiler, &mut store);
    profiler.start().unwrap();
    outer.call(&mut store, LEVELS).unwrap();
    drop(hook);
    let profile = stop(&profiler);

    check_losses_of_nested(&profile, LEVELS.unsigned_abs().into());
    // Every level spins for the same time.
    for level in 0..=LEVELS {
        let mut expected = vec!["outer"];
        (0..level).for_each(|_| expected.extend(["[host] env.again", "outer"]));
        expected.push("spin");
        let share = share(&profile, |stack| stack == expected);
        assert!((0.1..0.5).contains(&share), "level {level}: {share}");
    }
    for stack in profile.stacks() {
        let kinds = kinds(&profile, &stack);
        assert_eq!(kinds[0], FrameKind::Guest);
        assert!(kinds.windows(2).all(|pair| pair != [FrameKind::HostCall, FrameKind::HostCall]), "{kinds:?}");
    }
}

#[test]
fn host_calls_show_between_guests() {
    let _alone = alone();
    back_and_forth(|profiler, store| {
        profiler.attach(store).unwrap();
        None
    });
}

#[test]
fn host_calls_show_between_guests_without_a_call_hook_as_well() {
    let _alone = alone();
    back_and_forth(|profiler, store| {
        profiler.attach_thread().unwrap();
        Some(profiler.hook(&mut *store).unwrap())
    });
}

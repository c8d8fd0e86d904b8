//! Guests of several tenants on one stack, and profiles for each of them.

use std::sync::Mutex;

use flamewalk::Profiler;
use flamewalk::profile::{FrameKind, Labels, Metadata, Profile};
use wasmtime::{Engine, Func, Instance, Module, Store};

use crate::loading::{engine, guest, guests};
use crate::support::{alone, check_losses_of_nested, kinds, options, stop};

fn tenant(name: &str) -> Labels {
    [("tenant", name), ("kind", "test")].into_iter().collect()
}

fn store(profiler: &Profiler, engine: &Engine, labels: Labels) -> Store<()> {
    let mut store = Store::new(engine, ());
    let hook = profiler.hook(&mut store).unwrap();
    hook.set_labels(labels);
    store.call_hook(move |_, event| {
        hook.call(event);
        Ok(())
    });
    store
}

/// A guest of the first tenant calls the host, which calls one of the second; both are busy.
fn nested(tenants: [&str; 2], ask: impl FnOnce(&Profiler)) -> Profile {
    let engine = engine();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let mut inner = store(&profiler, &engine, tenant(tenants[1]));
    let instance = Instance::new(&mut inner, &Module::new(&engine, guest("inner")).unwrap(), &[]).unwrap();
    let run = instance.get_typed_func::<(), i32>(&mut inner, "run").unwrap();
    let inner = Mutex::new(inner);

    let mut outer = store(&profiler, &engine, tenant(tenants[0]));
    let host = Func::wrap(&mut outer, move || _ = run.call(&mut *inner.lock().unwrap(), ()).unwrap());
    let busy = guest("outer");
    let (head, body) = busy.split_once("(func ").unwrap();
    let body = body.replacen("(loop", "(call $host) (loop", 1);
    let text = format!("{head}(import \"host\" \"inner\" (func $host)) (func {body}");
    let module = Module::new(&engine, text).unwrap();
    let instance = Instance::new(&mut outer, &module, &[host.into()]).unwrap();
    let run = instance.get_typed_func::<(), i32>(&mut outer, "run").unwrap();
    profiler.start().unwrap();
    run.call(&mut outer, ()).unwrap();
    ask(&profiler);
    let profile = stop(&profiler);
    check_losses_of_nested(&profile, 1);
    profile
}

fn of(profiler: &Profiler, name: &str) -> Profile {
    let only = [("tenant", name)].into_iter().collect();
    let profile = profiler.snapshot_labelled(only, Metadata::default()).unwrap();
    profile.metadata.statistics.check().unwrap();
    profile
}

/// Whether there is a stack with guest frames on both sides of a host call.
fn has_nested(profile: &Profile) -> bool {
    profile.stacks().any(|stack| {
        matches!(*kinds(profile, &stack), [FrameKind::Guest, FrameKind::HostCall, FrameKind::Guest])
    })
}

#[test]
fn a_tenant_does_not_see_whose_guest_it_runs_below() {
    let _alone = alone();
    let all = nested(["first", "second"], |profiler| {
        let [first, second, nobody] = ["first", "second", "nobody"].map(|name| of(profiler, name));
        let own = |name: &str| [(name.to_owned(), format!("work_of_{name}"))].into();
        assert_eq!(guests(&first), own("outer"));
        assert_eq!(guests(&second), own("inner"));
        // Not what is below, but that it is not shown.
        for stack in second.stacks() {
            assert_eq!(kinds(&second, &stack), [FrameKind::Truncated, FrameKind::Guest]);
            // It once was that how deep the stack below is could be seen.
            assert_eq!(stack.headroom, None);
        }
        assert!(first.stacks().any(|stack| stack.headroom.is_some()));
        assert!(nobody.is_empty() && nobody.frames().len() == 0 && nobody.threads().len() == 0);
        let whole = profiler.snapshot(Metadata::default()).unwrap();
        let sum = first.total().checked_add(second.total()).unwrap();
        assert_eq!(sum, whole.total());
    });
    assert!(has_nested(&all));
}

#[test]
fn a_tenant_sees_its_own_guests_below_each_other() {
    let _alone = alone();
    nested(["same", "same"], |profiler| assert!(has_nested(&of(profiler, "same"))));
}

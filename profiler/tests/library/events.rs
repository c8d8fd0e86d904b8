//! Events of the kernel that are counted, against what the kernel itself says of the thread.

use flamewalk::profile::Profile;
use flamewalk::{Error, Guest as Registered, Profiler};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use wasmtime::{Engine, Linker, Module, Store};

use crate::support::{alone, options, share, stop};

const GUEST: &str = r#"(module $guest
  (import "env" "wait" (func $wait))
  (memory (export "memory") 4096)
  ;; Writes to each page of 4 KiB.
  (func $touch (export "touch") (local $page i32)
    (loop
      (i32.store (i32.shl (local.get $page) (i32.const 12)) (i32.const 1))
      (br_if 0 (i32.ne (i32.const 65536) (local.tee $page (i32.add (i32.const 1) (local.get $page)))))))
  (func $waits (export "waits") (local $i i32)
    (loop
      (call $wait)
      (br_if 0 (i32.ne (i32.const 1000) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))))"#;

/// The profile of calling the export, and what the kernel counted meanwhile; `None` if the event is refused.
fn count(event: &str, export: &str, counted: impl Fn(&Usage) -> i64) -> Option<(Profile, u64)> {
    let binary = wat::parse_str(GUEST).unwrap();
    let module = Module::new(&Engine::default(), &binary).unwrap();
    let profiler = Profiler::new(options(event, 997)).unwrap();
    profiler.register_module(&module, Registered::named("guest").binary(binary)).unwrap();
    let mut linker = Linker::new(module.engine());
    // A switch to another thread and back, which the kernel can count on.
    linker.func_wrap("env", "wait", || std::thread::spawn(|| {}).join().unwrap()).unwrap();
    let mut store = Store::new(module.engine(), ());
    let instance = linker.instantiate(&mut store, &module).unwrap();
    let func = instance.get_typed_func::<(), ()>(&mut store, export).unwrap();
    profiler.attach(&mut store).unwrap();
    match profiler.start() {
        Ok(()) => {}
        Err(Error::EventRefused { .. }) => return None,
        Err(error) => panic!("{event}: {error}"),
    }
    let usage = || counted(&getrusage(UsageWho::RUSAGE_THREAD).unwrap());
    let before = usage();
    func.call(&mut store, ()).unwrap();
    let during = usage() - before;
    Some((stop(&profiler), during.unsigned_abs()))
}

/// The kernel adjusts the period to the rate as it goes: what was counted since the last sample is not in the
/// profile. That is less than one period, but of which length is not known: a profile does not hold the period that the
/// kernel has chosen for the next sample. Where events come in a burst it grows with each, so that the rest is a large part of
/// them, and half is a bound from experience; what the profile says it has is bounded by what there was.
fn check(profile: &Profile, counted: u64) {
    let ticks = profile.metadata.statistics.ticks;
    println!("{ticks} of {counted}");
    assert!(ticks.weight <= counted + counted / 100, "{ticks} of {counted}");
    assert!(ticks.weight >= counted / 2, "{ticks} of {counted}");
}

#[test]
fn page_faults_are_where_memory_is_first_touched() {
    let _alone = alone();
    let Some((profile, counted)) =
        count("page-faults", "touch", |usage| usage.minor_page_faults() + usage.major_page_faults())
    else {
        return;
    };
    check(&profile, counted);
    assert!(share(&profile, |stack| stack == ["touch"]) > 0.9);
}

#[test]
fn context_switches_are_where_the_guest_waits() {
    let _alone = alone();
    let switches = |usage: &Usage| usage.voluntary_context_switches() + usage.involuntary_context_switches();
    let Some((profile, counted)) = count("context-switches", "waits", switches) else { return };
    check(&profile, counted);
    assert!(share(&profile, |stack| stack == ["waits", "[host] env.wait"]) > 0.9);
}

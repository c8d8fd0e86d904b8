//! No sample is lost while the collector has a tenth of a core.
//!
//! Two threads run guests 64 frames deep at 9,997 Hz. The collector's thread is stopped for 90 ms out of each 100, by a
//! signal whose handler sleeps. That is the worst that a quota of a tenth of a core does: what it has comes at once, and
//! then nothing for a long time. No privilege is needed for it, and a busy machine only makes the gaps between the stops
//! longer.
//!
//! `FLAMEWALK_THROTTLED_SECONDS` says for how long, five seconds unless it is set. Then the ring is twice the default, which
//! lasts for 100 ms of the shortest periods: machines that are busy besides stop the thread for longer than that. The long
//! form, which is for a quiet machine, has the default:
//!
//! ```text
//! FLAMEWALK_THROTTLED_SECONDS=60 cargo test --workspace --test throttled -- --nocapture
//! ```
//!
//! A crate of its own, so that Cargo runs it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flamewalk::profile::Metadata;
use flamewalk::{Guest, Options, Profiler};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use wasmtime::{Engine, Linker, Module, Store};

const RATE: u32 = 9_997;
const DEPTH: u32 = 64;
/// For how long the collector's thread is stopped each time, and for how long it may run in between.
const STOPPED: Duration = Duration::from_millis(90);
const BETWEEN: Duration = Duration::from_millis(10);

/// `run` calls itself as deep as that, the last times from one of two places by chance, and computes at the bottom.
const GUEST: &str = r#"(module
  (import "env" "ended" (func $ended (result i32)))
  (global $random (mut i32) (i32.const 1))
  (func $compute (param $turns i32)
    (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
  (func $down (param $depth i32)
    (if (i32.eqz (local.get $depth)) (then (call $compute (i32.const 20000)) (return)))
    (global.set $random (i32.add (i32.mul (global.get $random) (i32.const 1664525)) (i32.const 1013904223)))
    (if (i32.and (i32.lt_u (local.get $depth) (i32.const 9)) (i32.lt_s (global.get $random) (i32.const 0)))
      (then (call $down (i32.sub (local.get $depth) (i32.const 1))))
      (else (call $down (i32.sub (local.get $depth) (i32.const 1))))))
  (func (export "run") (param $depth i32)
    (loop $again
      (call $down (local.get $depth))
      (br_if $again (i32.eqz (call $ended))))))"#;

/// How often the collector's thread was stopped, to the end of each stop.
static STOPS: AtomicU32 = AtomicU32::new(0);

extern "C" fn stop_for_a_while(_: i32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: STOPPED.as_nanos() as libc::c_long };
    // SAFETY: may be called in a signal handler, and the time is one.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
    STOPS.fetch_add(1, Ordering::Release);
}

/// A thread of this process, by its name.
fn thread_named(name: &str) -> i32 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let found = tasks.find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name);
    found.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// The CPU time that a thread has had.
fn cpu_time(thread: i32) -> Duration {
    let schedule = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    Duration::from_nanos(schedule.split(' ').next().unwrap().parse().unwrap())
}

/// Stops a thread again and again, for so long.
fn throttle(profiler: &Profiler, thread: i32, duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        let before = STOPS.load(Ordering::Acquire);
        // SAFETY: it is a thread of this process, which lives for as long as its profiler samples.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
        assert_eq!(sent, 0);
        while STOPS.load(Ordering::Acquire) == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(BETWEEN);
        // A busy machine may not have let it run yet: its tenth is what it gets, however late. This waits for a drain.
        profiler.statistics().unwrap();
    }
}

#[test]
fn a_tenth_of_a_core_is_enough() {
    let chosen = std::env::var("FLAMEWALK_THROTTLED_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    let module = Module::new(&Engine::default(), wat::parse_str(GUEST).unwrap()).unwrap();
    let mut options = Options::default();
    options.rate = RATE;
    if chosen.is_none() {
        options.ring_words *= 2;
    }
    let ring_bytes = options.ring_words as u64 * 8;
    let profiler = Profiler::new(options).unwrap();
    profiler.register_module(&module, Guest::named("recursion")).unwrap();
    profiler.start().unwrap();

    let handler = SigHandler::Handler(stop_for_a_while);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only sleeps.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let collector = thread_named("flamewalk");
    let ended = Arc::new(AtomicBool::new(false));
    let (start, time_before) = (Instant::now(), cpu_time(collector));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| run(&profiler, &module, &ended));
        }
        throttle(&profiler, collector, Duration::from_secs(chosen.unwrap_or(5)));
        ended.store(true, Ordering::Relaxed);
    });
    let (elapsed, time) = (start.elapsed(), cpu_time(collector) - time_before);
    let profile = profiler.stop(Metadata::default()).unwrap();

    let statistics = &profile.metadata.statistics;
    statistics.check().unwrap();
    let share = |part: Duration| part.as_secs_f64() * 100.0 / elapsed.as_secs_f64();
    let waiting = statistics.resources.ring_high_water;
    println!(
        "{} delivered on {} stacks, {} lost. In {:.1} s the collector's thread was stopped for {:.0} % of the time and ran for \
         {:.2} %; at most {} KiB waited in a ring of {}",
        statistics.delivered,
        profile.stacks().len(),
        statistics.total_lost(),
        elapsed.as_secs_f64(),
        share(STOPPED * STOPS.load(Ordering::Relaxed)),
        share(time),
        waiting >> 10,
        ring_bytes >> 10,
    );
    assert_eq!(statistics.total_lost().samples, 0, "{:?}", statistics.lost);
    assert!(share(time) <= 10.0, "the collector's thread has had more than a tenth of a core");
    // It was stopped as often as it was free for long enough; a busy machine makes both longer.
    assert!(
        share(STOPPED * STOPS.load(Ordering::Relaxed)) > 30.0,
        "the collector's thread was hardly stopped"
    );
    assert!(profile.stacks().any(|stack| stack.frames.len() as u32 > DEPTH), "the stacks are not that deep");
}

/// A guest on this thread, until the end.
fn run(profiler: &Profiler, module: &Module, ended: &Arc<AtomicBool>) {
    let mut linker = Linker::new(module.engine());
    let ended = Arc::clone(ended);
    linker.func_wrap("env", "ended", move || i32::from(ended.load(Ordering::Relaxed))).unwrap();
    let mut store = Store::new(module.engine(), ());
    profiler.attach(&mut store).unwrap();
    let instance = linker.instantiate(&mut store, module).unwrap();
    let run = instance.get_typed_func::<u32, ()>(&mut store, "run").unwrap();
    run.call(&mut store, DEPTH).unwrap();
}

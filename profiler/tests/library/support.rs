//! Embeddings of the guests, and what is asked of their profiles.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use flamewalk::profile::{FrameKind, Metadata, Names, Profile, Stack};
use flamewalk::{Guest as Registered, Options, Profiler};
use flamewalk_guests::{Guest, chain};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, fork};
use perf_event_open::config::{Cpu, Opts, Proc};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;
use wasmtime::{Engine, Linker, Module, Store, TypedFunc};

/// There is one profiler in a process at a time, and so one test.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that has failed has nothing to do with the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn options(event: &str, rate: u32) -> Options {
    let mut options = Options::default();
    options.event = event.parse().unwrap();
    options.rate = rate;
    options
}

/// The known-answer guest for embedders, compiled.
pub(crate) struct KnownAnswer {
    pub(crate) module: Module,
    binary: Vec<u8>,
}

impl KnownAnswer {
    pub(crate) fn compile() -> Self {
        Self::compile_in(&Engine::default())
    }

    pub(crate) fn compile_in(engine: &Engine) -> Self {
        let binary = std::fs::read(Guest::KnownAnswerHost.path()).unwrap();
        Self { module: Module::new(engine, &binary).unwrap(), binary }
    }

    pub(crate) fn register(&self, profiler: &Profiler) {
        let guest = Registered::named("known_answer").binary(self.binary.clone());
        profiler.register_module(&self.module, guest).unwrap();
    }

    /// What `run` gives, without a profiler.
    pub(crate) fn truth(&self, rounds: u32) -> u64 {
        let (mut store, run) = self.instantiate(|| {});
        run.call(&mut store, rounds).unwrap()
    }

    /// Registers the guest, and attaches a store that has it.
    pub(crate) fn attached_to(&self, profiler: &Profiler) -> (Store<()>, TypedFunc<u32, u64>) {
        self.register(profiler);
        let (mut store, run) = self.instantiate(|| {});
        profiler.attach(&mut store).unwrap();
        (store, run)
    }

    /// Has this process checked, for which a profiler compiles: that cannot be done in a child. It once was that the first test to
    /// fork had to come after another one.
    pub(crate) fn check(&self) {
        let profiler = Profiler::new(options("cpu", 97)).unwrap();
        profiler.attach(&mut self.instantiate(|| {}).0).unwrap();
    }

    /// A store with the guest's `run`. The host call does its work, then `and_then`.
    pub(crate) fn instantiate(
        &self,
        and_then: impl Fn() + Send + Sync + 'static,
    ) -> (Store<()>, TypedFunc<u32, u64>) {
        let mut linker = Linker::new(self.module.engine());
        let burn = move |steps: u32| {
            black_box(chain(1, u64::from(steps)));
            and_then();
        };
        linker.func_wrap("env", "burn", burn).unwrap();
        let mut store = Store::new(self.module.engine(), ());
        let instance = linker.instantiate(&mut store, &self.module).unwrap();
        let run = instance.get_typed_func(&mut store, "run").unwrap();
        (store, run)
    }
}

/// Ends the threads that wait for it however the test ends.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Seconds of CPU time that the calling thread has had.
pub(crate) fn thread_cpu_time() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// The clock that an event's weights are in, in seconds: from here on, and for time on a processor the calling thread's.
///
/// The kernel has two of those. In a virtual machine `cpu-clock` goes on while the hypervisor runs something else, and the thread's
/// CPU time, which the CPU timer goes by, does not. It once was that tests compared one with the other, and failed on busy
/// machines.
pub(crate) fn clock_of(event: &str) -> impl Fn() -> f64 {
    let start = Instant::now();
    let counter = (event == "cpu").then(|| {
        let counter = Counter::new(Software::CpuClock, (Proc::CURRENT, Cpu::ALL), Opts::default())?;
        counter.enable().map(|()| counter)
    });
    // It is refused to those who may not sample the kernel. Some of them have the CPU timer, others ticks in user code only.
    let counter = counter.and_then(Result::ok);
    let is_wall = event == "wall";
    move || match &counter {
        Some(counter) => counter.stat().unwrap().count as f64 / 1e9,
        None if is_wall => start.elapsed().as_secs_f64(),
        None => thread_cpu_time(),
    }
}

/// Seconds that can have passed since an event's last tick. A period is 1.65 times the mean at most, and begins anew when the next one
/// is drawn. The kernel looks after CPU timers at its own ticks (at least 100 Hz), and at those that find the thread running: on a
/// busy machine that may be the second one.
pub(crate) fn untold(event: &str, rate: u32) -> f64 {
    2.0 * 1.65 / f64::from(rate) + if event == "cpu-timer" { 0.020 } else { 0.0 }
}

/// Fails unless between `least` and `most` seconds were counted, but for what has begun [since the last tick](untold). The last
/// one of the CPU timer may also be early by a period. See also [`switching_time`].
pub(crate) fn assert_between(event: &str, rate: u32, counted: f64, least: f64, most: f64) {
    let early = if event == "cpu-timer" { untold("wall", rate) } else { 0.0 };
    let range = least - untold(event, rate)..=most + early;
    assert!(range.contains(&counted), "{event}: {counted}, not in {range:?}");
}

/// What a hypervisor takes of the calling thread. All of it can be in the weight of one sample of `cpu`, and so fall on one
/// function.
pub(crate) struct Stolen<C> {
    clock: C,
    before: (f64, f64),
}

impl Stolen<()> {
    /// From now on.
    pub(crate) fn begin() -> Stolen<impl Fn() -> f64> {
        let clock = clock_of("cpu");
        Stolen { before: (clock(), thread_cpu_time()), clock }
    }
}

impl<C: Fn() -> f64> Stolen<C> {
    /// As a part of the time that `cpu` has counted.
    pub(crate) fn share(&self) -> f64 {
        let (counted, taken) = ((self.clock)() - self.before.0, thread_cpu_time() - self.before.1);
        (1.0 - taken / counted).max(0.0)
    }
}

/// By how many seconds an event may count more than its clock for the calling thread so far: at each switch of threads, what the
/// kernel does to set and to cancel the timer that a perf event samples by. That is 6 µs on an idle virtual machine, and more
/// where caches are fought over.
pub(crate) fn switching_time(event: &str) -> f64 {
    const SECONDS_PER_SWITCH: f64 = 15e-6;
    if event != "cpu" {
        return 0.0;
    }
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    switches as f64 * SECONDS_PER_SWITCH
}

/// Runs `child` in a fork of this process and fails if it does.
///
/// The child has this thread only. A lock that another one holds is never released there, so that a child that waits for
/// one is ended by the kernel after a minute.
pub(crate) fn in_child(child: impl FnOnce()) {
    // SAFETY: the child allocates, which the system's allocator allows there, and takes no lock but its own.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::unistd::alarm::set(60);
            // Not even a panic's message may wait for a lock.
            std::panic::set_hook(Box::new(|panic| {
                let message = format!("in the child: {panic}\n");
                let _ = nix::unistd::write(std::io::stderr(), message.as_bytes());
            }));
            let ended = catch_unwind(AssertUnwindSafe(child));
            // SAFETY: ends the child without anything that is the parent's.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).unwrap();
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        }
    }
}

/// Stops the profiler; in any profile, every tick is accounted for.
pub(crate) fn stop(profiler: &Profiler) -> Profile {
    let profile = profiler.stop(Metadata::default()).unwrap();
    check_sums(&profile);
    profile
}

pub(crate) fn check_sums(profile: &Profile) {
    let statistics = &profile.metadata.statistics;
    statistics.check().unwrap();
    assert_eq!(statistics.delivered, profile.total(), "{statistics:?}");
}

/// Fails if more is lost than what can be where so many guests were entered below others: a sample at each one's entry and one
/// at its end, while Wasmtime's list of activations does not lead to the older ones. It once was that the tests knew of no such
/// losses. They are seldom, but the end of a guest that has run for long is code that is in no cache any more.
pub(crate) fn check_losses_of_nested(profile: &Profile, entries: u64) {
    let statistics = &profile.metadata.statistics;
    assert!(statistics.lost.keys().all(|cause| cause == "unknown stack"), "{statistics:?}");
    assert!(statistics.total_lost().samples <= 2 * entries, "{statistics:?}");
}

/// The shown names of a stack, oldest first.
pub(crate) fn names<'n>(names: &'n Names, stack: &Stack<'_>) -> Vec<&'n str> {
    stack.frames.iter().map(|&frame| names.of(frame)).collect()
}

/// The share of the weight whose stack, as shown names, is as wanted; from 0 to 1.
pub(crate) fn share(profile: &Profile, wanted: impl Fn(&[&str]) -> bool) -> f64 {
    let all = Names::new(profile);
    let weight: u64 =
        profile.stacks().filter(|stack| wanted(&names(&all, stack))).map(|stack| stack.tally.weight).sum();
    weight as f64 / profile.total().weight as f64
}

/// The kinds of a stack's frames, oldest first.
pub(crate) fn kinds(profile: &Profile, stack: &Stack<'_>) -> Vec<FrameKind> {
    stack.frames.iter().map(|&frame| profile.frame(frame).kind).collect()
}

//! Guests under the profiler, and what fell on each of their parts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flamewalk::profile::{FrameKind, Metadata, Profile, Stack};
use flamewalk::{Guest as Registered, Options, Profiler};
use flamewalk_guests::GeneratedGuest;
use nix::time::{ClockId, clock_gettime};
use wasmtime::{Config, Engine, Linker, Module, Store, TypedFunc};

use crate::fit::Batches;

/// How many batches a run is divided into, for the test of independence.
pub(crate) const BATCHES: usize = 50;
/// What may fall outside of all parts: on the calls themselves, which Winch makes heavier than Cranelift.
const ELSEWHERE: f64 = 0.02;

/// The environment variable that says how many samples to take of a guest.
const NUMBER: &str = "FLAMEWALK_ACCURACY_SAMPLES";

/// How many samples to take of a guest.
pub(crate) fn wanted_samples() -> u64 {
    match std::env::var(NUMBER) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{NUMBER} is a number of samples")),
        Err(_) => 20_000,
    }
}

/// Whether the user has said how many samples to take.
pub(crate) fn is_number_given() -> bool {
    std::env::var_os(NUMBER).is_some()
}

/// There is one profiler in a process at a time, and so one test.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds of CPU time that the calling thread has had.
pub(crate) fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}

/// Nanoseconds from tick to tick.
pub(crate) fn period(rate: u32) -> u64 {
    1_000_000_000 / u64::from(rate)
}

/// A guest that is ready to run. Its one import, if it has it, waits until the thread has had the next multiple of
/// `period` nanoseconds of CPU time.
pub(crate) struct Running {
    pub(crate) module: Module,
    pub(crate) store: Store<()>,
    pub(crate) run: TypedFunc<u32, u64>,
}

impl Running {
    pub(crate) fn new(binary: &[u8], config: &Config, period: u64) -> Self {
        let engine = Engine::new(config).unwrap();
        let module = Module::new(&engine, binary).unwrap();
        let mut linker = Linker::new(&engine);
        let wait = move || {
            let next = cpu_time().next_multiple_of(period);
            while cpu_time() < next {}
        };
        linker.func_wrap("env", "wait", wait).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let run = instance.get_typed_func(&mut store, "run").unwrap();
        Self { module, store, run }
    }

    /// How many rounds take about this many nanoseconds.
    pub(crate) fn rounds_for(&mut self, nanoseconds: u64) -> u32 {
        const TRIAL: u32 = 200;
        let before = cpu_time();
        self.run.call(&mut self.store, TRIAL).unwrap();
        let each = (cpu_time() - before) / u64::from(TRIAL);
        u32::try_from(nanoseconds / each).unwrap().max(1)
    }
}

/// Samples a guest on CPU time until there are enough samples. `part_of` says which part of `parts` a stack belongs to.
pub(crate) fn sample(
    binary: &[u8],
    mut running: Running,
    rate: u32,
    samples: u64,
    parts: usize,
    part_of: impl Fn(&Profile, &Stack<'_>) -> Option<usize>,
) -> Batches {
    let mut options = Options::default();
    options.rate = rate;
    let profiler = Profiler::new(options).unwrap();
    profiler.register_module(&running.module, Registered::named("guest").binary(binary.to_vec())).unwrap();
    profiler.attach(&mut running.store).unwrap();
    let batch = samples.div_ceil(BATCHES as u64);
    // Several calls a batch, so that it does not become much larger than asked for.
    let rounds = running.rounds_for(batch * 1_000_000_000 / u64::from(rate) / 20);
    profiler.start().unwrap();

    let mut batches = Batches::default();
    let (mut all, mut elsewhere) = (0, 0);
    for _ in 0..BATCHES {
        while profiler.statistics().unwrap().delivered.samples < batch {
            running.run.call(&mut running.store, rounds).unwrap();
        }
        let profile = profiler.take(Metadata::default()).unwrap();
        let statistics = &profile.metadata.statistics;
        assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
        let mut counts = vec![0; parts];
        for stack in profile.stacks() {
            match part_of(&profile, &stack) {
                Some(part) => counts[part] += stack.tally.samples,
                None => elsewhere += stack.tally.samples,
            }
            all += stack.tally.samples;
        }
        batches.0.push(counts);
    }
    assert!(elsewhere as f64 <= ELSEWHERE * all as f64, "{elsewhere} of {all} samples belong to no part");
    batches
}

/// [`sample`], of a generated guest.
pub(crate) fn sample_generated(guest: &GeneratedGuest, config: &Config, rate: u32, samples: u64) -> Batches {
    let binary = guest.binary();
    let running = Running::new(&binary, config, period(rate));
    sample(&binary, running, rate, samples, guest.parts.len(), |profile, stack| {
        guest.part_of(&guest_functions(profile, stack))
    })
}

/// The names of a stack's guest functions, oldest first.
pub(crate) fn guest_functions<'p>(profile: &'p Profile, stack: &Stack<'_>) -> Vec<&'p str> {
    let frames = stack.frames.iter().map(|&frame| profile.frame(frame));
    frames.filter(|frame| frame.kind == FrameKind::Guest).map(|frame| &*frame.name).collect()
}

pub(crate) fn is_host_call(profile: &Profile, stack: &Stack<'_>) -> bool {
    stack.frames.last().is_some_and(|&frame| profile.frame(frame).kind == FrameKind::HostCall)
}

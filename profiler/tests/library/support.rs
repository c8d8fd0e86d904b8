//! Embeddings of the guests, and what is asked of their profiles.

use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flamewalk::profile::{FrameKind, Metadata, Names, Profile, Stack};
use flamewalk::{Guest as Registered, Options, Profiler};
use flamewalk_guests::{Guest, chain};
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
        let binary = std::fs::read(Guest::KnownAnswerHost.path()).unwrap();
        Self { module: Module::new(&Engine::default(), &binary).unwrap(), binary }
    }

    pub(crate) fn register(&self, profiler: &Profiler) {
        let guest = Registered::named("known_answer").binary(self.binary.clone());
        profiler.register_module(&self.module, guest).unwrap();
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

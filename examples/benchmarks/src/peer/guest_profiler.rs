//! Wasmtime's `GuestProfiler`, set up as the command `wasmtime run --profile=guest` does it: a thread that moves the
//! epoch on at the rate, a callback that samples where the guest notices, and a call hook that notes host calls.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use wasmtime::{
    AsContext, Engine, GuestProfiler, Module, Store, StoreContext, StoreContextMut, UpdateDeadline,
};

use super::{Outcome, Profiling, Run, sizes};
use crate::embedding::{Cost, State};
use crate::error::Error;

pub struct ByWasmtime {
    profiler: Option<Box<GuestProfiler>>,
    engine: Engine,
    period: Duration,
}

impl ByWasmtime {
    pub fn new(rate: u32, module: &Module) -> Result<Self, Error> {
        let period = Duration::from_secs(1) / rate;
        let modules = [("guest".to_owned(), module.clone())];
        let profiler = GuestProfiler::new(module.engine(), "guest", period, modules)?;
        Ok(Self { profiler: Some(Box::new(profiler)), engine: module.engine().clone(), period })
    }
}

fn with_profiler(
    mut store: StoreContextMut<'_, State>,
    act: impl FnOnce(&mut GuestProfiler, StoreContext<'_, State>),
) {
    if let Some(mut profiler) = store.data_mut().guest_profiler.take() {
        act(&mut profiler, store.as_context());
        store.data_mut().guest_profiler = Some(profiler);
    }
}

impl Profiling for ByWasmtime {
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error> {
        store.data_mut().guest_profiler = self.profiler.take();
        store.call_hook(|store, kind| {
            with_profiler(store, |profiler, store| profiler.call_hook(store, kind));
            Ok(())
        });
        store.epoch_deadline_callback(|store| {
            with_profiler(store, |profiler, store| profiler.sample(store, Duration::ZERO));
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_epoch_deadline(1);
        let over = Arc::new(AtomicBool::new(false));
        let ticker = thread::spawn({
            let (engine, period, over) = (self.engine.clone(), self.period, Arc::clone(&over));
            move || {
                // Pair: the store below, which needs no order.
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(period);
                    engine.increment_epoch();
                }
            }
        });
        let cost = run(store);
        over.store(true, Ordering::Relaxed);
        let joined = ticker.join();
        self.profiler = store.data_mut().guest_profiler.take();
        joined.map_err(|_| Error::Unexpected {
            what: "the ticking thread",
            reason: "it has panicked".to_owned(),
        })?;
        cost
    }

    fn finish(self: Box<Self>, folder: &Path) -> Result<Outcome, Error> {
        let path = folder.join("guest-profiler.json");
        let start = Instant::now();
        if let Some(profiler) = self.profiler {
            profiler.finish(BufWriter::new(File::create(&path).map_err(Error::file(&path))?))?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let text = std::fs::read(&path).map_err(Error::file(&path))?;
        let profile: FirefoxProfile = serde_json::from_slice(&text).map_err(|error| Error::Unexpected {
            what: "GuestProfiler's profile",
            reason: error.to_string(),
        })?;
        let stacks: Vec<_> = profile.threads.iter().flat_map(Thread::stacks).collect();
        Ok(Outcome {
            taken: stacks.len() as u64,
            stacks,
            bytes: sizes([path.as_path()]),
            seconds,
            ..Outcome::default()
        })
    }
}

/// The part of the Firefox Profiler's format that names and samples are in.
#[derive(Deserialize)]
struct FirefoxProfile {
    threads: Vec<Thread>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thread {
    samples: Samples,
    stack_table: StackTable,
    frame_table: FrameTable,
    func_table: FuncTable,
    #[serde(default)]
    string_array: Vec<String>,
}

#[derive(Deserialize)]
struct Samples {
    stack: Vec<Option<usize>>,
}

#[derive(Deserialize)]
struct StackTable {
    prefix: Vec<Option<usize>>,
    frame: Vec<usize>,
}

#[derive(Deserialize)]
struct FrameTable {
    func: Vec<usize>,
}

#[derive(Deserialize)]
struct FuncTable {
    name: Vec<usize>,
}

impl Thread {
    /// The names of each sample's stack, oldest first.
    fn stacks(&self) -> impl Iterator<Item = (Vec<String>, f64)> {
        self.samples.stack.iter().map(|&stack| {
            let youngest_first = std::iter::successors(stack, |&stack| self.stack_table.prefix[stack]);
            let name = |stack: usize| {
                let function = self.frame_table.func[self.stack_table.frame[stack]];
                self.string_array[self.func_table.name[function]].clone()
            };
            let mut names: Vec<String> = youngest_first.map(name).collect();
            names.reverse();
            (names, 1.0)
        })
    }
}

//! The embedding that all guests run in, with and without a profiler.

use std::hint::black_box;
use std::path::PathBuf;

use flamewalk_guests::chain;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, GuestProfiler, Instance, InstancePre, Linker, Module, Store,
};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async, add_to_linker_sync};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::error::Error;
use crate::guest::{Entry, Growth, Guest};

/// What a store holds.
pub struct State {
    wasi: WasiP1Ctx,
    /// Wasmtime's own profiler keeps its samples where its callback finds them.
    pub guest_profiler: Option<Box<GuestProfiler>>,
}

/// What a run of a guest took, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time of the guest's thread.
    pub thread: f64,
    /// CPU time of the whole process.
    pub process: f64,
}

/// How a guest is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Calls {
    /// `call`, on the thread's own stack.
    Sync,
    /// `call_async`, on a fiber.
    Async,
}

/// A guest, compiled for an engine.
pub struct Embedded {
    pub module: Module,
    ready: InstancePre<State>,
    guest: Guest,
    calls: Calls,
    runtime: tokio::runtime::Runtime,
}

impl Embedded {
    /// Compiles `binary`, or takes what was compiled before with the same configuration.
    pub fn new(guest: Guest, binary: &[u8], calls: Calls, mut config: Config) -> Result<Self, Error> {
        let mut cache = CacheConfig::new();
        cache.with_directory(cache_folder());
        config.cache(Some(Cache::new(cache)?));
        let engine = Engine::new(&config)?;
        let module = Module::new(&engine, binary)?;
        let mut linker = Linker::new(&engine);
        match calls {
            Calls::Sync => add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi)?,
            Calls::Async => add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?,
        }
        let burn = |steps: u32| {
            black_box(chain(1, u64::from(steps)));
        };
        linker.func_wrap("env", "burn", burn)?;
        match calls {
            Calls::Sync => linker.func_wrap("env", "nothing", |number: u32| number)?,
            Calls::Async => linker.func_wrap_async("env", "nothing", |_, (number,): (u32,)| {
                Box::new(async move {
                    // Off the thread and back on it.
                    tokio::task::yield_now().await;
                    number
                })
            })?,
        };
        let ready = linker.instantiate_pre(&module)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(Error::system("make an executor"))?;
        Ok(Self { module, ready, guest, calls, runtime })
    }

    pub fn store(&self) -> Result<Store<State>, Error> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.allow_blocking_current_thread(true).arg("guest");
        if let Entry::Command { arguments, directory } = self.guest.entry() {
            wasi.args(&arguments);
            if let Some((host, inside)) = directory {
                wasi.preopened_dir(host, inside, FsPerms::ReadOnly)?;
            }
        }
        Ok(Store::new(self.module.engine(), State { wasi: wasi.build_p1(), guest_profiler: None }))
    }

    /// Instantiates the guest and calls it; `amount` is for guests whose work can be chosen. The cost is that of the call
    /// alone.
    pub fn run(&self, store: &mut Store<State>, amount: i32) -> Result<Cost, Error> {
        let instance = match self.calls {
            Calls::Sync => self.ready.instantiate(&mut *store)?,
            Calls::Async => self.runtime.block_on(self.ready.instantiate_async(&mut *store))?,
        };
        let before = now()?;
        match self.guest.entry() {
            Entry::Export { name, .. } => self.call_export(store, &instance, name, amount)?,
            Entry::Command { .. } => {
                let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
                let result = match self.calls {
                    Calls::Sync => start.call(&mut *store, ()),
                    Calls::Async => self.runtime.block_on(start.call_async(&mut *store, ())),
                };
                match result.as_ref().err().and_then(|error| error.downcast_ref::<wasmtime_wasi::I32Exit>()) {
                    Some(wasmtime_wasi::I32Exit(0)) => {}
                    _ => result?,
                }
            }
        }
        let after = now()?;
        Ok(Cost { thread: after.thread - before.thread, process: after.process - before.process })
    }

    /// The exports differ in what they return.
    fn call_export(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        name: &str,
        amount: i32,
    ) -> Result<(), Error> {
        let function = instance
            .get_func(&mut *store, name)
            .ok_or_else(|| Error::Unexpected { what: "a guest", reason: format!("it has no `{name}`") })?;
        let mut results = vec![wasmtime::Val::I32(0); function.ty(&*store).results().len()];
        let arguments = [wasmtime::Val::I32(amount)];
        match self.calls {
            Calls::Sync => function.call(store, &arguments, &mut results)?,
            Calls::Async => self.runtime.block_on(function.call_async(store, &arguments, &mut results))?,
        }
        Ok(())
    }

    /// How much work a guest has to be given for a run of at least these seconds; 0 if it cannot be chosen.
    pub fn amount_for(&self, seconds: f64) -> Result<i32, Error> {
        let Entry::Export { start, times, .. } = self.guest.entry() else { return Ok(0) };
        let mut amount = start;
        while self.run(&mut self.store()?, amount)?.thread < seconds {
            amount = match times {
                Growth::Double => amount.saturating_mul(2),
                Growth::AddOne => amount + 1,
            };
        }
        Ok(amount)
    }
}

/// What this process has taken so far.
pub fn now() -> Result<Cost, Error> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_err(|error| Error::system("read a clock")(error.into()))?;
    let usage =
        getrusage(UsageWho::RUSAGE_SELF).map_err(|error| Error::system("read the CPU time")(error.into()))?;
    let process = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Cost { thread: time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9, process: process as f64 / 1e6 })
}

fn cache_folder() -> PathBuf {
    let target = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
    target.unwrap_or_else(std::env::temp_dir).join("benchmarks-cache")
}

//! The profilers, each behind the same face.

mod flamewalk;
mod floor;
mod guest_profiler;
mod nothing;
mod perf;
mod wasmprof;

pub use perf::check as check_perf;

use std::path::Path;

use clap::ValueEnum;
use floor::Way;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use wasmtime::{Config, Module, Store};

use crate::embedding::{Cost, State};
use crate::error::Error;

/// The name of the frame that stands for the host, whatever a profiler calls it.
pub const HOST: &str = "[host]";

/// What a guest is run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Peer {
    /// Nothing, against nothing: what the machine's noise makes of it
    Nothing,
    /// A perf event's interrupts, which tell nobody
    Interrupt,
    /// The signals of flamewalk's timer, with a handler that returns at once
    EmptyHandler,
    /// The same by SIGTRAP, which perf events send by themselves
    EmptyTrap,
    /// The same by a POSIX timer
    EmptyTimer,
    /// A call hook that returns at once, and no ticks
    EmptyHook,
    /// flamewalk, attached through the call hook
    Flamewalk,
    /// flamewalk, attached by hand
    FlamewalkByHand,
    /// flamewalk with SIGTRAP for its signal
    FlamewalkTrap,
    /// Wasmtime's `GuestProfiler`, as `wasmtime run --profile=guest` uses it
    GuestProfiler,
    /// Shopify's `wasmprof`
    Wasmprof,
    /// `perf record` with Wasmtime's perf map
    Perf,
}

/// A run of a guest, with what it costs.
pub type Run<'r> = &'r mut dyn FnMut(&mut Store<State>) -> Result<Cost, Error>;

/// A profiler of one guest, which is run again and again.
pub trait Profiling {
    /// Runs the guest under the profiler.
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error>;

    /// Ends profiling and leaves the result in `folder`.
    fn finish(self: Box<Self>, folder: &Path) -> Result<Outcome, Error>;
}

/// What a profiler has to show for itself.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Stacks of names, oldest first, and their weight in whatever unit.
    pub stacks: Vec<(Vec<String>, f64)>,
    /// How many samples it took, of the guest or outside of it.
    pub taken: u64,
    /// How many it says that it lost, if it says so.
    pub lost: Option<u64>,
    /// CPU time of processes of its own, in seconds.
    pub elsewhere: f64,
    /// Bytes of the files that it has left.
    pub bytes: u64,
    /// Seconds from the end of the guest until the result was there, with names.
    pub seconds: f64,
}

impl Peer {
    /// What the profiler needs of the engine; `false` if that is nothing, so that the guest's code is the same.
    pub fn configure(self, config: &mut Config) -> bool {
        match self {
            Peer::GuestProfiler | Peer::Wasmprof => {
                config.epoch_interruption(true);
                true
            }
            Peer::Perf => {
                config.profiler(wasmtime::ProfilingStrategy::PerfMap);
                true
            }
            Peer::Nothing
            | Peer::Interrupt
            | Peer::EmptyHandler
            | Peer::EmptyTrap
            | Peer::EmptyTimer
            | Peer::EmptyHook
            | Peer::Flamewalk
            | Peer::FlamewalkByHand
            | Peer::FlamewalkTrap => false,
        }
    }

    /// Makes the profiler ready, for this thread.
    pub fn start(
        self,
        rate: u32,
        module: &Module,
        binary: &[u8],
        folder: &Path,
    ) -> Result<Box<dyn Profiling>, Error> {
        let floor = |way| floor::Floor::new(way, rate).map(Box::new);
        let flamewalk =
            |signal, way| flamewalk::Flamewalk::new(rate, signal, way, module, binary).map(Box::new);
        Ok(match self {
            Peer::Nothing => Box::new(nothing::Nothing),
            Peer::Interrupt => floor(Way::Interrupt)?,
            Peer::EmptyHandler => floor(Way::Signal)?,
            Peer::EmptyTrap => floor(Way::Trap)?,
            Peer::EmptyTimer => floor(Way::Timer)?,
            Peer::EmptyHook => Box::new(nothing::EmptyHook),
            Peer::Flamewalk => flamewalk(Signal::SIGPROF, flamewalk::Way::Hook)?,
            Peer::FlamewalkByHand => flamewalk(Signal::SIGPROF, flamewalk::Way::Hand)?,
            Peer::FlamewalkTrap => flamewalk(Signal::SIGTRAP, flamewalk::Way::Hook)?,
            Peer::GuestProfiler => Box::new(guest_profiler::ByWasmtime::new(rate, module)?),
            Peer::Wasmprof => Box::new(wasmprof::Wasmprof::new(rate)),
            Peer::Perf => Box::new(perf::Perf::new(rate, folder)?),
        })
    }

    /// What the tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Peer::Nothing => "nothing",
            Peer::Interrupt => "interrupt alone",
            Peer::EmptyHandler => "empty handler",
            Peer::EmptyTrap => "empty handler of `SIGTRAP`",
            Peer::EmptyTimer => "empty handler of a POSIX timer",
            Peer::EmptyHook => "empty hook",
            Peer::Flamewalk => "flamewalk",
            Peer::FlamewalkByHand => "flamewalk by hand",
            Peer::FlamewalkTrap => "flamewalk with `SIGTRAP`",
            Peer::GuestProfiler => "GuestProfiler",
            Peer::Wasmprof => "wasmprof",
            Peer::Perf => "perf record",
        }
    }
}

/// Whether a frame shows that nobody knows what it is called.
pub fn is_unnamed(frame: &str) -> bool {
    let frame = frame.rsplit("::").next().unwrap_or(frame);
    frame.is_empty()
        || frame == "[unknown]"
        || frame == "<unknown>"
        || ["wasm-function[", "wasm_function[", "function[", "<wasm function ", "0x"]
            .iter()
            .any(|start| frame.starts_with(start))
}

/// The sum of the sizes of files, of which some may not exist.
fn sizes<'p>(paths: impl IntoIterator<Item = &'p Path>) -> u64 {
    paths.into_iter().filter_map(|path| std::fs::metadata(path).ok()).map(|data| data.len()).sum()
}

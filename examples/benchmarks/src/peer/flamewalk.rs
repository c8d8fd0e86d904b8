//! flamewalk, as an embedder uses it.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use ::flamewalk::profile::{FrameKind, Metadata, native};
use ::flamewalk::{Guest, Options, Profiler};
use nix::sys::signal::Signal;
use wasmtime::{Module, Store};

use super::{HOST, Outcome, Profiling, Run, sizes};
use crate::embedding::{Cost, State};
use crate::error::Error;

/// How stores are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through their call hook.
    Hook,
    /// Without it, and the thread by hand.
    Hand,
}

pub struct Flamewalk {
    profiler: Profiler,
    way: Way,
}

impl Flamewalk {
    pub fn new(rate: u32, signal: Signal, way: Way, module: &Module, binary: &[u8]) -> Result<Self, Error> {
        let mut options = Options::default();
        options.rate = rate;
        options.signal = signal;
        let profiler = Profiler::new(options)?;
        profiler.register_module(module, Guest::named("guest").binary(binary.to_vec()))?;
        // Paused between the runs that are profiled, so that all of them make one profile.
        profiler.start()?;
        profiler.pause()?;
        Ok(Self { profiler, way })
    }
}

impl Profiling for Flamewalk {
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error> {
        // The store is attached for as long as this lives.
        let _by_hand = match self.way {
            Way::Hook => {
                self.profiler.attach(store)?;
                None
            }
            Way::Hand => {
                self.profiler.attach_thread()?;
                Some(self.profiler.hook(&mut *store)?)
            }
        };
        self.profiler.resume()?;
        let cost = run(store);
        self.profiler.pause()?;
        cost
    }

    fn finish(self: Box<Self>, folder: &Path) -> Result<Outcome, Error> {
        let path = folder.join("profile.flamewalk");
        let start = Instant::now();
        let profile = self.profiler.stop(Metadata::default())?;
        native::write(&profile, BufWriter::new(File::create(&path).map_err(Error::file(&path))?))?;
        let seconds = start.elapsed().as_secs_f64();
        let statistics = &profile.metadata.statistics;
        let name = |frame: &::flamewalk::profile::Frame| match frame.kind {
            FrameKind::HostCall => HOST.to_owned(),
            _ => frame.name.to_string(),
        };
        let stacks = profile.stacks().map(|stack| {
            let names = stack.frames.iter().map(|&frame| name(profile.frame(frame))).collect();
            (names, stack.tally.weight as f64)
        });
        Ok(Outcome {
            stacks: stacks.collect(),
            taken: statistics.delivered.samples + statistics.outside.samples,
            lost: Some(statistics.total_lost().samples),
            bytes: sizes([path.as_path()]),
            seconds,
            elsewhere: 0.0,
        })
    }
}

//! `wasmprof`: backtraces where the guest notices that the epoch has moved on.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use wasmtime::Store;

use super::{Outcome, Profiling, Run, sizes};
use crate::embedding::{Cost, State};
use crate::error::Error;

pub struct Wasmprof {
    rate: u32,
    /// Folded stacks of all runs, each with its weight and samples.
    stacks: HashMap<String, (u128, u64)>,
    /// What it took to name the frames of the last run.
    seconds: f64,
}

impl Wasmprof {
    pub fn new(rate: u32) -> Self {
        Self { rate, stacks: HashMap::new(), seconds: 0.0 }
    }
}

impl Profiling for Wasmprof {
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error> {
        let mut end = Instant::now();
        let builder = wasmprof::ProfilerBuilder::new(store).frequency(self.rate);
        let (cost, data) = builder.profile(|store| {
            let cost = run(store);
            end = Instant::now();
            cost
        });
        let folded = data.into_collapsed_stacks().to_string();
        // Its result is one of each run; all are needed for that of the whole.
        self.seconds += end.elapsed().as_secs_f64();
        for line in folded.lines() {
            let Some((stack, weight)) = line.rsplit_once(' ') else { continue };
            let weight: u128 = weight.parse().unwrap_or_default();
            let sum = self.stacks.entry(stack.to_owned()).or_default();
            *sum = (sum.0 + weight, sum.1 + 1);
        }
        cost
    }

    fn finish(self: Box<Self>, folder: &Path) -> Result<Outcome, Error> {
        let path = folder.join("wasmprof.folded");
        let start = Instant::now();
        let lines: String =
            self.stacks.iter().map(|(stack, (weight, _))| format!("{stack} {weight}\n")).collect();
        std::fs::write(&path, lines).map_err(Error::file(&path))?;
        let names = |stack: &str| stack.split(';').map(str::to_owned).collect();
        Ok(Outcome {
            stacks: self.stacks.iter().map(|(stack, (weight, _))| (names(stack), *weight as f64)).collect(),
            taken: self.stacks.values().map(|(_, samples)| samples).sum(),
            bytes: sizes([path.as_path()]),
            seconds: self.seconds + start.elapsed().as_secs_f64(),
            ..Outcome::default()
        })
    }
}

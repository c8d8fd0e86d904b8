//! One measurement: a guest under one profiler, in pairs of a run with and a run without it, in a process of its own.
//!
//! A pair is of two runs right after each other, so that whatever else the machine does slows both; every other pair is
//! the other way round. What is compared is the CPU time of the guest's thread, in which interrupts and signals are
//! included, and that of the process with what works for the profiler elsewhere.

use std::path::Path;

use clap::Args;
use serde::{Deserialize, Serialize};
use wasmtime::Config;

use crate::embedding::{Calls, Cost, Embedded};
use crate::error::Error;
use crate::guest::Guest;
use crate::peer::{Outcome, Peer, is_unnamed};

/// What is measured.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Subject {
    /// The guest.
    #[arg(long)]
    pub guest: Guest,
    /// The profiler.
    #[arg(long)]
    pub peer: Peer,
    /// Ticks a second.
    #[arg(long)]
    pub rate: u32,
    /// Whether the guest is called asynchronously.
    #[arg(long)]
    pub asynchronous: bool,
    /// Seconds of CPU time to measure for, pairs taken together.
    #[arg(long)]
    pub seconds: f64,
}

/// What came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    pub subject: Subject,
    /// For each pair, the CPU time of the guest's thread with the profiler over that without.
    pub thread_ratios: Vec<f64>,
    /// CPU time of everything else that works for the profiler, over that of the guest's thread.
    pub elsewhere: f64,
    /// How many ticks the rate makes of the CPU time of the runs with the profiler.
    pub asked: f64,
    pub taken: u64,
    pub lost: Option<u64>,
    /// The share of frames that have no name.
    pub unnamed: Option<f64>,
    /// From the true shares, where they are known: the total variation, from 0 to 1.
    pub distance: Option<f64>,
    /// What the distance of as many independent samples is on average.
    pub chance: Option<f64>,
    pub bytes: u64,
    pub seconds: f64,
}

/// The least time of a run, in seconds: long enough for a hundred ticks at 997 Hz, short enough for many pairs.
const RUN_SECONDS: f64 = 0.1;
/// Fewer pairs tell nothing.
const LEAST_PAIRS: usize = 6;

/// Measures, in this process.
pub fn measure(subject: &Subject, folder: &Path) -> Result<Measurement, Error> {
    let binary = subject.guest.binary()?;
    let calls = if subject.asynchronous { Calls::Async } else { Calls::Sync };
    let without = Embedded::new(subject.guest, &binary, calls, Config::new())?;
    let mut config = Config::new();
    let changes_code = subject.peer.configure(&mut config);
    let other = match changes_code {
        true => Some(Embedded::new(subject.guest, &binary, calls, config)?),
        false => None,
    };
    let with = other.as_ref().unwrap_or(&without);

    let amount = without.amount_for(RUN_SECONDS)?;
    let mut profiling = subject.peer.start(subject.rate, &with.module, &binary, folder)?;
    let run_without = || -> Result<Cost, Error> {
        let mut store = without.store()?;
        // Guests that are not metered by the engine do not look at it.
        store.set_epoch_deadline(u64::MAX / 2);
        without.run(&mut store, amount)
    };
    run_without()?;
    let mut costs: Vec<(Cost, Cost)> = Vec::new();
    let mut taken_seconds = 0.0;
    while taken_seconds < subject.seconds || costs.len() < LEAST_PAIRS {
        let mut run_with = || {
            let mut store = with.store()?;
            profiling.profile(&mut store, &mut |store| with.run(store, amount))
        };
        let pair = match costs.len() % 2 {
            0 => {
                let first = run_without()?;
                (first, run_with()?)
            }
            _ => {
                let first = run_with()?;
                (run_without()?, first)
            }
        };
        taken_seconds += pair.0.thread + pair.1.thread;
        costs.push(pair);
    }
    Ok(summarize(subject, &costs, profiling.finish(folder)?))
}

fn summarize(subject: &Subject, costs: &[(Cost, Cost)], outcome: Outcome) -> Measurement {
    let with: f64 = costs.iter().map(|(_, with)| with.thread).sum();
    let beside: f64 = costs.iter().map(|(_, with)| with.process - with.thread).sum();
    let frames =
        || outcome.stacks.iter().flat_map(|(stack, weight)| stack.iter().map(move |name| (name, weight)));
    let all: f64 = frames().map(|(_, weight)| weight).sum();
    let unnamed: f64 = frames().filter(|(name, _)| is_unnamed(name)).map(|(_, weight)| weight).sum();
    let stacks =
        || outcome.stacks.iter().map(|(stack, weight)| (stack.iter().map(String::as_str).collect(), *weight));
    Measurement {
        subject: subject.clone(),
        thread_ratios: costs.iter().map(|(without, with)| with.thread / without.thread).collect(),
        elsewhere: (beside.max(0.0) + outcome.elsewhere) / with,
        asked: with * f64::from(subject.rate),
        taken: outcome.taken,
        lost: outcome.lost,
        unnamed: (all > 0.0).then(|| unnamed.abs() / all),
        distance: subject.guest.truth().filter(|_| all > 0.0).map(|truth| truth.distance(stacks())),
        chance: subject.guest.truth().map(|truth| truth.chance(outcome.taken)),
        bytes: outcome.bytes,
        seconds: outcome.seconds,
    }
}

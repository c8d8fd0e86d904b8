//! Measurements: a guest under profilers, in rounds of a run without and a run with each of them, in one process.
//!
//! The runs of a round follow each other, so that whatever else the machine does slows all of them; every other round is
//! the other way round. What is compared is the CPU time of the guest's thread, in which interrupts and signals are
//! included, and that of the process with what works for the profiler elsewhere.

use std::path::Path;

use clap::Args;
use serde::{Deserialize, Serialize};
use wasmtime::{Config, Module, Store};

use crate::embedding::{Calls, Cost, Embedded, State};
use crate::error::Error;
use crate::guest::Guest;
use crate::peer::{Outcome, Peer, Profiling, is_unnamed};
use crate::statistics::Estimate;

/// What is measured together, in one process.
#[derive(Debug, Clone, Args)]
pub struct Subject {
    /// The guest.
    #[arg(long)]
    pub guest: Guest,
    /// The profilers; one flamewalk at most.
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Ticks a second.
    #[arg(long)]
    pub rate: u32,
    /// Whether the guest is called asynchronously.
    #[arg(long)]
    pub asynchronous: bool,
    /// Seconds of CPU time for each profiler, and for the guest without; up to twice as many if that tells too little.
    #[arg(long)]
    pub seconds: f64,
}

/// What came out for one profiler.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    pub guest: Guest,
    pub peer: Peer,
    /// Ticks a second.
    pub rate: u32,
    pub asynchronous: bool,
    /// For each round, by which part of the time without it the profiler has made the guest's thread slower.
    pub slowdowns: Vec<f64>,
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

/// The least time of a run, in seconds: long enough for a hundred ticks at 997 Hz, short enough for many rounds.
const RUN_SECONDS: f64 = 0.1;
/// Fewer rounds tell nothing.
const LEAST_ROUNDS: usize = 6;

/// A profiler at work on its guest.
struct Rival {
    peer: Peer,
    /// The guest compiled as the profiler needs it, if that is not as usual.
    compiled: Option<Embedded>,
    profiling: Box<dyn Profiling>,
    costs: Vec<Cost>,
}

/// Measures, in this process.
pub fn measure(subject: &Subject, folder: &Path) -> Result<Vec<Measurement>, Error> {
    let binary = subject.guest.binary()?;
    let calls = if subject.asynchronous { Calls::Async } else { Calls::Sync };
    let usual = Embedded::new(subject.guest, &binary, calls, Config::new())?;
    let amount = usual.amount_for(RUN_SECONDS)?;
    let mut rivals = Vec::new();
    for &peer in &subject.peers {
        let mut config = Config::new();
        let changes_code = peer.configure(&mut config);
        let compiled =
            changes_code.then(|| Embedded::new(subject.guest, &binary, calls, config)).transpose()?;
        let module: &Module = compiled.as_ref().map_or(&usual.module, |compiled| &compiled.module);
        let profiling = peer.start(subject.rate, module, &binary, folder)?;
        rivals.push(Rival { peer, compiled, profiling, costs: Vec::new() });
    }
    let run_without = || -> Result<Cost, Error> {
        let mut store = usual.store()?;
        // Guests that are not metered by the engine do not look at it.
        store.set_epoch_deadline(u64::MAX / 2);
        usual.run(&mut store, amount)
    };
    run_without()?;
    let mut without: Vec<Cost> = Vec::new();
    loop {
        if without.len().is_multiple_of(2) {
            without.push(run_without()?);
            rivals.iter_mut().try_for_each(|rival| rival.run(&usual, amount))?;
        } else {
            rivals.iter_mut().rev().try_for_each(|rival| rival.run(&usual, amount))?;
            without.push(run_without()?);
        }
        if is_enough(subject.seconds, &without, &rivals) {
            break;
        }
    }
    rivals.into_iter().map(|rival| rival.result(subject, &without, folder)).collect()
}

fn is_enough(seconds: f64, without: &[Cost], rivals: &[Rival]) -> bool {
    let taken: f64 = without.iter().map(|cost| cost.thread).sum();
    if without.len() < LEAST_ROUNDS || taken < seconds {
        return false;
    }
    // An estimate takes longer than a glance, and looking for luck at each round would bring some.
    let is_time_to_look = without.len().is_multiple_of(4);
    taken >= 2.0 * seconds
        || is_time_to_look
            && rivals
                .iter()
                .all(|rival| Estimate::of(&rival.slowdowns(without)).is_some_and(Estimate::is_telling))
}

impl Rival {
    fn run(&mut self, usual: &Embedded, amount: i32) -> Result<(), Error> {
        let guest = self.compiled.as_ref().unwrap_or(usual);
        let mut store: Store<State> = guest.store()?;
        let cost = self.profiling.profile(&mut store, &mut |store| guest.run(store, amount))?;
        self.costs.push(cost);
        Ok(())
    }

    fn slowdowns(&self, without: &[Cost]) -> Vec<f64> {
        without.iter().zip(&self.costs).map(|(without, with)| with.thread / without.thread - 1.0).collect()
    }

    fn result(self, subject: &Subject, without: &[Cost], folder: &Path) -> Result<Measurement, Error> {
        let slowdowns = self.slowdowns(without);
        let outcome = self.profiling.finish(folder)?;
        Ok(summarize(subject, self.peer, slowdowns, &self.costs, outcome))
    }
}

fn summarize(
    subject: &Subject,
    peer: Peer,
    slowdowns: Vec<f64>,
    costs: &[Cost],
    outcome: Outcome,
) -> Measurement {
    let with: f64 = costs.iter().map(|cost| cost.thread).sum();
    let beside: f64 = costs.iter().map(|cost| cost.process - cost.thread).sum();
    let frames =
        || outcome.stacks.iter().flat_map(|(stack, weight)| stack.iter().map(move |name| (name, weight)));
    let all: f64 = frames().map(|(_, weight)| weight).sum();
    let unnamed: f64 = frames().filter(|(name, _)| is_unnamed(name)).map(|(_, weight)| weight).sum();
    let stacks =
        || outcome.stacks.iter().map(|(stack, weight)| (stack.iter().map(String::as_str).collect(), *weight));
    Measurement {
        guest: subject.guest,
        peer,
        rate: subject.rate,
        asynchronous: subject.asynchronous,
        slowdowns,
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

/// By which part of its time a guest is slower for what no profiler that is told of its ticks and its threads as
/// `peer` is does without, round by round: a handler that returns at once, and, if it was measured as well, a call hook
/// that does. The guest takes as much longer for the hooks, and ticks come in all of that time. Who is attached by hand has no
/// hook.
pub fn floor(
    measurements: &[Measurement],
    guest: Guest,
    asynchronous: bool,
    (peer, rate): (Peer, u32),
) -> Option<Vec<f64>> {
    let of = |peer| find(measurements, guest, asynchronous, (peer, rate));
    let handler = &of(Peer::EmptyHandler)?.slowdowns;
    Some(match of(Peer::EmptyHook).filter(|_| peer != Peer::FlamewalkByHand) {
        Some(hook) => {
            let both = |(handler, hook): (&f64, &f64)| (1.0 + handler) * (1.0 + hook) - 1.0;
            handler.iter().zip(&hook.slowdowns).map(both).collect()
        }
        None => handler.clone(),
    })
}

/// The measurement of a guest under a profiler at a rate, if it was made.
pub fn find(
    measurements: &[Measurement],
    guest: Guest,
    asynchronous: bool,
    (peer, rate): (Peer, u32),
) -> Option<&Measurement> {
    measurements.iter().find(|measurement| {
        measurement.guest == guest
            && measurement.asynchronous == asynchronous
            && measurement.peer == peer
            && measurement.rate == rate
    })
}

//! What fell on each function and on each call path, run by run.
//!
//! # How much a sample tells
//! Samples stand for different weights: the period varies, and signals merge. The variance of a sum of weights comes
//! from the sum of their squares, which is kept along with the weight. Profiles hold sums per stack and origin, so that
//! the squares are estimated: within one sum, samples are taken to be equal but for a variance that is the same
//! everywhere, as far as the means of the sums show it. Where weights depend on the function, as with merged signals,
//! that errs on the side of noise.

use std::collections::BTreeMap;

use flamewalk_profile::{Profile, Tally};
use indexmap::IndexSet;

use super::matching::Callers;

/// The function of a frame that is left out of the comparison.
pub(super) const LEFT_OUT: usize = usize::MAX;
/// The caller of a path's first function.
pub(super) const ROOT: usize = usize::MAX;

/// What fell on something in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mass {
    pub(super) tally: Tally,
    /// Sum of the squares of the samples' weights.
    pub(super) squares: f64,
}

impl Mass {
    /// Cannot overflow within one profile: no part of it exceeds its total. Runs together may, and saturate.
    pub(super) fn add(&mut self, other: Mass) {
        self.tally.samples = self.tally.samples.saturating_add(other.tally.samples);
        self.tally.weight = self.tally.weight.saturating_add(other.tally.weight);
        self.squares += other.squares;
    }
}

/// One profile, counted.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) total: Mass,
    /// By stack.
    stacks: Vec<Mass>,
    /// Whether the number of samples is known, and with it what noise to expect.
    pub(super) samples_known: bool,
}

impl Run {
    /// `period` is the weight of a sample of a profile that does not hold the number of its samples.
    pub(super) fn new(profile: &Profile, period: Option<u64>) -> Self {
        let total = profile.total();
        let period = profile.metadata.period.or(period).filter(|&period| period > 0);
        let samples_known = total.samples > 0 || period.is_some();
        let mut stacks = vec![Mass::default(); profile.stacks().len()];
        if total.samples > 0 {
            let variance = variance(profile);
            for sample in profile.samples() {
                stacks[sample.stack.index()].add(mass(sample.tally, variance));
            }
        } else {
            for (mass, stack) in stacks.iter_mut().zip(profile.stacks()) {
                let weight = stack.tally.weight;
                let samples = period.map_or(0, |period| weight.div_ceil(period));
                let squares = period.map_or(0.0, |period| weight as f64 * period as f64);
                mass.add(Mass { tally: Tally { samples, weight }, squares });
            }
        }
        let mut sum = Mass::default();
        stacks.iter().for_each(|&mass| sum.add(mass));
        Self { total: sum, stacks, samples_known }
    }
}

fn mass(tally: Tally, variance: f64) -> Mass {
    // Weight without a sample counts as one.
    let samples = tally.samples.max(1) as f64;
    let weight = tally.weight as f64;
    Mass { tally, squares: weight * weight / samples + (samples - 1.0) * variance }
}

/// The variance of single weights, from how the means of the sums differ.
fn variance(profile: &Profile) -> f64 {
    let total = profile.total();
    let mean = total.weight as f64 / total.samples as f64;
    let (mut squares, mut sums) = (0.0, 0.0);
    for sample in profile.samples().filter(|sample| sample.tally.samples > 0) {
        let samples = sample.tally.samples as f64;
        squares += samples * (sample.tally.weight as f64 / samples - mean).powi(2);
        sums += 1.0;
    }
    if sums > 1.0 { squares / (sums - 1.0) } else { 0.0 }
}

/// The counts of all runs, by function and by call path.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By run and function: samples in which it is the youngest frame.
    pub(super) own: Vec<Vec<Mass>>,
    /// By run and function: samples that have it anywhere on the stack.
    pub(super) total: Vec<Vec<Mass>>,
    /// Call paths as a tree: each one's caller, or [`ROOT`], and its function. Callers come first.
    pub(super) paths: IndexSet<(usize, usize)>,
    /// By run and path: samples whose stacks are the path, and those whose stacks begin with it. Shorter than `paths`
    /// for runs that lack those at the end.
    pub(super) on_path: Vec<Vec<[Mass; 2]>>,
}

impl Counts {
    /// Adds a run. `functions` are those of the profile's frames, of which there are `count` in all.
    pub(super) fn add(&mut self, profile: &Profile, run: &Run, functions: &[usize], count: usize) {
        let mut own = vec![Mass::default(); count];
        let mut total = vec![Mass::default(); count];
        let mut on_path = vec![[Mass::default(); 2]; self.paths.len()];
        // The last stack that was counted for each function; stacks count from 1.
        let mut counted_in = vec![0; count];
        for ((stack, &mass), number) in profile.stacks().zip(&run.stacks).zip(1_u64..) {
            if stack.tally.weight == 0 {
                continue;
            }
            let mut path = ROOT;
            let mut youngest = None;
            for frame in stack.frames {
                let function = functions[frame.index()];
                if function == LEFT_OUT {
                    continue;
                }
                if counted_in[function] != number {
                    counted_in[function] = number;
                    total[function].add(mass);
                }
                path = self.paths.insert_full((path, function)).0;
                if path == on_path.len() {
                    on_path.push([Mass::default(); 2]);
                }
                on_path[path][1].add(mass);
                youngest = Some(function);
            }
            if let Some(function) = youngest {
                own[function].add(mass);
                on_path[path][0].add(mass);
            }
        }
        self.own.push(own);
        self.total.push(total);
        self.on_path.push(on_path);
    }

    /// What fell on a path by run: self, then total.
    pub(super) fn path(&self, path: usize) -> [Vec<Mass>; 2] {
        [0, 1].map(|what| {
            self.on_path.iter().map(|run| run.get(path).copied().unwrap_or_default()[what]).collect()
        })
    }
}

/// For each of `count` functions of one side its callers.
pub(super) fn callers<'p>(
    profiles: impl Iterator<Item = (&'p Profile, &'p [usize])>,
    count: usize,
) -> Callers {
    let mut callers = vec![BTreeMap::new(); count];
    for (profile, functions) in profiles {
        for stack in profile.stacks() {
            for pair in stack.frames.windows(2) {
                let [caller, called] = [pair[0], pair[1]].map(|frame| functions[frame.index()]);
                if caller != called {
                    let weight: &mut u64 = callers[called].entry(caller).or_default();
                    *weight = weight.saturating_add(stack.tally.weight);
                }
            }
        }
    }
    callers
}

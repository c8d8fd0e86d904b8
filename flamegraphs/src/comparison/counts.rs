//! What fell on each function and on each call path, run by run.
//!
//! # How much a sample tells
//! Samples stand for different weights: the period varies, and signals merge. The variance of a sum of weights comes
//! from the sum of their squares, which is kept along with the weight. Profiles hold sums per stack and origin, so that
//! the squares are estimated: within one sum, samples are equal but for a variance that shows in how the sums of one
//! stack differ from slice to slice. Stacks with few sums take it from all of them together. In a profile without slices it is what most stacks differ by from the usual weight; and where a
//! stack's weights are a multiple of that, they vary as those of signals that merge by chance with the next one do.

use std::collections::BTreeMap;

use flamewalk_profile::{Profile, Sample, Tally};
use indexmap::IndexSet;

use super::matching::Callers;

/// The function of a frame that is left out of the comparison.
pub(super) const LEFT_OUT: usize = usize::MAX;
/// The caller of a path's first function.
pub(super) const ROOT: usize = usize::MAX;

/// A variance from fewer values than this is too far off.
const ENOUGH_DEGREES: f64 = 30.0;
/// The median of the square of a standard normal value.
const MEDIAN_OF_SQUARE: f64 = 0.454_936;

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
            let noise = Noise::new(profile);
            for sample in profile.samples() {
                stacks[sample.stack.index()].add(noise.mass(sample));
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

/// How the weights of the samples of one sum differ.
enum Noise {
    /// The variance of each stack, from its own sums.
    OfStacks(Vec<f64>),
    /// There are too few sums: the variance of the usual weight, of which others may be multiples.
    Usual { weight: f64, variance: f64 },
}

impl Noise {
    fn new(profile: &Profile) -> Self {
        let means: Vec<f64> = profile
            .stacks()
            .map(|stack| stack.tally.weight as f64 / stack.tally.samples.max(1) as f64)
            .collect();
        // Deviations and degrees of freedom, by stack.
        let mut sums: Vec<(f64, f64)> = vec![(0.0, -1.0); means.len()];
        for sample in profile.samples() {
            let (squares, degrees) = &mut sums[sample.stack.index()];
            *squares += deviation(sample.tally, means[sample.stack.index()]);
            *degrees += 1.0;
        }
        let (squares, degrees) =
            sums.iter().fold((0.0, 0.0), |sum, stack| (sum.0 + stack.0, sum.1 + stack.1));
        if degrees >= ENOUGH_DEGREES {
            let of_stack = |(own_squares, own_degrees)| {
                if own_degrees >= ENOUGH_DEGREES { own_squares / own_degrees } else { squares / degrees }
            };
            return Self::OfStacks(sums.into_iter().map(of_stack).collect());
        }
        let weight = median(means);
        let deviations = profile.stacks().map(|stack| deviation(stack.tally, weight)).collect();
        Self::Usual { weight, variance: median(deviations) / MEDIAN_OF_SQUARE }
    }

    fn mass(&self, Sample { stack, tally, .. }: Sample) -> Mass {
        // Weight without a sample counts as one.
        let samples = tally.samples.max(1) as f64;
        let mean = tally.weight as f64 / samples;
        let variance = match self {
            Self::OfStacks(variances) => variances[stack.index()],
            // How often a signal merges with the next one is distributed geometrically.
            Self::Usual { weight, variance } => variance + (mean * (mean - weight)).max(0.0),
        };
        Mass { tally, squares: samples * mean * mean + (samples - 1.0) * variance }
    }
}

/// The square of how far a sum is off, in the scale of a single weight.
fn deviation(tally: Tally, mean: f64) -> f64 {
    let samples = tally.samples.max(1) as f64;
    samples * (tally.weight as f64 / samples - mean).powi(2)
}

/// The middle of some numbers; 0 for none.
fn median(mut numbers: Vec<f64>) -> f64 {
    if numbers.is_empty() {
        return 0.0;
    }
    let middle = numbers.len() / 2;
    *numbers.select_nth_unstable_by(middle, f64::total_cmp).1
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

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, Origin};

    use super::*;

    /// A profile of samples of 1,000 ± `spread`, of which those of function 0 are merged from ten on average, and the
    /// sum of the squares that it has in truth.
    fn profile(functions: u64, slices: u32, spread: u64) -> (Profile, f64) {
        let mut profile = Profile::default();
        let mut squares = 0.0;
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for function in 0..functions {
            let frame = profile.intern(Frame::guest(format!("f{function}")));
            for sample in 0..1_000_u32 {
                let mut weight = 1_000 - spread + 2 * spread * random(2);
                while function == 0 && random(10) > 0 {
                    weight += 1_000;
                }
                let origin =
                    Origin { slice: (slices > 0).then(|| sample % slices.max(1)), ..Origin::default() };
                profile.add_from(&[frame], origin, Tally { samples: 1, weight }).unwrap();
                squares += (weight as f64).powi(2);
            }
        }
        (profile, squares)
    }

    #[test]
    fn squares_are_those_of_the_samples() {
        for (functions, slices, spread) in
            [(50, 100, 0), (50, 100, 500), (2, 100, 0), (51, 0, 0), (51, 0, 500), (6, 0, 0)]
        {
            let (profile, squares) = profile(functions, slices, spread);
            let estimated = Run::new(&profile, None).total.squares;
            // From a thousand merged samples, whose squares vary by five times their mean.
            let ratio = estimated / squares;
            assert!((0.8..1.25).contains(&ratio), "{functions} {slices} {spread}: {ratio}");
        }
    }

    #[test]
    fn a_period_stands_in_for_the_number_of_samples() {
        let mut profile = Profile::default();
        let frame = profile.intern(Frame::guest("f"));
        profile.add(&[frame], Tally { samples: 0, weight: 5_000 }).unwrap();
        assert!(!Run::new(&profile, None).samples_known);
        let run = Run::new(&profile, Some(1_000));
        assert!(run.samples_known);
        assert_eq!(run.total.tally.samples, 5);
        assert_eq!(run.total.squares, 5e6);
        profile.metadata.period = Some(2_500);
        assert_eq!(Run::new(&profile, Some(1_000)).total.tally.samples, 2);
    }
}

//! How much a run differs from another one from stretch to stretch.
//!
//! A run is cut into stretches of equal weight. What is the same program is in the same phase in the same stretch of
//! both runs, so that phases do not matter; what disturbs one of the runs for a while does, and shows as differences
//! that vary more than samples that fall independently. Something else does too: a change that is only in a part of the
//! run. One run of each side cannot tell the two apart.

use std::collections::BTreeMap;

use flamewalk_profile::Profile;

use super::counts::{Counts, LEFT_OUT, ROOT};

/// Enough to judge a variance by, and so few that a disturbance is not spread over many.
pub(super) const STRETCHES: usize = 16;
/// What is not followed.
pub(super) const UNFOLLOWED: usize = usize::MAX;

/// Weights by stretch.
pub(super) type Series = [f64; STRETCHES];

/// The stretches of one run.
pub(super) struct Stretches {
    of_slice: BTreeMap<u32, usize>,
    pub(super) whole: Series,
}

impl Stretches {
    /// `None` if the profile does not say when its samples were taken, or not finely enough.
    pub(super) fn new(profile: &Profile) -> Option<Self> {
        let mut weights: BTreeMap<u32, f64> = BTreeMap::new();
        for sample in profile.samples() {
            *weights.entry(sample.origin.slice?).or_default() += sample.tally.weight as f64;
        }
        let total: f64 = weights.values().sum();
        let mut stretches = Self { of_slice: BTreeMap::new(), whole: [0.0; STRETCHES] };
        let mut before = 0.0;
        for (slice, weight) in weights {
            let middle = (before + weight / 2.0) / total;
            let stretch = ((middle * STRETCHES as f64) as usize).min(STRETCHES - 1);
            stretches.of_slice.insert(slice, stretch);
            stretches.whole[stretch] += weight;
            before += weight;
        }
        stretches.whole.iter().all(|&weight| weight > 0.0).then_some(stretches)
    }
}

/// What to follow through the stretches: a number for each, or [`UNFOLLOWED`].
pub(super) struct Followed {
    /// By function: self and total.
    pub(super) functions: Vec<[usize; 2]>,
    /// By path: self and total.
    pub(super) paths: Vec<[usize; 2]>,
    /// How many numbers there are.
    pub(super) count: usize,
}

impl Followed {
    /// The weights of each in one run.
    pub(super) fn series(
        &self,
        profile: &Profile,
        functions: &[usize],
        counts: &Counts,
        stretches: &Stretches,
    ) -> Vec<Series> {
        let mut series = vec![[0.0; STRETCHES]; self.count];
        let of_stacks: Vec<Vec<usize>> = profile
            .stacks()
            .map(|stack| self.on_stack(stack.frames.iter().map(|frame| functions[frame.index()]), counts))
            .collect();
        for sample in profile.samples() {
            let Some(&stretch) = sample.origin.slice.and_then(|slice| stretches.of_slice.get(&slice)) else {
                continue;
            };
            for &number in &of_stacks[sample.stack.index()] {
                series[number][stretch] += sample.tally.weight as f64;
            }
        }
        series
    }

    /// The numbers that a stack counts for, each once.
    fn on_stack(&self, functions: impl Iterator<Item = usize>, counts: &Counts) -> Vec<usize> {
        let mut numbers = Vec::new();
        let (mut path, mut youngest) = (ROOT, None);
        for function in functions.filter(|&function| function != LEFT_OUT) {
            numbers.push(self.functions[function][1]);
            // Paths without weight were not counted.
            let Some(index) = counts.paths.get_index_of(&(path, function)) else { break };
            path = index;
            numbers.push(self.paths[path][1]);
            youngest = Some(function);
        }
        if let Some(function) = youngest {
            numbers.extend([self.functions[function][0], self.paths[path][0]]);
        }
        numbers.retain(|&number| number != UNFOLLOWED);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

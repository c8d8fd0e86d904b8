//! All tests of one comparison, and what they say together.
//!
//! Whatever a comparison may call significant belongs to one family: self and total of functions, call paths, and
//! costs per unit of work. The weighted Holm–Bonferroni method bounds the probability of any false claim among them. The
//! weights go with the variance of a share in percentage points, so that small functions, of which smaller changes are
//! found in any case, do not make it harder to find changes in large ones; they depend on both sides together, which
//! says nothing of the difference.
//!
//! A test belongs to the family by how much fell on it on both sides together, which says nothing of the difference: it is
//! left out below the smallest share that is asked for, and if nothing could be told from it. Where two of them count
//! the very same samples, as self and total of a leaf do, they are one.
//!
//! # Intervals
//! They hold the truth in all tests of the family at once (Bonferroni), and agree with the tests: that of a significant
//! difference ends at zero at the latest, that of another one reaches it.

use flamewalk_profile::Tally;
use indexmap::IndexMap;

use super::{
    change::{Cost, Difference},
    counts::Mass,
    moderation::Moderation,
    significance::{Evidence, Measure, Part, STRETCH_DEGREES},
    stretches::Series,
};

/// What the runs are: the whole of each, those of the base first.
pub(super) struct Runs {
    pub(super) wholes: Vec<Mass>,
    /// How many of them are the base's.
    pub(super) base: usize,
    /// Units of work of one run of each side.
    pub(super) work: Option<[f64; 2]>,
    /// Whether noise can be estimated at all.
    pub(super) testable: bool,
}

impl Runs {
    /// What something cost one side (0 for the base, 1 for the new build), given what fell on it in each run.
    pub(super) fn cost(&self, parts: &[Mass], side: usize) -> Cost {
        let runs = if side == 0 { 0..self.base } else { self.base..parts.len() };
        let sum = |masses: &[Mass]| {
            let mut sum = Mass::default();
            masses.iter().for_each(|&mass| sum.add(mass));
            sum.tally
        };
        let Tally { samples, weight } = sum(&parts[runs.clone()]);
        let share = weight as f64 / sum(&self.wholes[runs.clone()]).weight as f64;
        let per_work = self.work.map(|work| weight as f64 / (work[side] * runs.len() as f64));
        Cost { samples, weight, share, per_work }
    }
}

/// A difference whose test may still be to come.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    estimate: f64,
    test: Option<usize>,
}

impl Pending {
    /// Whether there is a test.
    pub(super) fn is_tested(self) -> bool {
        self.test.is_some()
    }
}

/// Collects the tests.
pub(super) struct Family {
    min_share: f64,
    /// By what is compared and the weights in all runs.
    tests: IndexMap<(Measure, Vec<u64>), Test>,
}

struct Test {
    evidence: Evidence,
    /// Its part of the error rate, in comparison to others.
    weight: f64,
    /// The variance between stretches as a multiple of that of sampling.
    between_stretches: Option<f64>,
}

impl Family {
    pub(super) fn new(min_share: f64) -> Self {
        Self { min_share, tests: IndexMap::new() }
    }

    /// Adds what fell on something in each run: the differences of its share and, if the work is known, of its cost.
    pub(super) fn add(&mut self, runs: &Runs, parts: &[Mass]) -> (Pending, Option<Pending>) {
        let costs = runs.work.is_some().then(|| self.compare(runs, Measure::PerWork, parts));
        (self.compare(runs, Measure::Share, parts), costs)
    }

    fn compare(&mut self, runs: &Runs, measure: Measure, parts: &[Mass]) -> Pending {
        let pairs: Vec<Part> =
            parts.iter().zip(&runs.wholes).map(|(&part, &whole)| Part { part, whole }).collect();
        let evidence = || {
            Evidence::new(measure, [&pairs[..runs.base], &pairs[runs.base..]], runs.work.unwrap_or([1.0; 2]))
        };
        let sum = |masses: &[Mass]| masses.iter().map(|mass| mass.tally.weight as f64).sum::<f64>();
        let share = sum(parts) / sum(&runs.wholes);
        if !runs.testable || !self.belongs(measure, share) {
            return Pending { estimate: evidence().difference(), test: None };
        }
        let weight = match measure {
            Measure::Share => share * (1.0 - share),
            Measure::PerWork => share,
        };
        let weights = parts.iter().map(|part| part.tally.weight).collect();
        let entry = self.tests.entry((measure, weights));
        let index = entry.index();
        let test = entry.or_insert_with(|| Test { evidence: evidence(), weight, between_stretches: None });
        Pending { estimate: test.evidence.difference(), test: Some(index) }
    }

    fn belongs(&self, measure: Measure, share: f64) -> bool {
        share > 0.0
            && share >= self.min_share
            && (measure == Measure::PerWork || (share < 1.0 && 1.0 - share >= self.min_share))
    }

    /// Takes into account how single runs differ within themselves: what fell on something in each stretch, if that is
    /// tested.
    pub(super) fn within_runs(
        &mut self,
        runs: &Runs,
        pending: Pending,
        parts: [&Series; 2],
        wholes: [&Series; 2],
    ) {
        if let Some(((measure, _), test)) = pending.test.and_then(|test| self.tests.get_index_mut(test)) {
            let unit = match (measure, runs.work) {
                (Measure::PerWork, Some(work)) => {
                    [0, 1].map(|side| runs.wholes[side].tally.weight as f64 / work[side])
                }
                _ => [1.0; 2],
            };
            test.between_stretches = test.evidence.within_runs(parts, wholes, unit);
        }
    }

    /// Judges the noise of each test by its own stretches and by those of all `disjoint` ones, which count no sample
    /// twice.
    pub(super) fn moderate(&mut self, disjoint: &[Pending]) {
        for measure in [Measure::Share, Measure::PerWork] {
            let variances: Vec<f64> = disjoint
                .iter()
                .filter_map(|pending| self.tests.get_index(pending.test?))
                .filter(|((other, _), _)| *other == measure)
                .filter_map(|(_, test)| test.between_stretches)
                .collect();
            let moderation = Moderation::new(&variances, STRETCH_DEGREES);
            for test in
                self.tests.iter_mut().filter(|((other, _), _)| *other == measure).map(|(_, test)| test)
            {
                if let Some(variance) = test.between_stretches {
                    let (dispersion, degrees) = moderation.of(variance);
                    test.evidence.disperse(dispersion, degrees);
                }
            }
        }
    }

    /// Carries out all tests.
    pub(super) fn judge(self, error_rate: f64) -> Judged {
        let count = self.tests.len();
        // Each p-value as if its test had all of the weight.
        let weighted = self.tests.values().map(|test| test.evidence.p_value() / test.weight);
        let mut ordered: Vec<(usize, f64)> = weighted.enumerate().collect();
        ordered.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let all: f64 = self.tests.values().map(|test| test.weight).sum();
        let mut left = all;
        let mut results = vec![None; count];
        let mut adjusted = 0.0_f64;
        for (index, weighted) in ordered {
            let Test { evidence, weight, .. } = &self.tests[index];
            // Rounding must not leave less than the test itself.
            adjusted = adjusted.max(weighted * left.max(*weight)).min(1.0);
            left -= weight;
            let of_test = error_rate * weight / all;
            let [mut low, mut high] = evidence.interval(of_test);
            let significant = adjusted <= error_rate;
            if !significant {
                (low, high) = (low.min(0.0), high.max(0.0));
            } else if evidence.difference() > 0.0 {
                low = low.max(0.0);
            } else {
                high = high.min(0.0);
            }
            results[index] = Some(Tested {
                interval: [low, high],
                p_value: adjusted,
                significant,
                detectable: evidence.detectable(of_test),
            });
        }
        Judged(results)
    }
}

#[derive(Clone, Copy)]
struct Tested {
    interval: [f64; 2],
    p_value: f64,
    significant: bool,
    detectable: f64,
}

/// The results of all tests.
pub(super) struct Judged(Vec<Option<Tested>>);

impl Judged {
    /// How many tests there were.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn difference(&self, pending: Pending) -> Difference {
        let tested = pending.test.and_then(|index| self.0[index]);
        Difference {
            estimate: pending.estimate,
            interval: tested.map(|tested| tested.interval),
            p_value: tested.map(|tested| tested.p_value),
            significant: tested.is_some_and(|tested| tested.significant),
            detectable: tested.map(|tested| tested.detectable),
        }
    }
}

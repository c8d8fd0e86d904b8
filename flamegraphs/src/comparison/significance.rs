//! Whether a difference is more than noise, and how large it may be.
//!
//! # What is assumed
//! The samples of one run fall independently: a periodic sampler of a program with phases comes closer to the truth
//! than that, so that the error is on the side of noise. Samples do not count one each, but by how much their weights
//! tell ([`counts`](super::counts)): a share of variance v is worth p(1-p)/v samples.
//!
//! One run says nothing of how runs differ. From several profiles a side, the variance between the runs' values is
//! estimated, function by function and with one variance for both sides. Where it is larger than that of sampling, it
//! takes its place: the counts are divided by the ratio of the two. In either case, with several profiles, the deviation
//! is judged by Student's distribution with as many degrees of freedom as there are runs beyond the first of each side,
//! since the smaller of the two is often smaller by luck. The cost of all samples together is not subject to sampling:
//! of several profiles, only the variance between the runs counts.
//!
//! Of one profile a side that says when its samples were taken, the variance of the difference is that between
//! [`stretches`](super::stretches) of the runs in the same way, each function's [moderated](super::moderation) by that
//! of the others.
//!
//! # Test and interval
//! The p-value of a share is that of Fisher's exact test, the p-value of a cost per unit of work that of the exact
//! conditional test of two Poisson rates; both are two-sided by doubling. The interval of a difference combines the
//! score intervals of both sides (Newcombe's method for shares), which behave for small counts.

use super::{
    counts::Mass,
    distributions::{
        binomial_upper, hypergeometric_upper, normal_two_sided, student_beyond, student_two_sided,
    },
    stretches::{STRETCHES, Series},
};

/// Of the variance between stretches.
pub(super) const STRETCH_DEGREES: f64 = (STRETCHES - 1) as f64;
/// With this probability a change of the size that [`Evidence::detectable`] gives is found.
pub(super) const FOUND: f64 = 0.95;
/// How many times a rise is corrected for the noise that it makes; each takes away most of what is missing.
const RISES: usize = 30;
/// Runs that agree to the last bit do not show that all others do.
const SMALLEST_DISPERSION: f64 = 1e-6;

/// What is compared.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Measure {
    /// The share of the side's weight.
    Share,
    /// The weight per unit of work.
    PerWork,
}

/// What fell on a function or path in one run, and on everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) part: Mass,
    pub(super) whole: Mass,
}

/// An estimate of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Estimate {
    value: f64,
    /// What `value` is to be multiplied with for the number of samples that it is worth: a number of samples for a
    /// share, a number of units of work for a cost.
    size: f64,
    /// The variance of `value` from sampling.
    variance: f64,
}

/// The estimates of both sides, and how noisy they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    measure: Measure,
    base: Estimate,
    new: Estimate,
    /// The variance as a multiple of that of sampling; at least 1, but for all samples together.
    dispersion: f64,
    /// Infinite if there is one run a side.
    degrees: f64,
}

impl Evidence {
    /// From the runs of both sides. `work` is that of one run of each side, for [`Measure::PerWork`].
    pub(super) fn new(measure: Measure, runs: [&[Part]; 2], work: [f64; 2]) -> Self {
        let [base, new] = [0, 1].map(|side| match measure {
            Measure::Share => share(runs[side]),
            Measure::PerWork => per_work(runs[side], work[side]),
        });
        let sides = [0, 1].map(|side| Spread::new(measure, runs[side], work[side]));
        let degrees: f64 = sides.iter().map(|side| side.degrees).sum();
        let mut dispersion = 1.0;
        if degrees > 0.0 {
            let of_one_run = sides.iter().map(|side| side.squares).sum::<f64>() / degrees;
            let between = of_one_run * sides.iter().map(|side| side.reach).sum::<f64>();
            let sampling = base.variance + new.variance;
            if sampling > 0.0 {
                // All samples together are measured, not sampled: how they fall does not change their sum.
                let is_whole = runs.iter().copied().flatten().all(|run| run.part == run.whole);
                dispersion = f64::max(between / sampling, if is_whole { SMALLEST_DISPERSION } else { 1.0 });
            }
        }
        let degrees = if degrees > 0.0 { degrees } else { f64::INFINITY };
        Self { measure, base, new, dispersion, degrees }
    }

    /// The variance of the difference as a multiple of that of sampling, from how the values of single runs differ from
    /// stretch to stretch: `parts` are the weights in each stretch, `wholes` those of all samples. `unit` is what a
    /// share of one is worth on each side. `None` if there is nothing to sample.
    pub(super) fn within_runs(
        &self,
        parts: [&Series; 2],
        wholes: [&Series; 2],
        unit: [f64; 2],
    ) -> Option<f64> {
        let differences: Series = std::array::from_fn(|stretch| {
            let [base, new] = [0, 1].map(|side| unit[side] * parts[side][stretch] / wholes[side][stretch]);
            new - base
        });
        let count = STRETCHES as f64;
        let mean = differences.iter().sum::<f64>() / count;
        let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
        let sampling = self.base.variance + self.new.variance;
        (sampling > 0.0).then(|| squares / STRETCH_DEGREES / count / sampling)
    }

    /// Takes into account a variance, as a multiple of that of sampling, with so many degrees of freedom.
    pub(super) fn disperse(&mut self, dispersion: f64, degrees: f64) {
        self.dispersion = dispersion.max(1.0);
        self.degrees = degrees;
    }

    /// The change of the value from the base to the new build.
    pub(super) fn difference(&self) -> f64 {
        self.new.value - self.base.value
    }

    /// Probability of a difference of at least this size in either direction if there were none.
    pub(super) fn p_value(&self) -> f64 {
        let [base, new] = [self.base, self.new].map(|side| Counted::new(side, self.dispersion));
        let upper = match self.measure {
            Measure::Share => {
                let [base_size, new_size] = [base.size, new.size].map(f64::round);
                let (base_hits, new_hits) = (base.hits.min(base_size), new.hits.min(new_size));
                let (population, marked) = (base_size + new_size, base_hits + new_hits);
                if new.value >= base.value {
                    hypergeometric_upper(new_hits, population, marked, new_size)
                } else {
                    hypergeometric_upper(base_hits, population, marked, base_size)
                }
            }
            Measure::PerWork => {
                let (hits, of_new) = (base.hits + new.hits, new.size / (base.size + new.size));
                if new.value >= base.value {
                    binomial_upper(new.hits, hits, of_new)
                } else {
                    binomial_upper(base.hits, hits, 1.0 - of_new)
                }
            }
        };
        let p_value = (2.0 * upper).min(1.0);
        if self.degrees.is_finite() {
            student_beyond(normal_two_sided(p_value), self.degrees)
        } else {
            p_value
        }
    }

    /// The smallest true rise that a test with this error rate finds with a probability of [`FOUND`].
    pub(super) fn detectable(&self, error_rate: f64) -> f64 {
        let Self { base, new, .. } = *self;
        let before = (base.value * base.size + new.value * new.size) / (base.size + new.size);
        let variance = |value: f64| match self.measure {
            // No less than it was at a lower share on the way.
            Measure::Share => value.min(before.max(0.5)) * (1.0 - value.min(before.max(0.5))),
            Measure::PerWork => value,
        };
        let deviation = |of_base, of_new| {
            ((variance(of_base) / base.size + variance(of_new) / new.size) * self.dispersion).sqrt()
        };
        let critical = student_two_sided(error_rate, self.degrees);
        // What the estimate falls short of the truth by with a probability of 1 - FOUND.
        let short = normal_two_sided(2.0 * (1.0 - FOUND));
        // The rise makes for noise itself, so that it is approached from below.
        (0..RISES).fold(0.0, |rise, _| {
            let between = before + rise / 2.0;
            critical * deviation(between, between) + short * deviation(before, before + rise)
        })
    }

    /// The interval that misses the true difference with at most this probability.
    pub(super) fn interval(&self, error_rate: f64) -> [f64; 2] {
        let critical = student_two_sided(error_rate, self.degrees);
        let [base, new] = [self.base, self.new].map(|side| {
            let counted = Counted::new(side, self.dispersion);
            let [low, high] = match self.measure {
                Measure::Share => wilson(counted.value, counted.size, critical),
                Measure::PerWork => {
                    let hits = counted.value * counted.size;
                    poisson_score(hits, critical).map(|hits| hits / counted.size)
                }
            };
            // Rounding must not put the estimate outside.
            [(counted.value - low).max(0.0), (high - counted.value).max(0.0)]
        });
        let difference = self.difference();
        [difference - new[0].hypot(base[1]), difference + new[1].hypot(base[0])]
    }
}

/// An estimate with what it is worth in samples.
struct Counted {
    value: f64,
    size: f64,
    /// A whole number.
    hits: f64,
}

impl Counted {
    fn new(estimate: Estimate, dispersion: f64) -> Self {
        let size = estimate.size / dispersion;
        Self { value: estimate.value, size, hits: (estimate.value * size).round() }
    }
}

fn sum(runs: &[Part]) -> Part {
    let mut sum = Part { part: Mass::default(), whole: Mass::default() };
    for run in runs {
        sum.part.add(run.part);
        sum.whole.add(run.whole);
    }
    sum
}

fn share(runs: &[Part]) -> Estimate {
    let Part { part, whole } = sum(runs);
    let weight = whole.tally.weight as f64;
    let value = part.tally.weight as f64 / weight;
    let outside = (whole.squares - part.squares).max(0.0);
    let variance = (part.squares * (1.0 - value).powi(2) + outside * value.powi(2)) / weight.powi(2);
    let size = if variance > 0.0 { value * (1.0 - value) / variance } else { weight.powi(2) / whole.squares };
    Estimate { value, size, variance }
}

fn per_work(runs: &[Part], work: f64) -> Estimate {
    let Part { part, whole } = sum(runs);
    let work = work * runs.len() as f64;
    let (weight, squares) = if part.tally.weight > 0 {
        (part.tally.weight as f64, part.squares)
    } else {
        (whole.tally.weight as f64, whole.squares)
    };
    Estimate {
        value: part.tally.weight as f64 / work,
        size: work * weight / squares,
        variance: part.squares / work.powi(2),
    }
}

/// How the runs of one side differ.
struct Spread {
    /// The variance of one run's value, times `degrees`.
    squares: f64,
    degrees: f64,
    /// The variance of the side's value as a share of that of one run.
    reach: f64,
}

impl Spread {
    fn new(measure: Measure, runs: &[Part], work: f64) -> Self {
        let whole = sum(runs).whole.tally.weight as f64;
        let count = runs.len() as f64;
        // Value of each run, and what the run contributes to that of the side.
        let values: Vec<(f64, f64)> = runs
            .iter()
            .map(|run| match measure {
                Measure::Share => {
                    let weight = run.whole.tally.weight as f64;
                    (run.part.tally.weight as f64 / weight, weight / whole)
                }
                Measure::PerWork => (run.part.tally.weight as f64 / work, 1.0 / count),
            })
            .collect();
        let reach: f64 = values.iter().map(|(_, weight)| weight.powi(2)).sum();
        let mean: f64 = values.iter().map(|(value, weight)| value * weight).sum();
        let deviations: f64 = values.iter().map(|(value, weight)| (weight * (value - mean)).powi(2)).sum();
        let squares = if runs.len() > 1 { count * deviations / reach } else { 0.0 };
        Self { squares, degrees: count - 1.0, reach }
    }
}

/// The score interval of a share.
fn wilson(share: f64, size: f64, critical: f64) -> [f64; 2] {
    let square = critical.powi(2) / size;
    let middle = share + square / 2.0;
    let half = (square * (share * (1.0 - share) + square / 4.0)).sqrt();
    [middle - half, middle + half].map(|end| (end / (1.0 + square)).clamp(0.0, 1.0))
}

/// The score interval of the mean of a Poisson variable.
fn poisson_score(hits: f64, critical: f64) -> [f64; 2] {
    let middle = hits + critical.powi(2) / 2.0;
    let half = critical * (hits + critical.powi(2) / 4.0).sqrt();
    [(middle - half).max(0.0), middle + half]
}

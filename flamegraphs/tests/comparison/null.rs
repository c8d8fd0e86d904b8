//! Pairs of profiles of the same program: what is called significant is false.

use flamewalk_flamegraphs::comparison::{Comparison, ComparisonOptions};

use crate::simulation::{Program, Random, SHAPES, Shape};

const PAIRS: usize = 200;
/// Of 200 pairs with an error rate of 5 %, 20 or more are false with a probability of 0.3 %, by the binomial
/// distribution: so many would show that the rate is not kept. The seed is fixed, so that this is decided once.
const MOST_FALSE: usize = 19;

fn false_alarms(
    program: &Program,
    seed: u64,
    profiles: [usize; 2],
    samples: [usize; 2],
    spread: f64,
    work: Option<(f64, f64)>,
) -> usize {
    let mut random = Random(seed);
    let mut options = ComparisonOptions::default();
    options.work = work;
    (0..PAIRS)
        .filter(|_| {
            let [base, new] = [0, 1].map(|side| {
                (0..profiles[side])
                    .map(|_| program.run_with(&mut random, samples[side], spread))
                    .collect::<Vec<_>>()
            });
            let comparison = Comparison::new(&base, &new, &options).unwrap();
            let shares = comparison.functions.iter().flat_map(|function| [function.own, function.total]);
            comparison.is_significant() || shares.into_iter().any(|change| change.share.significant)
        })
        .count()
}

#[test]
fn one_profile_a_side() {
    for shape in SHAPES {
        for samples in [[10_000, 10_000], [300, 3_000]] {
            let alarms = false_alarms(&Program::new(shape), shape as u64 + 1, [1, 1], samples, 0.0, None);
            assert!(alarms <= MOST_FALSE, "{shape:?} {samples:?}: {alarms} of {PAIRS} pairs");
        }
    }
}

/// Runs that differ by themselves, by 30 % of each stack's share: several times the noise of sampling.
#[test]
fn runs_that_differ() {
    for shape in SHAPES {
        for profiles in [[2, 2], [5, 5], [1, 4]] {
            let alarms =
                false_alarms(&Program::new(shape), shape as u64 + 1, profiles, [1_000, 1_000], 0.3, None);
            assert!(alarms <= MOST_FALSE, "{shape:?} {profiles:?}: {alarms} of {PAIRS} pairs");
        }
    }
}

#[test]
fn costs_per_unit_of_work() {
    for shape in SHAPES {
        let alarms = false_alarms(
            &Program::new(shape),
            shape as u64 + 1,
            [1, 1],
            [5_000, 10_000],
            0.0,
            Some((100.0, 200.0)),
        );
        assert!(alarms <= MOST_FALSE, "{shape:?}: {alarms} of {PAIRS} pairs");
    }
}

/// Signals of one function merge, so that its samples are few and heavy. Counted as if each tick were a sample of its
/// own, nearly all pairs would differ.
#[test]
fn merged_signals() {
    for slices in [true, false] {
        let program = Program { merged: 0.9, slices, ..Program::new(Shape::Five) };
        let alarms = false_alarms(&program, 77, [1, 1], [3_000, 3_000], 0.0, None);
        assert!(alarms <= MOST_FALSE, "{alarms} of {PAIRS} pairs, with slices: {slices}");
    }
}

/// Something else on the machine makes one function slower for a while, now in one run and now in the other: twice for a
/// tenth of the run.
#[test]
fn disturbed_runs() {
    for shape in [Shape::Five, Shape::HeavyTail] {
        let program = Program { disturbances: 2, ..Program::new(shape) };
        let alarms = false_alarms(&program, 88, [1, 1], [5_000, 5_000], 0.0, None);
        assert!(alarms <= MOST_FALSE, "{shape:?}: {alarms} of {PAIRS} pairs");
    }
}

//! Pairs of profiles of the same program: what is called significant is false.

use flamewalk_flamegraphs::comparison::{Comparison, ComparisonOptions};

use crate::simulation::{Program, Random, SHAPES, Shape};

const PAIRS: usize = 200;
/// Of 200 pairs with an error rate of 5 %, 20 or more are false with a probability of 0.3 %, by the binomial
/// distribution: so many would show that the rate is not kept. The seed is fixed, so that this is decided once.
const MOST_FALSE: usize = 19;

fn false_alarms(
    shape: Shape,
    profiles: [usize; 2],
    samples: [usize; 2],
    spread: f64,
    work: Option<(f64, f64)>,
) -> usize {
    let program = Program::new(shape);
    let mut random = Random(shape as u64 + 1);
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
            let alarms = false_alarms(shape, [1, 1], samples, 0.0, None);
            eprintln!("{shape:?} {samples:?}: {alarms} of {PAIRS} pairs");
            assert!(alarms <= MOST_FALSE, "{shape:?} {samples:?}: {alarms} of {PAIRS} pairs");
        }
    }
}

/// Runs that differ by themselves, by 20 % of each stack's share: several times the noise of sampling.
#[test]
fn runs_that_differ() {
    for shape in SHAPES {
        for profiles in [[2, 2], [5, 5], [1, 4]] {
            let alarms = false_alarms(shape, profiles, [2_000, 2_000], 0.2, None);
            eprintln!("{shape:?} {profiles:?}: {alarms} of {PAIRS} pairs");
            assert!(alarms <= MOST_FALSE, "{shape:?} {profiles:?}: {alarms} of {PAIRS} pairs");
        }
    }
}

#[test]
fn costs_per_unit_of_work() {
    for shape in SHAPES {
        let alarms = false_alarms(shape, [1, 1], [5_000, 10_000], 0.0, Some((100.0, 200.0)));
        eprintln!("{shape:?}: {alarms} of {PAIRS} pairs");
        assert!(alarms <= MOST_FALSE, "{shape:?}: {alarms} of {PAIRS} pairs");
    }
}

//! A function that became slower by a known amount is found, and the interval holds the truth.

use flamewalk_flamegraphs::comparison::{Comparison, ComparisonOptions};

use crate::simulation::{Program, Random, SHAPES, Shape};

const PAIRS: usize = 200;

/// A program, the same with one function that takes three points more, and that function's name: one that takes little
/// so far, so that the noise of 10,000 samples allows it to be found in 95 % of pairs.
fn slowed(shape: Shape) -> (Program, Program, String) {
    let slow = match shape {
        Shape::Five => 3,
        Shape::ThreeHundred => 250,
        Shape::HeavyTail => 2,
        Shape::OneHot => 10,
    };
    let program = Program::new(shape);
    let slower = program.slower(slow, 0.03);
    (program, slower, format!("f{slow}"))
}

/// Counts whether the function with the largest rise is the right one and significant, and whether the interval of
/// that function holds the truth.
fn count(comparison: &Comparison, name: &str, found: &mut usize, held: &mut usize) {
    // All others take a smaller share, which may be significant too.
    let rise = comparison.functions.iter().find(|function| function.own.share.estimate > 0.0).unwrap();
    *found += usize::from(rise.name == name && rise.own.share.significant);
    let slow = comparison.functions.iter().find(|function| function.name == name).unwrap();
    let [low, high] = slow.own.share.interval.expect("hot enough to be tested");
    *held += usize::from(low <= 0.03 && 0.03 <= high);
}

#[test]
fn three_points_of_ten_thousand_samples() {
    for shape in SHAPES {
        let (program, slower, name) = slowed(shape);
        let mut random = Random(100 + shape as u64);
        let (mut found, mut held) = (0, 0);
        for _ in 0..PAIRS {
            let [base, new] = [&program, &slower].map(|program| [program.run(&mut random, 10_000)]);
            let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
            count(&comparison, &name, &mut found, &mut held);
        }
        assert!(found >= PAIRS * 95 / 100, "{shape:?}: found in {found} of {PAIRS} pairs");
        assert!(
            held >= PAIRS * 95 / 100,
            "{shape:?}: the interval holds the truth in {held} of {PAIRS} pairs"
        );
    }
}

/// Three points where the noise is large: in a function that takes a quarter.
#[test]
fn three_points_in_a_large_function() {
    let program = Program::new(Shape::Five);
    let slower = program.slower(1, 0.03);
    let mut random = Random(150);
    let (mut found, mut held) = (0, 0);
    for _ in 0..PAIRS {
        let [base, new] = [&program, &slower].map(|program| [program.run(&mut random, 10_000)]);
        let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
        count(&comparison, "f1", &mut found, &mut held);
    }
    assert!(found >= PAIRS * 95 / 100, "found in {found} of {PAIRS} pairs");
    assert!(held >= PAIRS * 95 / 100, "the interval holds the truth in {held} of {PAIRS} pairs");
}

/// A change that is as large as the comparison says that it finds with a probability of 95 %, in small functions and in
/// large ones, with few samples and with many.
#[test]
fn what_is_called_detectable_is_found() {
    for (slow, samples) in [(0, 2_000), (0, 10_000), (4, 2_000)] {
        let program = Program::new(Shape::Five);
        let mut random = Random(160 + slow as u64 + samples as u64);
        let name = format!("f{slow}");
        let [base, new] = [0, 1].map(|_| [program.run(&mut random, samples)]);
        let same = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
        let function = same.functions.iter().find(|function| function.name == name).unwrap();
        let detectable = function.own.share.detectable.unwrap();
        assert!(same.detectable.unwrap() >= detectable);
        let slower = program.slower(slow, detectable);
        let mut found = 0;
        for _ in 0..PAIRS {
            let [base, new] = [&program, &slower].map(|program| [program.run(&mut random, samples)]);
            let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
            count(&comparison, &name, &mut found, &mut 0);
        }
        // Of 200 pairs at 95 %, fewer than 180 have a probability of 0.1 %, by the binomial distribution. All are found
        // if what is called detectable is far too large; at 99 % that has a probability of 13 %, at 95 % of 0.004 %.
        assert!((180..PAIRS).contains(&found), "{name}, {samples} samples: {found} of {PAIRS} pairs");
    }
}

/// Five runs a side that differ by themselves, by 3 % of each stack's share.
#[test]
fn three_points_of_repeated_runs() {
    for shape in SHAPES {
        let (program, slower, name) = slowed(shape);
        let mut random = Random(200 + shape as u64);
        let (mut found, mut held) = (0, 0);
        for _ in 0..PAIRS {
            let [base, new] = [&program, &slower].map(|program| {
                (0..5).map(|_| program.run_with(&mut random, 4_000, 0.03)).collect::<Vec<_>>()
            });
            let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
            count(&comparison, &name, &mut found, &mut held);
        }
        assert!(found >= PAIRS * 95 / 100, "{shape:?}: found in {found} of {PAIRS} pairs");
        assert!(
            held >= PAIRS * 95 / 100,
            "{shape:?}: the interval holds the truth in {held} of {PAIRS} pairs"
        );
    }
}

/// One function costs a quarter more, and everything else the same: its cost per unit of work rises, that of no other
/// function does, whatever becomes of the shares.
#[test]
fn costs_per_unit_of_work() {
    let program = Program::new(Shape::Five);
    let old = program.stacks[0].1;
    let added = 0.25 * old;
    let slower = program.slower(0, (old + added) / (1.0 + added) - old);
    let mut random = Random(300);
    let (mut found, mut held, mut others) = (0, 0, 0);
    let mut options = ComparisonOptions::default();
    options.work = Some((1_000.0, 1_000.0));
    for _ in 0..PAIRS {
        let base = [program.run(&mut random, 10_000)];
        let new = [slower.run(&mut random, (10_000.0 * (1.0 + added)) as usize)];
        let comparison = Comparison::new(&base, &new, &options).unwrap();
        for function in &comparison.functions {
            let cost = function.own.per_work.unwrap();
            if function.name == "f0" {
                found += usize::from(cost.significant && cost.estimate > 0.0);
                // Of 10,000 samples of 1.1 ms on average.
                let truth = 11e9 / 1_000.0 * added;
                let [low, high] = cost.interval.unwrap();
                held += usize::from(low <= truth && truth <= high);
            } else {
                others += usize::from(cost.significant);
            }
        }
    }
    assert!(found >= PAIRS * 95 / 100, "found in {found} of {PAIRS} pairs");
    assert!(held >= PAIRS * 95 / 100, "the interval holds the truth in {held} of {PAIRS} pairs");
    // 5 % are 10 of 200; 20 or more have a probability of 0.3 %, by the binomial distribution.
    assert!(others < 20, "other functions in {others} of {PAIRS} pairs");
}

/// The time of everything is measured and not sampled: three runs a side that agree to one percent show a tenth.
#[test]
fn everything_together() {
    let program = Program::new(Shape::HeavyTail);
    let mut random = Random(400);
    let mut options = ComparisonOptions::default();
    options.work = Some((1.0, 1.0));
    let mut side = |samples: [usize; 4]| samples.map(|samples| program.run(&mut random, samples)).to_vec();
    let (base, new) = (side([1_000, 1_005, 995, 1_002]), side([1_100, 1_106, 1_098, 1_103]));
    let comparison = Comparison::new(&base, &new, &options).unwrap();
    let whole = comparison.whole.per_work.unwrap();
    assert!(whole.significant, "{whole:?}");
    assert!(comparison.fail_above(0.05).unwrap().causes.iter().any(|cause| cause.function.is_none()));
    let [low, high] = whole.interval.unwrap();
    assert!(0.0 < low && low < 1.1e8 && 1.1e8 < high, "{whole:?}");
}

/// One noisy run of each does not show that.
#[test]
fn everything_together_once() {
    let program = Program::new(Shape::HeavyTail);
    let mut random = Random(500);
    let mut options = ComparisonOptions::default();
    options.work = Some((1.0, 1.0));
    let [base, new] = [1_000, 1_050].map(|samples| [program.run(&mut random, samples)]);
    let comparison = Comparison::new(&base, &new, &options).unwrap();
    assert!(!comparison.whole.per_work.unwrap().significant);
}

/// What is the same phase in both builds is not taken for a disturbance: in the first half of the run the hottest
/// function does not run at all.
#[test]
fn phases_do_not_hide_a_change() {
    let (program, slower, name) = slowed(Shape::Five);
    let phased = |program: &Program| Program { phases: true, ..program.clone() };
    let mut random = Random(600);
    let mut found = 0;
    for _ in 0..PAIRS {
        let [base, new] = [&program, &slower].map(|program| [phased(program).run(&mut random, 10_000)]);
        let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
        count(&comparison, &name, &mut found, &mut 0);
    }
    assert!(found >= PAIRS * 95 / 100, "found in {found} of {PAIRS} pairs");
}

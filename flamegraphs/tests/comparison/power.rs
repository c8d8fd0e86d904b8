//! A function that became slower by a known amount is found, and the interval holds the truth.

use flamewalk_flamegraphs::comparison::{Comparison, ComparisonOptions};

use crate::simulation::{Program, Random, SHAPES, Shape};

const PAIRS: usize = 200;

#[test]
fn three_points_of_ten_thousand_samples() {
    for shape in SHAPES {
        // A function that takes some percent of the time, and calls no other one of the first hundred.
        let slow = match shape {
            Shape::Five => 3,
            Shape::ThreeHundred => 250,
            Shape::HeavyTail => 2,
            Shape::OneHot => 10,
        };
        let program = Program::new(shape);
        let slower = program.slower(slow, 0.03);
        let name = format!("f{slow}");
        let mut random = Random(100 + shape as u64);
        let (mut found, mut held) = (0, 0);
        for _ in 0..PAIRS {
            let [base, new] = [&program, &slower].map(|program| [program.run(&mut random, 10_000)]);
            let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
            // All others take a smaller share, which may be significant too.
            let rise =
                comparison.functions.iter().find(|function| function.own.share.estimate > 0.0).unwrap();
            found += usize::from(rise.name == name && rise.own.share.significant);
            let slow = comparison.functions.iter().find(|function| function.name == name).unwrap();
            let [low, high] = slow.own.share.interval.expect("hot enough to be tested");
            held += usize::from(low <= 0.03 && 0.03 <= high);
        }
        eprintln!("{shape:?}: share {:.3}, found {found}, held {held}", program.share_of(&name));
        assert!(found >= PAIRS * 95 / 100, "{shape:?}: found in {found} of {PAIRS} pairs");
        assert!(
            held >= PAIRS * 95 / 100,
            "{shape:?}: the interval holds the truth in {held} of {PAIRS} pairs"
        );
    }
}

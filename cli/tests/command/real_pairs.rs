//! The statistics of `flamewalk diff` on profiles of real runs: how often it is wrong, and what it finds.
//!
//! ```text
//! FLAMEWALK_PAIRS=200 cargo test --workspace --test command real_pairs -- --nocapture
//! ```
//!
//! decides, in about ten minutes on a quiet machine; the default number of pairs suits CI, and only shows that it works.
//! What is printed are counts with the exact interval of Clopper and Pearson for the proportion. What is asserted is that
//! the counts do not contradict the promise: chance makes each of them do so once in 100,000 times. It is a promise about what
//! the program does, and not about a hypervisor that runs something else instead: pairs of which it took time are not judged.

use std::path::Path;

use serde_json::Value;

use crate::comparing::{diff, guest};
use crate::finish;
use crate::support::{Folder, flamewalk_run, stolen};

/// What is promised: at most this share of comparisons say something wrong, or miss a change of [`POINTS`].
const ERROR_RATE: f64 = 0.05;
/// The change, as a share.
const POINTS: f64 = 0.03;
/// Steps of the functions of the guest in a round: shares from 30 % to 1 %.
const STEPS: [u32; 10] = [10_800, 4_320, 5_400, 4_680, 3_600, 2_880, 1_800, 1_440, 720, 360];
/// Some more than a second, for 10,000 samples.
const ROUNDS: u32 = 19_000;

/// How often a pair is recorded until the hypervisor takes nothing of it.
const TRIES: usize = 3;

/// Functions that are slowed down, each in a build of its own: one that takes 12 % and the one that takes 30 %, whose noise
/// is the largest.
const SLOWED: [usize; 2] = [1, 0];

/// The steps of a build in which a function's share is larger by [`POINTS`].
fn slowed(function: usize) -> [u32; 10] {
    let all = f64::from(STEPS.iter().sum::<u32>());
    let share = f64::from(STEPS[function]) / all;
    let wanted = share + POINTS;
    let mut steps = STEPS;
    steps[function] = (all * wanted * (1.0 - share) / (1.0 - wanted)).round() as u32;
    steps
}

/// What came of the comparisons with one slowed build.
#[derive(Default)]
struct Found {
    missed: u32,
    truth_outside: u32,
}

#[test]
fn real_pairs_are_judged_as_promised() {
    let pairs = std::env::var("FLAMEWALK_PAIRS").map_or(12, |pairs| pairs.parse().unwrap());
    let folder = Folder::new();
    let base = guest(&folder, "base.wat", &STEPS, ROUNDS);
    let slow =
        SLOWED.map(|function| guest(&folder, &format!("slow_{function}.wat"), &slowed(function), ROUNDS));
    let (mut judged_pairs, mut false_alarms, mut samples) = (0, 0, 0);
    let mut found = SLOWED.map(|_| Found::default());
    for _ in 0..pairs {
        // Two at a time, so that they disturb each other as the machine's other work does.
        let are_undisturbed = record(&folder, [("a", &base), ("b", &base)])
            && record(&folder, [("slow 0", &slow[0]), ("slow 1", &slow[1])]);
        if !are_undisturbed {
            continue;
        }
        judged_pairs += 1;
        let same = compare(&folder, "b");
        false_alarms += u32::from(is_significant(&same));
        samples += same["base"]["samples"].as_u64().unwrap();
        for (number, (function, found)) in SLOWED.into_iter().zip(&mut found).enumerate() {
            let slower = compare(&folder, &format!("slow {number}"));
            let share = &of(&slower, function)["self"]["share"];
            let right = share["significant"] == true && share["estimate"].as_f64().unwrap() > 0.0;
            found.missed += u32::from(!right);
            let [low, high] = [0, 1].map(|end| share["interval"][end].as_f64().unwrap());
            found.truth_outside += u32::from(!(low..=high).contains(&POINTS));
        }
    }
    if judged_pairs == 0 {
        eprintln!("NOT RUN: the hypervisor took time of each of {pairs} pairs");
        return;
    }
    eprintln!(
        "{judged_pairs} of {pairs} pairs, of about {} samples a side",
        samples / u64::from(judged_pairs)
    );
    let pairs = judged_pairs;
    let mut judged = vec![("false alarms".to_owned(), false_alarms)];
    for (function, Found { missed, truth_outside }) in SLOWED.into_iter().zip(&found) {
        let share = 100 * STEPS[function] / STEPS.iter().sum::<u32>();
        let change = format!("{} points at a share of {share} %", 100.0 * POINTS);
        judged.push((format!("{change}: missed"), *missed));
        judged.push((format!("{change}: truth outside of the interval"), *truth_outside));
    }
    for (what, count) in &judged {
        let [low, high] = proportion(*count, pairs).map(|end| 100.0 * end);
        eprintln!("{what}: {count} of {pairs} ({low:.1} to {high:.1} % with 95 % confidence)");
    }
    for (what, count) in judged {
        let chance = 1.0 - at_most(f64::from(count) - 1.0, pairs, ERROR_RATE);
        assert!(chance >= 1e-5, "{what}: {count} of {pairs} pairs");
    }
}

/// Records two runs; `false` if the hypervisor took time each time that it was tried.
fn record(folder: &Folder, runs: [(&str, &Path); 2]) -> bool {
    (0..TRIES).any(|_| {
        let before = stolen();
        record_once(folder, runs);
        stolen() == before
    })
}

fn record_once(folder: &Folder, runs: [(&str, &Path); 2]) {
    std::thread::scope(|scope| {
        for (name, guest) in runs {
            let path = folder.path(name).with_extension("flamewalk");
            scope.spawn(move || {
                let mut command = flamewalk_run();
                command.args(["-q", "--freq", "9999", "-o"]).arg(path).arg(guest);
                assert_eq!(finish(&mut command).status, Some(0));
            });
        }
    });
}

fn compare(folder: &Folder, new: &str) -> Value {
    let [base, new] = ["a", new].map(|name| folder.path(name).with_extension("flamewalk"));
    serde_json::from_str(&diff(&base, &new, &["--format", "json"]).stdout).unwrap()
}

fn of(comparison: &Value, function: usize) -> &Value {
    let name = format!("work_{function}");
    let functions = comparison["functions"].as_array().unwrap();
    functions.iter().find(|function| function["name"] == *name).unwrap()
}

/// Whether anything at all is called significant; paths are listed only for what is.
fn is_significant(comparison: &Value) -> bool {
    let any =
        |function: &Value| ["self", "total"].iter().any(|of| function[of]["share"]["significant"] == true);
    comparison["functions"].as_array().unwrap().iter().any(any)
        || !comparison["paths"].as_array().unwrap().is_empty()
}

/// Probability of at most `count` hits in `trials`.
fn at_most(count: f64, trials: u32, probability: f64) -> f64 {
    // As logarithms, since the first term may be too small for a number.
    let mut term = f64::from(trials) * (1.0 - probability).ln();
    let mut sum = 0.0;
    let mut hits = 0.0;
    while hits <= count {
        sum += term.exp();
        term += ((f64::from(trials) - hits) / (hits + 1.0) * probability / (1.0 - probability)).ln();
        hits += 1.0;
    }
    sum
}

/// The exact interval of a proportion, with 95 % confidence.
fn proportion(count: u32, trials: u32) -> [f64; 2] {
    let count = f64::from(count);
    // The largest probability at which so few hits are not yet surprising.
    let bound = |hits: f64, probability: f64| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            if at_most(hits, trials, middle) > probability {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    };
    let low = if count == 0.0 { 0.0 } else { bound(count - 1.0, 0.975) };
    [low, bound(count, 0.025)]
}

/// Published values: 0 and 10 of 200.
#[test]
fn proportions() {
    for (count, expected) in [(0, [0.0, 0.018_275]), (10, [0.024_234, 0.090_028]), (200, [0.981_725, 1.0])] {
        let actual = proportion(count, 200);
        assert!(actual.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{count}: {actual:?}");
    }
}

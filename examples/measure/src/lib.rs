//! Measurements next to their floors: both in one process, in turn, as medians of many rounds.
//!
//! A time alone says more about the machine than about the code. What is compared here are series that were measured
//! round by round one after the other, so that whatever slows the machine down slows all of them. Each series is also
//! compared with itself: if the medians of its odd and its even rounds differ, the machine is too busy to tell, which
//! is said instead of a number.
//!
//! A benchmark that is called with `--check` exits with 1 if a goal is missed, and with 2 if one cannot be told.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// By how much the medians of the odd and the even rounds of a series may differ, as a part of the lower one.
const MOST_NOISE: f64 = 0.1;
/// How often a measurement is repeated that was too noisy.
const ATTEMPTS: usize = 4;

/// One series of a measurement.
pub struct Work<'a> {
    calls: usize,
    work: Box<dyn FnMut() + 'a>,
    afterwards: Box<dyn FnMut() + 'a>,
    clock: Box<dyn Fn() -> Duration + 'a>,
}

impl<'a> Work<'a> {
    /// Does something after each round that is not measured.
    pub fn afterwards(self, afterwards: impl FnMut() + 'a) -> Self {
        Self { afterwards: Box::new(afterwards), ..self }
    }

    /// Measures with another clock than that of the wall: the CPU time of a thread that does the work.
    pub fn clock(self, clock: impl Fn() -> Duration + 'a) -> Self {
        Self { clock: Box::new(clock), ..self }
    }
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Work").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// `work`, called so many times in each round.
pub fn work<'a, R>(calls: usize, mut work: impl FnMut() -> R + 'a) -> Work<'a> {
    let all = move || {
        for _ in 0..calls {
            std::hint::black_box(work());
        }
    };
    let start = Instant::now();
    Work { calls, work: Box::new(all), afterwards: Box::new(|| {}), clock: Box::new(move || start.elapsed()) }
}

/// A run of a benchmark: its arguments, and what became of its goals.
#[derive(Debug)]
pub struct Run {
    sections: Vec<String>,
    missed: usize,
    untold: usize,
}

impl Run {
    /// Runs `benchmark` if Cargo was asked for benchmarks; `cargo test` and `cargo clippy` only want to see that it builds.
    ///
    /// Words on the command line select sections by what their titles contain.
    pub fn main(benchmark: impl FnOnce(&mut Self)) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if !arguments.iter().any(|argument| argument == "--bench") {
            return ExitCode::SUCCESS;
        }
        let sections = arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
        let mut run = Self { sections, missed: 0, untold: 0 };
        benchmark(&mut run);
        let is_check = arguments.iter().any(|argument| argument == "--check");
        ExitCode::from(match (is_check, run.missed, run.untold) {
            (false, ..) | (true, 0, 0) => 0,
            (true, 0, _) => 2,
            (true, ..) => 1,
        })
    }

    /// Begins a section with this title and heads of columns; `false` if it is not to be run.
    pub fn section(&self, title: &str, heads: &[&str]) -> bool {
        let is_wanted =
            self.sections.is_empty() || self.sections.iter().any(|section| title.contains(section.as_str()));
        if is_wanted {
            let row: String = heads.iter().map(|head| format!("{head:>18}")).collect();
            println!("\n{title}\n\n{row}");
        }
        is_wanted
    }

    /// Nanoseconds for one call of each of `works`; `None`, and a line that says so, if the machine is too noisy to tell.
    pub fn measure<const N: usize>(&mut self, rounds: usize, mut works: [Work<'_>; N]) -> Option<[f64; N]> {
        for _ in 0..ATTEMPTS {
            let mut series = [const { Vec::new() }; N];
            for _ in 0..rounds.max(2) {
                for (work, times) in works.iter_mut().zip(&mut series) {
                    let start = (work.clock)();
                    (work.work)();
                    times.push(((work.clock)() - start).as_nanos() as f64 / work.calls as f64);
                    (work.afterwards)();
                }
            }
            if series.iter().all(|times| noise(times) <= MOST_NOISE) {
                return Some(series.map(median));
            }
        }
        println!(
            "  too noisy to tell: a series differs from itself by more than {:.0} %",
            MOST_NOISE * 100.0
        );
        None
    }

    /// Says whether a goal is met: `measured` is to be at most `most`. `None` for what could not be measured.
    pub fn goal(&mut self, goal: &str, measured: Option<f64>, most: f64) {
        let verdict = match measured {
            None => {
                self.untold += 1;
                "cannot be told".to_owned()
            }
            Some(measured) if measured <= most => format!("met: {measured:.2} of {most:.2}"),
            Some(measured) => {
                self.missed += 1;
                format!("MISSED: {measured:.2} instead of {most:.2}")
            }
        };
        println!("  {goal}: {verdict}");
    }
}

/// A row of a table below the heads of a section: what is varied, then numbers.
pub fn row(varied: impl std::fmt::Display, numbers: &[f64]) {
    let numbers: String = numbers.iter().map(|number| format!("{number:>18.2}")).collect();
    println!("{:>18}{numbers}", varied.to_string());
}

/// The middle of some values; of an even number of them, the upper of the two.
///
/// # Panics
///
/// Without any value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How much the medians of the odd and the even rounds differ, as a part of the lower one.
fn noise(times: &[f64]) -> f64 {
    let every_other = |first: usize| median(times.iter().skip(first).step_by(2).copied().collect());
    let (even, odd) = (every_other(0), every_other(1));
    (even - odd).abs() / even.min(odd).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![1.0]), 1.0);
    }

    #[test]
    fn a_series_that_differs_from_itself_is_noise() {
        assert!(noise(&[1.0, 1.0, 1.01, 1.0, 50.0, 1.0]) <= MOST_NOISE, "outliers do not count");
        assert!(noise(&[1.0, 1.3, 1.0, 1.3]) > MOST_NOISE);
    }

    #[test]
    fn each_call_is_counted() {
        let (mut calls, mut others) = (0, 0);
        let mut run = Run { sections: Vec::new(), missed: 0, untold: 0 };
        // Noise or not: every attempt has all rounds of both.
        _ = run.measure(3, [work(5, || calls += 1), work(1, || others += 1)]);
        assert!(others % 3 == 0 && others > 0);
        assert_eq!(calls, 5 * others);
    }

    #[test]
    fn goals_are_counted_by_what_became_of_them() {
        let mut run = Run { sections: vec!["ring".into()], missed: 0, untold: 0 };
        run.goal("met", Some(1.0), 1.0);
        assert_eq!((run.missed, run.untold), (0, 0));
        run.goal("missed", Some(1.1), 1.0);
        run.goal("untold", None, 1.0);
        assert_eq!((run.missed, run.untold), (1, 1));
        assert!(run.section("the ring", &[]) && !run.section("registry", &[]));
    }
}

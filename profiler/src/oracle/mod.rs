//! The oracle: walks are right at every boundary between two instructions.
//!
//! ```text
//!   corpus × matrix ──▶ bench ──▶ stepper ──▶ checker ──▶ counts
//!                                  each      shadow stack │ walk
//!                                  boundary         equal?
//! ```
//!
//! A guest runs one instruction at a time. At each boundary, in guest code, trampolines and host code, the frames that the
//! signal handler would find must be exactly those of a shadow stack, which is kept from the executed calls and returns.

mod bench;
mod checker;
mod corpus;
mod dormant;
mod instruction;
mod matrix;
mod shadow;
mod stepper;

use std::time::Instant;

use bench::Bench;
use checker::Counts;
use corpus::CORPUS;
use matrix::{Configuration, MATRIX};

/// What was compared in all has to be at least this much.
const BOUNDARIES: u64 = 1_000_000;

fn run_configuration(configuration: &Configuration) -> (Counts, Vec<String>) {
    let engine = configuration.engine();
    let mut counts = Counts::default();
    let mut complaints = Vec::new();
    for case in CORPUS {
        if case.needs.iter().any(|feature| configuration.refuses.contains(feature))
            || case.metering.is_some_and(|metering| configuration.metering != Some(metering))
        {
            continue;
        }
        let mut bench = Bench::new(configuration, &engine);
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(&mut bench)))
        {
            complaints.push(format!("{}, {}: {panic:?}", configuration.name, case.name));
        }
        counts += bench.counts;
        complaints.extend(
            bench
                .complaints
                .iter()
                .map(|complaint| format!("{}, {}: {complaint}", configuration.name, case.name)),
        );
    }
    (counts, complaints)
}

#[test]
fn walks_agree_with_the_executed_calls_and_returns_at_every_boundary() {
    let begin = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || {
            while let Some(configuration) =
                MATRIX.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                let (counts, complaints) = run_configuration(configuration);
                results.lock().unwrap().push((configuration.name, counts, complaints));
            }
        };
        for _ in 0..2 {
            std::thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, work).expect("a thread");
        }
    });
    let results = results.into_inner().unwrap();
    let mut total = Counts::default();
    println!(
        "{:26}{:>10}{:>12}{:>10}{:>12}{:>22}{:>10}{:>10}",
        "configuration",
        "guest",
        "trampolines",
        "host",
        "mismatches",
        "plain FP walk, guest",
        "unnamed",
        "list cut"
    );
    let row = |name: &str, counts: &Counts| {
        println!(
            "{name:26}{:>10}{:>12}{:>10}{:>12}{:>20.2} %{:>10}{:>10}",
            counts.guest,
            counts.trampolines,
            counts.host,
            counts.mismatches,
            100.0 * counts.plain_mismatches as f64 / counts.guest as f64,
            counts.unnamed,
            counts.list_cut,
        );
    };
    for (name, counts, _) in &results {
        row(name, counts);
        total += *counts;
    }
    row("all", &total);
    println!("{} boundaries in {:?}; {total:?}", total.boundaries(), begin.elapsed());
    let complaints: Vec<_> = results.iter().flat_map(|(_, _, complaints)| complaints).collect();
    for complaint in complaints.iter().take(12) {
        println!("\n{complaint}");
    }
    assert!(complaints.is_empty(), "{} walks are wrong, or cases have failed", complaints.len());
    assert_eq!(total.mismatches, 0);
    assert!(total.compiled() >= BOUNDARIES, "only {} boundaries in compiled code", total.compiled());
    for (name, counts, _) in &results {
        assert!(
            counts.plain_mismatches > 0,
            "{name}: the check does not see what is wrong with a plain walk"
        );
    }
}

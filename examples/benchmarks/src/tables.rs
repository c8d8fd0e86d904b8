//! The tables, as Markdown.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;

use crate::error::Error;
use crate::guest::Guest;
use crate::measurement::{Measurement, Subject};
use crate::peer::Peer;
use crate::plan::{HIGH, USUAL};
use crate::statistics::Estimate;

const BEGIN: &str = "<!-- The tables: written by examples/benchmarks/run. -->";
const END: &str = "<!-- End of the tables. -->";

/// The columns of the slowdown.
const COLUMNS: [(Peer, u32); 8] = [
    (Peer::Nothing, USUAL),
    (Peer::EmptyHandler, USUAL),
    (Peer::Flamewalk, USUAL),
    (Peer::GuestProfiler, USUAL),
    (Peer::Wasmprof, USUAL),
    (Peer::Perf, USUAL),
    (Peer::EmptyHandler, HIGH),
    (Peer::Flamewalk, HIGH),
];

/// The profilers that leave a result.
const RESULTS: [Peer; 4] = [Peer::Flamewalk, Peer::GuestProfiler, Peer::Wasmprof, Peer::Perf];

/// What is measured, for people.
pub fn described(subject: &Subject) -> String {
    let calls = if subject.asynchronous { ", async" } else { "" };
    format!("{}{calls} under {} at {} Hz", name(subject.guest), subject.peer.title(), subject.rate)
}

fn name(guest: Guest) -> String {
    guest.to_possible_value().map(|value| value.get_name().replace('-', " ")).unwrap_or_default()
}

/// All tables.
pub fn document(machine: &str, measurements: &[Measurement], failures: &[String]) -> String {
    let mut text = format!("Machine: {machine}.\n\n");
    text += &slowdown(measurements);
    text += &ticks(measurements);
    text += &accuracy(measurements);
    text += &results(measurements);
    for failure in failures {
        let _ = writeln!(text, "Not measured: {failure}\n");
    }
    text.truncate(text.trim_end().len());
    text
}

/// Puts the tables where the document has the old ones.
pub fn replace_in(path: &Path, tables: &str) -> Result<(), Error> {
    let old = std::fs::read_to_string(path).map_err(Error::file(path))?;
    let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        let reason = format!("{} has no lines `{BEGIN}` and `{END}`", path.display());
        return Err(Error::Unexpected { what: "the document", reason });
    };
    std::fs::write(path, format!("{before}{BEGIN}\n\n{tables}\n\n{END}{after}")).map_err(Error::file(path))
}

fn find(
    measurements: &[Measurement],
    guest: Guest,
    asynchronous: bool,
    (peer, rate): (Peer, u32),
) -> Option<&Measurement> {
    measurements.iter().find(|measurement| {
        let subject = &measurement.subject;
        subject.guest == guest
            && subject.asynchronous == asynchronous
            && subject.peer == peer
            && subject.rate == rate
    })
}

fn table(title: &str, head: &[String], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---".to_owned(); head.len()];
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{title}\n\n{}{}{rows}\n", line(head), line(&rule))
}

fn slowdown(measurements: &[Measurement]) -> String {
    let column = |&(peer, rate): &(Peer, u32)| match peer {
        Peer::Nothing => "nothing".to_owned(),
        _ => format!("{}, {rate} Hz", peer.title()),
    };
    let head: Vec<String> = std::iter::once("guest".to_owned()).chain(COLUMNS.iter().map(column)).collect();
    let mut rows = Vec::new();
    for &guest in Guest::value_variants() {
        for asynchronous in [false, true] {
            let found = COLUMNS.map(|column| find(measurements, guest, asynchronous, column));
            if found.iter().any(Option::is_some) {
                let title = if asynchronous { format!("{}, async", name(guest)) } else { name(guest) };
                let cells = found.map(|measurement| measurement.map_or_else(|| "·".to_owned(), ratio));
                rows.push(std::iter::once(title).chain(cells).collect());
            }
        }
    }
    table(
        "**Slowdown.** CPU time of the guest's thread over that without a profiler: median of pairs, and the interval that \
         holds it in 95 of 100 cases.",
        &head,
        rows,
    )
}

fn ratio(measurement: &Measurement) -> String {
    match Estimate::of(&measurement.thread_ratios) {
        Some(estimate) if estimate.is_telling() => {
            format!("{:.3} ({:.3}–{:.3})", estimate.median, estimate.low, estimate.high)
        }
        Some(estimate) => format!("too noisy (±{:.1} %)", 100.0 * estimate.uncertainty()),
        None => "·".to_owned(),
    }
}

/// What a tick costs, and how much of that is not flamewalk's.
fn ticks(measurements: &[Measurement]) -> String {
    let head =
        ["guest", "empty handler, µs", "flamewalk, µs", "flamewalk over empty handler"].map(str::to_owned);
    let mut rows = Vec::new();
    for &guest in Guest::value_variants() {
        let overhead = |peer| {
            let measurement = find(measurements, guest, false, (peer, HIGH))?;
            let estimate = Estimate::of(&measurement.thread_ratios)?;
            let is_known = estimate.uncertainty() <= (estimate.median - 1.0) / 4.0;
            Some(is_known.then_some(estimate))
        };
        let (Some(floor), Some(ours)) = (overhead(Peer::EmptyHandler), overhead(Peer::Flamewalk)) else {
            continue;
        };
        // The rate is one of the slowed-down guest's time.
        let cost = |estimate: Estimate| (1.0 - 1.0 / estimate.median) / f64::from(HIGH);
        let shown = |estimate: Option<Estimate>| {
            estimate.map_or("too noisy".to_owned(), |estimate| format!("{:.1}", 1e6 * cost(estimate)))
        };
        let factor = floor.zip(ours).map_or("too noisy".to_owned(), |(floor, ours)| {
            let relative = |estimate: Estimate| estimate.uncertainty() / (estimate.median - 1.0);
            let factor = cost(ours) / cost(floor);
            format!("{factor:.2} ± {:.2}", factor * relative(floor).hypot(relative(ours)))
        });
        rows.push(vec![name(guest), shown(floor), shown(ours), factor]);
    }
    table("**What a tick costs**, from the slowdown at 9,997 Hz.", &head, rows)
}

fn accuracy(measurements: &[Measurement]) -> String {
    let head: Vec<String> =
        ["guest".to_owned()].into_iter().chain(RESULTS.map(|peer| peer.title().to_owned())).collect();
    let mut rows = Vec::new();
    for &guest in Guest::value_variants() {
        for asynchronous in [false, true] {
            let cell = |peer| {
                let measurement = find(measurements, guest, asynchronous, (peer, USUAL))?;
                let (distance, chance) = (measurement.distance?, measurement.chance?);
                Some(format!("{:.1} % ({:.1} %)", 100.0 * distance, 100.0 * chance))
            };
            let cells = RESULTS.map(cell);
            if cells.iter().any(Option::is_some) {
                let title = if asynchronous { format!("{}, async", name(guest)) } else { name(guest) };
                let cells = cells.map(|cell| cell.unwrap_or_else(|| "·".to_owned()));
                rows.push(std::iter::once(title).chain(cells).collect());
            }
        }
    }
    table(
        "**How wrong the shares are.** Total variation from the truth: the part of the time that is shown in a wrong place. \
         In parentheses, what as many independent samples are off by on average.",
        &head,
        rows,
    )
}

fn results(measurements: &[Measurement]) -> String {
    let head = [
        "guest",
        "profiler",
        "samples asked",
        "taken",
        "lost",
        "CPU time elsewhere",
        "frames without names",
        "files",
        "until the result",
    ]
    .map(str::to_owned);
    let mut rows = Vec::new();
    for guest in [Guest::Compute, Guest::Sqlite, Guest::Cpython] {
        for peer in RESULTS {
            let Some(measurement) = find(measurements, guest, false, (peer, USUAL)) else { continue };
            rows.push(vec![
                name(guest),
                peer.title().to_owned(),
                format!("{:.0}", measurement.asked),
                measurement.taken.to_string(),
                measurement.lost.map_or_else(|| "not said".to_owned(), |lost| lost.to_string()),
                format!("{:.1} %", 100.0 * measurement.elsewhere),
                measurement.unnamed.map_or_else(|| "·".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
                format!("{:.0} kB", measurement.bytes as f64 / 1e3),
                format!("{:.0} ms", 1e3 * measurement.seconds),
            ]);
        }
    }
    table(
        "**Samples and results**, at 997 Hz. CPU time elsewhere is that of other threads and processes that work for the \
         profiler, as a share of the guest's.",
        &head,
        rows,
    )
}

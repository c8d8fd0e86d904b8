//! The tables, as Markdown.

use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;

use crate::error::Error;
use crate::guest::Guest;
use crate::measurement::{Measurement, Subject, find};
use crate::peer::Peer;
use crate::plan::{HIGH, USUAL};
use crate::statistics::{Estimate, median, middle_half};
use crate::{goals, ticks};

const BEGIN: &str = "<!-- The tables: written by examples/benchmarks/run. -->";
const END: &str = "<!-- End of the tables. -->";

/// The columns of the slowdown.
const COLUMNS: [Peer; 8] = [
    Peer::Nothing,
    Peer::EmptyHandler,
    Peer::EmptyHook,
    Peer::Flamewalk,
    Peer::FlamewalkByHand,
    Peer::GuestProfiler,
    Peer::Wasmprof,
    Peer::Perf,
];

/// The profilers that leave a result.
const RESULTS: [Peer; 4] = [Peer::Flamewalk, Peer::GuestProfiler, Peer::Wasmprof, Peer::Perf];

/// What is measured, for people.
pub fn described(subject: &Subject) -> String {
    let peers: Vec<&str> = subject.peers.iter().map(|peer| peer.title()).collect();
    format!("{} under {} at {} Hz", name(subject.guest, subject.asynchronous), peers.join(", "), subject.rate)
}

/// What the tables call a guest.
pub fn name(guest: Guest, asynchronous: bool) -> String {
    let name = guest.to_possible_value().map(|value| value.get_name().replace('-', " ")).unwrap_or_default();
    if asynchronous { format!("{name}, async") } else { name }
}

/// All tables.
pub fn document(machine: &str, measurements: &[Measurement], failures: &[String]) -> String {
    let mut text = format!("{machine}.\n\n");
    text += &goals::summary(measurements);
    text += &slowdown(measurements);
    text += &ticks::by_guest(measurements);
    text += &ticks::by_way(measurements);
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

/// A table with its title.
pub struct Table {
    text: String,
    is_empty: bool,
}

impl Table {
    pub fn new(title: &str, head: &[&str]) -> Self {
        let rule = vec!["---"; head.len()];
        let text = format!("{title}\n\n| {} |\n| {} |\n", head.join(" | "), rule.join(" | "));
        Self { text, is_empty: true }
    }

    pub fn row(&mut self, first: String, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = std::iter::once(first).chain(cells).collect();
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
        self.is_empty = false;
    }

    /// Nothing, title included, without rows.
    pub fn finish(self) -> String {
        if self.is_empty { String::new() } else { self.text + "\n" }
    }

    /// A row for each guest, and for its asynchronous calls, of which there is any cell.
    fn rows<const N: usize>(&mut self, cells: impl Fn(Guest, bool) -> [Option<String>; N]) {
        for &guest in Guest::value_variants() {
            for asynchronous in [false, true] {
                let cells = cells(guest, asynchronous);
                if cells.iter().any(Option::is_some) {
                    let cells = cells.map(|cell| cell.unwrap_or_else(|| "·".to_owned()));
                    self.row(name(guest, asynchronous), cells);
                }
            }
        }
    }
}

fn slowdown(measurements: &[Measurement]) -> String {
    let head: Vec<&str> = ["guest"].into_iter().chain(COLUMNS.iter().map(|peer| peer.title())).collect();
    let mut table = Table::new(
        "**Slowdown at 997 Hz**, in percent of the CPU time of the guest's thread: median of pairs, and the middle half \
         of them.",
        &head,
    );
    table.rows(|guest, asynchronous| {
        COLUMNS.map(|peer| find(measurements, guest, asynchronous, (peer, USUAL)).map(percent))
    });
    table.finish()
}

/// A slowdown in percent, with the middle half of the rounds.
pub fn percent(measurement: &Measurement) -> String {
    let slowdowns = &measurement.slowdowns;
    match Estimate::of(slowdowns) {
        Some(estimate) if estimate.is_telling() => {
            let (low, high) = middle_half(slowdowns.clone());
            format!("{:.1} ({:.1} to {:.1})", 100.0 * median(slowdowns.clone()), 100.0 * low, 100.0 * high)
        }
        Some(estimate) => format!("too noisy (± {:.1})", 100.0 * estimate.uncertainty()),
        None => "·".to_owned(),
    }
}

fn accuracy(measurements: &[Measurement]) -> String {
    let head: Vec<&str> = ["guest"].into_iter().chain(RESULTS.iter().map(|peer| peer.title())).collect();
    let mut table = Table::new(
        "**How wrong the shares are.** Total variation from the truth: the part of the time that is shown in a wrong place. \
         In parentheses, what as many independent samples are off by on average.",
        &head,
    );
    table.rows(|guest, asynchronous| {
        RESULTS.map(|peer| {
            let measurement = find(measurements, guest, asynchronous, (peer, USUAL))?;
            let (distance, chance) = (measurement.distance?, measurement.chance?);
            Some(format!("{:.1} % ({:.1} %)", 100.0 * distance, 100.0 * chance))
        })
    });
    table.finish()
}

fn results(measurements: &[Measurement]) -> String {
    let mut table = Table::new(
        "**Samples and results.** CPU time elsewhere is that of other threads and processes that work for the profiler, as a \
         share of the guest's.",
        &[
            "guest",
            "profiler",
            "asked",
            "taken",
            "lost",
            "elsewhere",
            "unnamed frames",
            "files",
            "result after",
        ],
    );
    for &guest in Guest::value_variants() {
        let usual = RESULTS.map(|peer| (peer, USUAL));
        for (peer, rate) in usual.into_iter().chain([(Peer::Flamewalk, HIGH)]) {
            let Some(measurement) = find(measurements, guest, false, (peer, rate)) else { continue };
            let profiler = match rate {
                USUAL => peer.title().to_owned(),
                _ => format!("{}, {rate} Hz", peer.title()),
            };
            let cells = [
                profiler,
                format!("{:.0}", measurement.asked),
                measurement.taken.to_string(),
                measurement.lost.map_or_else(|| "not said".to_owned(), |lost| lost.to_string()),
                format!("{:.1} %", 100.0 * measurement.elsewhere),
                measurement.unnamed.map_or_else(|| "·".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
                format!("{:.0} kB", measurement.bytes as f64 / 1e3),
                format!("{:.0} ms", 1e3 * measurement.seconds),
            ];
            table.row(name(guest, false), cells);
        }
    }
    table.finish()
}

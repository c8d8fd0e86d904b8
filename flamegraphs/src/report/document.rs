//! What a report says in words: names, what was measured and how, source texts. The page reads it as JSON.

use std::collections::BTreeMap;

use flamewalk_profile::{EndReason, Metadata, Profile, Statistics, Tally, Unit, printable};
use serde::Serialize;

use super::{ReportOptions, calls::Calls, changes::Changes, functions::Functions};
use crate::{
    amount::{Amount, count, time},
    category::{Category, position_of},
    headline,
};

/// Columns that a tabulator stands for in a source text.
const TAB: &str = "    ";

#[derive(Serialize)]
pub(super) struct Document {
    pub(super) title: String,
    event: String,
    /// Whether it is known what weights are of.
    is_known: bool,
    /// Whether weights are nanoseconds; otherwise they count events.
    is_time: bool,
    categories: Vec<Shades>,
    functions: FunctionColumns,
    profiles: Vec<About>,
    texts: Vec<String>,
    label_sets: Vec<Vec<[String; 2]>>,
    /// Lines by the position of the file in `texts`.
    sources: BTreeMap<usize, Vec<String>>,
    /// What changed from one build to the other, if two are compared.
    pub(super) changes: Option<Changes>,
    /// Name, numbers and bytes of each column of numbers.
    pub(super) columns: Vec<(&'static str, usize, usize)>,
}

/// Colours, and what they say.
#[derive(Serialize)]
pub(super) struct Shades {
    pub(super) label: &'static str,
    pub(super) ends: [[u8; 3]; 2],
}

/// One list for each property of functions, in their order.
#[derive(Serialize)]
struct FunctionColumns {
    names: Vec<String>,
    /// Position in the categories; an inlined copy has the one behind.
    categories: Vec<u8>,
    /// Between the ends of the category's shades, in thousandths.
    shades: Vec<u16>,
}

/// What is known about one profile.
#[derive(Serialize)]
struct About {
    /// Whether it belongs to the new build of a comparison; without one, no profile does.
    is_new: bool,
    slice_seconds: Option<f64>,
    /// How many slices of time its samples fell into, counted to the last.
    slices: u64,
    threads: Vec<String>,
    facts: Vec<[String; 2]>,
    notices: Vec<String>,
    /// What became of the ticks: cause, samples, weight.
    ticks: Vec<(String, u64, u64)>,
    /// Milliseconds since 1970.
    start: Option<f64>,
}

impl Document {
    /// Of profiles that all count the same event; from number `first_new` on they belong to the new build.
    pub(super) fn new(
        profiles: &[&Profile],
        first_new: usize,
        functions: &Functions,
        calls: &Calls,
        options: &ReportOptions,
    ) -> Self {
        let metadata = profiles.first().map(|profile| &profile.metadata);
        let event = metadata.map(|metadata| metadata.event.clone()).unwrap_or_default();
        Self {
            title: metadata.map_or_else(
                || options.title.clone().unwrap_or_default(),
                |metadata| headline::title(metadata, options.title.as_deref()),
            ),
            event: printable(&event.name),
            is_known: event.is_known(),
            is_time: event.unit == Unit::Nanoseconds,
            categories: Category::ALL
                .into_iter()
                .map(|category| Shades { label: category.label(), ends: category.ends() })
                .collect(),
            functions: FunctionColumns::new(functions),
            profiles: (0..)
                .zip(profiles)
                .map(|(number, profile)| About::new(profile, number >= first_new))
                .collect(),
            texts: calls.texts.iter().cloned().collect(),
            label_sets: calls
                .label_sets
                .iter()
                .map(|set| set.iter().map(|(key, value)| [printable(key), printable(value)]).collect())
                .collect(),
            sources: sources(options, calls),
            changes: None,
            columns: Vec::new(),
        }
    }
}

impl FunctionColumns {
    fn new(functions: &Functions) -> Self {
        let all = &functions.all;
        Self {
            names: all.iter().map(|function| function.name.clone()).collect(),
            categories: all.iter().map(|function| Category::of_kind(function.kind, false) as u8).collect(),
            shades: all
                .iter()
                .map(|function| (position_of(&function.name) * 1000.0).round() as u16)
                .collect(),
        }
    }
}

impl About {
    fn new(profile: &Profile, is_new: bool) -> Self {
        let metadata = &profile.metadata;
        let slices = profile.samples().filter_map(|sample| sample.origin.slice);
        let since_1970 = metadata.start.and_then(|start| start.duration_since(std::time::UNIX_EPOCH).ok());
        Self {
            is_new,
            slice_seconds: metadata.slice.map(|slice| slice.as_secs_f64()),
            slices: slices.max().map_or(0, |last| u64::from(last) + 1),
            threads: profile
                .threads()
                .map(|(_, thread)| match &thread.name {
                    Some(name) => format!("{} ({})", printable(name), thread.id),
                    None => format!("thread {}", thread.id),
                })
                .collect(),
            facts: facts(metadata, profile.total()),
            notices: metadata.notices.iter().map(|notice| printable(notice)).collect(),
            ticks: ticks(&metadata.statistics),
            start: since_1970.map(|since| since.as_millis() as f64),
        }
    }
}

/// What was measured and how, as far as it is known: label and value.
fn facts(metadata: &Metadata, total: Tally) -> Vec<[String; 2]> {
    let Metadata { event, .. } = metadata;
    let end = match &metadata.end {
        None => None,
        Some(EndReason::Finished) => Some("finished".to_owned()),
        Some(end) => Some(printable(&end.to_string())),
    };
    let weight = Amount { weight: total.weight, event };
    let known = [
        ("guest", metadata.guest.as_deref().map(printable)),
        ("command", Some(printable(&metadata.command.join(" "))).filter(|command| !command.is_empty())),
        ("event", Some(printable(&event.name)).filter(|_| event.is_known())),
        ("weight", Some(if event.is_known() { weight.named() } else { weight.to_string() })),
        ("samples", Some(count(total.samples)).filter(|_| total.samples > 0)),
        ("rate", headline::rate(metadata)),
        ("engine", metadata.engine.as_deref().map(printable)),
        ("duration", metadata.duration.map(time)),
        ("end", end),
    ];
    known.into_iter().filter_map(|(label, value)| Some([label.to_owned(), value?])).collect()
}

/// What became of the ticks, without what never happened.
fn ticks(statistics: &Statistics) -> Vec<(String, u64, u64)> {
    let lost = statistics.lost.iter().map(|(cause, &tally)| (format!("lost: {}", printable(cause)), tally));
    let ends = statistics
        .walk_ends
        .iter()
        .map(|(reason, &tally)| (format!("walk ended: {}", printable(reason)), tally));
    [
        ("ticks", statistics.ticks),
        ("delivered", statistics.delivered),
        ("outside the guest", statistics.outside),
    ]
    .into_iter()
    .map(|(label, tally)| (label.to_owned(), tally))
    .chain(lost)
    .chain(ends)
    .filter(|(_, tally)| *tally != Tally::default())
    .map(|(label, tally)| (label, tally.samples, tally.weight))
    .collect()
}

/// The source texts that some frame refers to.
fn sources(options: &ReportOptions, calls: &Calls) -> BTreeMap<usize, Vec<String>> {
    let position = |path: &str| calls.texts.get_index_of(&printable(path));
    let lines = |text: &str| text.lines().map(source_line).collect();
    options.sources.iter().filter_map(|(path, text)| Some((position(path)?, lines(text)))).collect()
}

/// A line of a source that shows every character that it has, and keeps its indentation.
fn source_line(line: &str) -> String {
    let line = line.replace('\t', TAB);
    let line = line.trim_end();
    let indented = line.len() - line.trim_start().len();
    line[..indented].chars().map(|_| ' ').chain(printable(line).chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_line_keeps_its_indentation_and_hides_nothing() {
        assert_eq!(source_line("\t  a\tb \u{202e}c\u{1b} \r"), "      a    b �c␛");
        assert_eq!(source_line("  "), "");
    }
}

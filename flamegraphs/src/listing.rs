//! Text with its cost line by line: source, bytecode, machine code.

use std::{collections::BTreeMap, fmt, sync::Arc};

use flamewalk_profile::{Event, Metadata, printable};

use crate::{
    amount::Amount,
    annotate::{BodyId, Cost},
    table::{Table, percent},
};

/// Lines around each one with a cost that are shown with it.
const CONTEXT: usize = 3;

/// A listing, and with it a table as text through [`Display`](fmt::Display). Shares are those of the whole profile.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Listing {
    /// What is listed.
    pub subject: Subject,
    /// The file that a source file's text was taken from, if its path is not the subject's.
    pub text_file: Option<String>,
    /// The lines in their order; `None` where some are left out.
    pub lines: Vec<Option<ListingLine>>,
    /// What was measured, and with it the unit of the weights.
    pub event: Event,
    /// The whole profile's weight.
    pub total_weight: u64,
    /// Columns of the terminal; longer lines are cut. `None`, the default, cuts nothing.
    pub columns: Option<usize>,
}

/// What a listing is of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// A source file, by its path as the debug information states it.
    File(Arc<str>),
    /// A function's instructions.
    Body(BodyId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(&printable(path)),
            Self::Body(id) => id.fmt(f),
        }
    }
}

/// A line of text and what fell on it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListingLine {
    /// The number of a source line, from 1, or the offset of an instruction.
    pub position: u32,
    /// The text; any content.
    pub text: String,
    /// What fell on it.
    pub cost: Cost,
}

impl Listing {
    /// A listing of `lines`, without those that are far from any cost.
    pub fn new(subject: Subject, lines: Vec<ListingLine>, metadata: &Metadata, total_weight: u64) -> Self {
        let mut is_shown = vec![false; lines.len()];
        for (index, line) in lines.iter().enumerate() {
            if line.cost != Cost::default() {
                let end = (index + CONTEXT + 1).min(lines.len());
                is_shown[index.saturating_sub(CONTEXT)..end].fill(true);
            }
        }
        let mut shown: Vec<Option<ListingLine>> = Vec::new();
        for (line, is_shown) in lines.into_iter().zip(is_shown) {
            if is_shown {
                shown.push(Some(line));
            } else if matches!(shown.last(), Some(Some(_))) {
                shown.push(None);
            }
        }
        if shown.last() == Some(&None) {
            shown.pop();
        }
        let event = metadata.event.clone();
        Self { subject, text_file: None, lines: shown, event, total_weight, columns: None }
    }

    /// The costs of a source file's lines; without its text, only the lines that have any.
    pub fn of_source(
        path: &Arc<str>,
        costs: &BTreeMap<u32, Cost>,
        text: Option<&str>,
        metadata: &Metadata,
        total_weight: u64,
    ) -> Self {
        let mut lines: Vec<ListingLine> = Vec::new();
        let mut last = 0;
        for (text, number) in text.unwrap_or_default().lines().zip(1_u32..) {
            let cost = costs.get(&number).copied().unwrap_or_default();
            lines.push(ListingLine { position: number, text: text.to_owned(), cost });
            last = number;
        }
        // Lines beyond the end of the text are of another version of it.
        let unknown = costs.iter().filter(|(number, _)| **number > last);
        lines.extend(unknown.map(|(number, cost)| ListingLine {
            position: *number,
            text: String::new(),
            cost: *cost,
        }));
        Self::new(Subject::File(path.clone()), lines, metadata, total_weight)
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |weight| match weight {
            0 => String::new(),
            weight => Amount { weight, event: &self.event }.to_string(),
        };
        let share = |weight: u64| match weight {
            0 => String::new(),
            weight => percent(weight as f64 / self.total_weight.max(1) as f64),
        };
        let texts: Vec<String> = self
            .lines
            .iter()
            .map(|line| match line {
                // Tabs would not keep their column behind the figures.
                Some(line) => flamewalk_profile::printable(&format!("|{}", line.text.replace('\t', "    "))),
                None => "|".to_owned(),
            })
            .collect();
        let cells = |line: &Option<ListingLine>| match line {
            Some(ListingLine { position, cost, .. }) => [
                amount(cost.self_weight),
                share(cost.self_weight),
                amount(cost.total_weight),
                share(cost.total_weight),
                match self.subject {
                    Subject::File(_) => position.to_string(),
                    Subject::Body(_) => format!("{position:#x}"),
                },
            ],
            None => ["", "", "", "", "…"].map(str::to_owned),
        };
        let text_file = self.text_file.as_ref();
        let text_file = text_file.map(|file| format!(", with the text of {}", printable(file)));
        let title = format!("{}{}", self.subject, text_file.unwrap_or_default());
        let table = Table {
            heads: ["SELF", "SELF%", "TOTAL", "TOTAL%", ""],
            name_head: &title,
            rows: self.lines.iter().zip(&texts).map(|(line, text)| (cells(line), text.as_str())).collect(),
            columns: self.columns,
        };
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(self_weight: u64, total_weight: u64) -> Cost {
        Cost { self_weight, total_weight }
    }

    fn source(costs: &[(u32, Cost)], text: Option<&str>) -> Vec<String> {
        let mut metadata = Metadata::default();
        metadata.event = Event::count("page-faults");
        let costs = costs.iter().copied().collect();
        let listing = Listing::of_source(&"src/a.c".into(), &costs, text, &metadata, 2_000);
        listing.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_far_from_any_cost_are_left_out() {
        let text: String = (1..=40).map(|number| format!("\tline {number}\n")).collect();
        let expected = [
            " SELF   SELF%  TOTAL  TOTAL%      src/a.c",
            "                               1  |    line 1",
            "1,000  50.00%  1,500  75.00%   2  |    line 2",
            "                               3  |    line 3",
            "                               4  |    line 4",
            "                               5  |    line 5",
            "                               …  |",
            "                               9  |    line 9",
            "                              10  |    line 10",
            "                              11  |    line 11",
            "                  20   1.00%  12  |    line 12",
            "                              13  |    line 13",
            "                              14  |    line 14",
            "                              15  |    line 15",
        ];
        assert_eq!(source(&[(2, cost(1_000, 1_500)), (12, cost(0, 20))], Some(&text)), expected);
    }

    #[test]
    fn without_a_text_only_costs_are_left() {
        let costs = [(7, cost(1, 1)), (900, cost(2, 2))];
        let expected = [
            "SELF  SELF%  TOTAL  TOTAL%       src/a.c",
            "   1  0.05%      1   0.05%    7  |",
            "   2  0.10%      2   0.10%  900  |",
        ];
        assert_eq!(source(&costs, None), expected);
        // A text that is shorter than the one that was compiled.
        assert_eq!(source(&costs, Some("one\n")).last().unwrap(), expected[2]);
    }

    #[test]
    fn hostile_text_is_harmless() {
        let lines = source(&[(1, cost(1, 1))], Some("\x1b[31m\u{202e}x"));
        assert_eq!(lines[1], "   1  0.05%      1   0.05%  1  |␛[31m\u{fffd}x");
    }
}

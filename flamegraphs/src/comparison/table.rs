//! A comparison as a table for the terminal.

use std::fmt;

use unicode_width::UnicodeWidthStr;

use super::{
    Comparison, FunctionChange, PathChange,
    wording::{ARROW, Wording},
};
use crate::{amount::count, table::cut};

/// A comparison as text for the terminal, through [`Display`](fmt::Display): the functions by their change, the call
/// paths that explain it, what is on one side only, and the notices.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Table<'c> {
    comparison: &'c Comparison,
    /// The most functions and the most call paths that are listed. 20 by default.
    pub rows: usize,
    /// Columns of the terminal; longer names and paths are cut. `None`, the default, cuts nothing.
    pub columns: Option<usize>,
}

impl Comparison {
    /// The comparison as text for the terminal.
    pub fn table(&self) -> Table<'_> {
        Table { comparison: self, rows: 20, columns: None }
    }
}

/// A line of a table: aligned cells, and text to the end of the line.
struct Line {
    cells: Vec<String>,
    end: End,
}

enum End {
    /// What matters is at the start.
    Name(String),
    /// What matters is at the end: the names of a call path.
    Path(Vec<String>),
}

impl Table<'_> {
    fn lines(&self, f: &mut fmt::Formatter<'_>, heads: Line, lines: Vec<Line>) -> fmt::Result {
        let widths: Vec<usize> = (0..heads.cells.len())
            .map(|column| {
                std::iter::once(&heads)
                    .chain(&lines)
                    .map(|line| line.cells[column].width())
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        for line in std::iter::once(&heads).chain(&lines) {
            for (cell, width) in line.cells.iter().zip(&widths) {
                // Not by the formatter, which counts characters.
                write!(f, "{}{cell}  ", " ".repeat(width - cell.width()))?;
            }
            let used: usize = widths.iter().map(|width| width + 2).sum();
            let room = self.columns.map(|columns| columns.saturating_sub(used));
            match &line.end {
                End::Name(name) => writeln!(f, "{}", cut(name, room))?,
                End::Path(path) => writeln!(f, "{}", cut_path(path, room))?,
            }
        }
        Ok(())
    }

    fn functions(&self, f: &mut fmt::Formatter<'_>, wording: Wording<'_>) -> fmt::Result {
        let line = |function: &FunctionChange| {
            let mut cells = wording.cells(&function.own).to_vec();
            cells.extend(wording.cells(&function.total));
            cells.push(wording.matched(function).to_owned());
            Line { cells, end: End::Name(function.title()) }
        };
        let mut heads = wording.heads("SELF").to_vec();
        heads.extend(wording.heads("TOTAL"));
        heads.push("MATCHED BY".to_owned());
        let functions = &self.comparison.functions;
        let lines = functions.iter().take(self.rows).map(line).collect();
        self.lines(f, Line { cells: heads, end: End::Name("FUNCTION".to_owned()) }, lines)?;
        more(f, functions.len(), self.rows, "functions")
    }

    fn paths(&self, f: &mut fmt::Formatter<'_>, wording: Wording<'_>) -> fmt::Result {
        let paths = &self.comparison.paths;
        if paths.is_empty() {
            return Ok(());
        }
        let line = |path: &PathChange| {
            let names =
                path.functions.iter().map(|&function| self.comparison.functions[function].name.clone());
            let cells = [wording.cells(&path.own), wording.cells(&path.total)].concat();
            Line { cells, end: End::Path(names.collect()) }
        };
        writeln!(f)?;
        let heads = [wording.heads("SELF"), wording.heads("TOTAL")].concat();
        let heads = Line { cells: heads, end: End::Name("CALL PATH".to_owned()) };
        self.lines(f, heads, paths.iter().take(self.rows).map(line).collect())?;
        more(f, paths.len(), self.rows, "call paths")
    }

    fn one_side(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comparison = self.comparison;
        let mut vanished: Vec<_> =
            comparison.vanished().map(|function| (&function.name, function.total.base.share)).collect();
        let mut appeared: Vec<_> =
            comparison.appeared().map(|function| (&function.name, function.total.new.share)).collect();
        let mut separator = "\n";
        for (side, functions) in [("base", &mut vanished), ("new build", &mut appeared)] {
            if functions.is_empty() {
                continue;
            }
            functions.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            // A function of a few samples is missed by chance.
            let large = functions.iter().take_while(|(_, share)| *share >= comparison.min_share);
            let mut listed: Vec<String> =
                large.take(self.rows).map(|(name, share)| format!("{name} {:.2} %", 100.0 * share)).collect();
            if let Some(left) = functions.len().checked_sub(listed.len()).filter(|left| *left > 0) {
                let (of, most) = (functions[listed.len()].1, 100.0 * comparison.min_share);
                let size =
                    if of < comparison.min_share { format!(" of less than {most} %") } else { String::new() };
                let and = if listed.is_empty() { "" } else { "and " };
                listed.push(format!("{and}{} functions{size}", count(left as u64)));
            }
            let text = format!("only sampled in the {side}: {}", listed.join(", "));
            writeln!(f, "{separator}{}", cut(&text, self.columns))?;
            separator = "";
        }
        Ok(())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wording = Wording { comparison: self.comparison };
        for line in wording.headline() {
            writeln!(f, "{line}")?;
        }
        if let Some(line) = wording.detectable() {
            writeln!(f, "{line}")?;
        }
        if let Some([values, change, interval]) = wording.whole() {
            writeln!(f, "per unit of work: {values}, {change} ({interval})")?;
        }
        writeln!(f)?;
        self.functions(f, wording)?;
        self.paths(f, wording)?;
        self.one_side(f)?;
        for (notice, separator) in
            self.comparison.notices.iter().zip(std::iter::once("\n").chain(std::iter::repeat("")))
        {
            writeln!(f, "{separator}note: {notice}")?;
        }
        Ok(())
    }
}

fn more(f: &mut fmt::Formatter<'_>, all: usize, listed: usize, what: &str) -> fmt::Result {
    match all.saturating_sub(listed) {
        0 => Ok(()),
        left => writeln!(f, "… and {} more {what}", count(left as u64)),
    }
}

/// As many of a path's last functions as fit.
fn cut_path(path: &[String], room: Option<usize>) -> String {
    let separator = format!(" {ARROW} ");
    let whole = path.join(&separator);
    let Some(room) = room.filter(|&room| whole.width() > room) else {
        return whole;
    };
    let skipped = (1..path.len())
        .map(|skipped| format!("…{separator}{}", path[skipped..].join(&separator)))
        .find(|text| text.width() <= room);
    // Not even the last one fits.
    skipped.unwrap_or_else(|| cut(path.last().map_or("", String::as_str), Some(room)))
}

//! Tables for the terminal: numbers to the right, and a name at the end that is cut if the line gets too long.

use std::fmt;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A table of `N` columns of numbers and one of names.
pub(crate) struct Table<'t, const N: usize> {
    pub(crate) heads: [&'t str; N],
    pub(crate) name_head: &'t str,
    pub(crate) rows: Vec<([String; N], &'t str)>,
    /// Columns of the terminal; `None` cuts nothing.
    pub(crate) columns: Option<usize>,
}

impl<const N: usize> fmt::Display for Table<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = (self.heads.map(str::to_owned), self.name_head);
        let rows = || std::iter::once(&head).chain(&self.rows);
        let widths: [usize; N] = std::array::from_fn(|column| {
            rows().map(|(cells, _)| cells[column].width()).max().unwrap_or_default()
        });
        let used: usize = widths.iter().map(|width| width + 2).sum();
        let room = self.columns.map(|columns| columns.saturating_sub(used));
        for (cells, name) in rows() {
            for (cell, width) in cells.iter().zip(widths) {
                write!(f, "{}{cell}  ", " ".repeat(width - cell.width()))?;
            }
            writeln!(f, "{}", cut(name, room))?;
        }
        Ok(())
    }
}

/// A share from 0 to 1 as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// The start of a name in at most `room` columns, with an ellipsis if that is not all of it.
pub(crate) fn cut(name: &str, room: Option<usize>) -> String {
    let Some(room) = room.filter(|&room| name.width() > room) else {
        return name.to_owned();
    };
    let mut used = 0;
    let start: String = name
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or_default();
            used < room
        })
        .collect();
    if room == 0 { start } else { start + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_by_their_width() {
        assert_eq!(cut("漢字漢字", Some(8)), "漢字漢字");
        assert_eq!(cut("漢字漢字", Some(6)), "漢字…");
        assert_eq!(cut("name", Some(0)), "");
        assert_eq!(cut("name", None), "name");
    }
}

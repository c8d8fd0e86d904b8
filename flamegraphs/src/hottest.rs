//! The functions that cost most, as a table for the terminal.

use std::{cmp::Reverse, fmt};

use crate::{
    amount::Amount,
    table::{Table, percent},
};
use flamewalk_profile::{Event, FrameKind, Names, Profile};

/// The functions with the largest self weight, and with it a table as text through [`Display`](fmt::Display):
///
/// ```text
///   SELF   SELF%   TOTAL   TOTAL%  FUNCTION
/// 3.00 s  75.00%  3.00 s   75.00%  leaf
/// 1.00 s  25.00%  4.00 s  100.00%  main
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hottest {
    /// The functions, hottest first.
    pub rows: Vec<Row>,
    /// What was measured, and with it the unit of the weights.
    pub event: Event,
    /// Columns of the terminal; longer lines are cut. `None`, the default, cuts nothing.
    pub columns: Option<usize>,
}

/// A function of the table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The name it is shown by.
    pub name: String,
    /// What it is.
    pub kind: FrameKind,
    /// Weight of the samples in which it was the youngest frame, in the unit of the event.
    pub self_weight: u64,
    /// That weight as a share of the profile's, from 0 to 1.
    pub self_share: f64,
    /// Weight of the samples that have it anywhere on the stack, in the unit of the event.
    pub total_weight: u64,
    /// That weight as a share of the profile's, from 0 to 1.
    pub total_share: f64,
}

/// The `n` functions of `profile` with the largest self weight; among equals, the larger total and then the name
/// decides. Functions without any weight are left out, so an empty profile has none.
pub fn hottest(profile: &Profile, n: usize) -> Hottest {
    let names = Names::new(profile);
    let mut functions = profile.functions(&names);
    functions.retain(|function| function.total_tally.weight > 0);
    functions.sort_by_key(|function| {
        let (own, total) = (function.self_tally.weight, function.total_tally.weight);
        (Reverse(own), Reverse(total), names.text(function.name), function.kind)
    });
    functions.truncate(n);
    let share = |weight| weight as f64 / profile.total().weight as f64;
    let rows = functions
        .into_iter()
        .map(|function| Row {
            name: names.text(function.name).to_owned(),
            kind: function.kind,
            self_weight: function.self_tally.weight,
            self_share: share(function.self_tally.weight),
            total_weight: function.total_tally.weight,
            total_share: share(function.total_tally.weight),
        })
        .collect();
    Hottest { rows, event: profile.metadata.event.clone(), columns: None }
}

impl fmt::Display for Hottest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |weight| Amount { weight, event: &self.event }.to_string();
        let cells = |row: &Row| {
            [
                amount(row.self_weight),
                percent(row.self_share),
                amount(row.total_weight),
                percent(row.total_share),
            ]
        };
        let table = Table {
            heads: ["SELF", "SELF%", "TOTAL", "TOTAL%"],
            name_head: "FUNCTION",
            rows: self.rows.iter().map(|row| (cells(row), row.name.as_str())).collect(),
            columns: self.columns,
        };
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, Tally};
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn profile() -> Profile {
        let mut profile = Profile::default();
        profile.metadata.event = Event::time("cpu");
        let main = profile.intern(Frame::guest("main"));
        let fib = profile.intern(Frame::guest("fib"));
        let wide = profile.intern(Frame::guest("std::vector<int, std::allocator<int>>::push_back(int&&)"));
        let write = profile.intern(Frame::host_call("wasi_snapshot_preview1", "fd_write"));
        for (stack, weight) in [
            (&[main, fib, fib, fib][..], 1_500_000_000),
            (&[main, fib], 500_000_000),
            (&[main, wide, write], 2_000_000),
            (&[main, wide], 998_000_000),
        ] {
            profile.add(stack, Tally { samples: 1, weight }).unwrap();
        }
        profile
    }

    #[test]
    fn the_table_is_aligned() {
        let expected = [
            "   SELF   SELF%    TOTAL   TOTAL%  FUNCTION",
            " 2.00 s  66.67%   2.00 s   66.67%  fib",
            " 998 ms  33.27%   1.00 s   33.33%  std::vector<int, std::allocator<int>>::push_back(int&&)",
            "2.00 ms   0.07%  2.00 ms    0.07%  [host] wasi_snapshot_preview1.fd_write",
            "    0 s   0.00%   3.00 s  100.00%  main",
        ];
        assert_eq!(hottest(&profile(), 10).to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_are_cut_only_if_asked() {
        let mut table = hottest(&profile(), 2);
        table.columns = Some(50);
        let text = table.to_string();
        assert_eq!(text.lines().last(), Some("998 ms  33.27%  1.00 s  33.33%  std::vector<int, …"));
        assert!(text.lines().all(|line| line.width() <= 50), "{text}");
    }

    #[test]
    fn the_first_n_by_self_then_total_then_name() {
        let names = |n| hottest(&profile(), n).rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(0), [""; 0]);
        assert_eq!(names(1), ["fib"]);

        let mut profile = Profile::default();
        let [z, b, a] = ["z", "b", "a"].map(|name| profile.intern(Frame::guest(name)));
        profile.add(&[z, b], Tally { samples: 1, weight: 5 }).unwrap();
        profile.add(&[z, a], Tally { samples: 1, weight: 5 }).unwrap();
        profile.add(&[z], Tally { samples: 1, weight: 5 }).unwrap();
        let rows = hottest(&profile, 3).rows;
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["z", "a", "b"]);
    }

    #[test]
    fn an_empty_profile_has_only_a_head() {
        assert_eq!(hottest(&Profile::default(), 5).to_string(), "SELF  SELF%  TOTAL  TOTAL%  FUNCTION\n");
    }
}

//! How deep the execution stack was, and how much room was left on it, by function.

use std::{collections::HashMap, fmt};

use flamewalk_profile::{FrameKind, Headroom, Names, Profile};

use crate::{
    amount::count,
    table::{Table, percent},
};

/// The extremes of stack use of functions and host calls, and with it a table as text through
/// [`Display`](fmt::Display). Bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeadroomTable {
    /// The functions, those with the least room left first.
    pub rows: Vec<HeadroomRow>,
    /// The share of the profile's weight whose stack use is known, from 0 to 1.
    pub known_share: f64,
    /// Columns of the terminal; longer lines are cut. `None`, the default, cuts nothing.
    pub columns: Option<usize>,
}

/// A function or host call of the table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeadroomRow {
    /// The name it is shown by.
    pub name: String,
    /// What it is.
    pub kind: FrameKind,
    /// The extremes over the samples in which it was the youngest frame, if there are any.
    pub own: Option<Headroom>,
    /// The extremes over the samples that have it anywhere on the stack: with all that it calls.
    pub total: Headroom,
}

/// The `n` functions of `profile` that were sampled with the least room left on the execution stack: first those that
/// were the youngest frame then, by that; then those that only called others. Samples see the depth at their own
/// instant: between two of them, a stack may have been deeper.
pub fn headroom(profile: &Profile, n: usize) -> HeadroomTable {
    let names = Names::new(profile);
    let mut rows: HashMap<_, (Option<Headroom>, Headroom)> = HashMap::new();
    let mut known = 0;
    for stack in profile.stacks() {
        let Some(headroom) = stack.headroom else { continue };
        known += stack.tally.weight;
        for (position, &id) in stack.frames.iter().enumerate() {
            let kind = profile.frame(id).kind;
            if kind == FrameKind::Truncated {
                continue;
            }
            let (own, total) = rows.entry((kind, names.id(id))).or_insert((None, headroom));
            *total = total.merge(headroom);
            if position + 1 == stack.frames.len() {
                *own = Some(own.map_or(headroom, |own| own.merge(headroom)));
            }
        }
    }
    let mut rows: Vec<HeadroomRow> = rows
        .into_iter()
        .map(|((kind, name), (own, total))| HeadroomRow {
            name: names.text(name).to_owned(),
            kind,
            own,
            total,
        })
        .collect();
    rows.sort_by(|a, b| {
        let least = |row: &HeadroomRow| row.own.map_or(u64::MAX, |own| own.least_left);
        let key = |row: &HeadroomRow| (least(row), row.total.least_left, row.kind);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    rows.truncate(n);
    let known_share = known as f64 / profile.total().weight.max(1) as f64;
    HeadroomTable { rows, known_share, columns: None }
}

impl fmt::Display for HeadroomTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = |own: Option<Headroom>, bytes: fn(Headroom) -> u64| {
            own.map_or_else(|| "-".to_owned(), |own| count(bytes(own)))
        };
        let cells = |row: &HeadroomRow| {
            [
                own(row.own, |own| own.least_left),
                own(row.own, |own| own.deepest_use),
                count(row.total.least_left),
                count(row.total.deepest_use),
            ]
        };
        if self.known_share < 1.0 {
            writeln!(f, "The use of the stack is known for {} of the weight.", percent(self.known_share))?;
        }
        let table = Table {
            heads: ["SELF LEFT", "SELF USED", "TOTAL LEFT", "TOTAL USED"],
            name_head: "FUNCTION (bytes of stack)",
            rows: self.rows.iter().map(|row| (cells(row), row.name.as_str())).collect(),
            columns: self.columns,
        };
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, Tally};

    use super::*;

    #[test]
    fn extremes_are_kept_for_the_youngest_and_for_all() {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let f = profile.intern(Frame::guest("f"));
        let write = profile.intern(Frame::host_call("env", "write"));
        for (frames, headroom) in [
            (&[main][..], Some((10, 990))),
            (&[main, f], Some((300, 700))),
            (&[main, f, f], Some((500, 600))),
            (&[main, f, write], Some((800, 200))),
            (&[write], None),
        ] {
            let stack = profile.add(frames, Tally { samples: 1, weight: 1 }).unwrap();
            if let Some((deepest_use, least_left)) = headroom {
                profile.note_headroom(stack, Headroom { deepest_use, least_left });
            }
        }
        let expected = [
            "The use of the stack is known for 80.00% of the weight.",
            "SELF LEFT  SELF USED  TOTAL LEFT  TOTAL USED  FUNCTION (bytes of stack)",
            "      200        800         200         800  [host] env.write",
            "      600        500         200         800  f",
            "      990         10         200         800  main",
        ];
        let table = headroom(&profile, 5);
        assert_eq!(table.to_string().lines().collect::<Vec<_>>(), expected);
        assert_eq!(headroom(&profile, 1).rows, table.rows[..1]);
        assert_eq!(headroom(&Profile::default(), 5).rows, []);
    }

    #[test]
    fn functions_that_only_call_come_last() {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let f = profile.intern(Frame::guest("f"));
        let stack = profile.add(&[main, f], Tally { samples: 1, weight: 1 }).unwrap();
        profile.note_headroom(stack, Headroom { deepest_use: 1_234, least_left: 5_678 });
        let table = headroom(&profile, 5);
        assert_eq!(
            table.to_string().lines().last(),
            Some("        -          -       5,678       1,234  main")
        );
    }
}

//! How the figures of a comparison read, in every text.

use flamewalk_profile::{Event, Unit, printable};

use super::{Change, Comparison, FunctionChange, SideSummary, significance::FOUND};
use crate::amount::{Amount, count, samples};

/// Between the functions of a call path, and between what was and what is.
pub(super) const ARROW: &str = "→";
/// Marks what is significant.
pub(super) const MARK: &str = "*";
/// Stands for what was not tested.
const UNTESTED: &str = "–";

/// What is compared, as text: shares in percent, or costs per unit of work.
#[derive(Clone, Copy)]
pub(crate) struct Wording<'c> {
    pub(crate) comparison: &'c Comparison,
}

impl Wording<'_> {
    /// The heads of the columns for a change: what it was and is, the difference, its interval.
    pub(super) fn heads(self, of: &str) -> [String; 3] {
        let unit = if self.comparison.whole.per_work.is_some() { "/WORK" } else { "%" };
        [format!("{of}{unit}"), "CHANGE".to_owned(), "INTERVAL".to_owned()]
    }

    /// The texts for a change, in the order of the heads.
    pub(crate) fn cells(self, change: &Change) -> [String; 3] {
        let difference = change.leading();
        let [base, new] = [&change.base, &change.new].map(|cost| match cost.per_work {
            Some(cost) => amount(cost, &self.comparison.event),
            None => format!("{:.2}", 100.0 * cost.share),
        });
        let mark = if difference.significant { MARK } else { "" };
        let interval = match difference.interval {
            Some([low, high]) => format!("{} … {}", self.signed(low, change), self.signed(high, change)),
            None => UNTESTED.to_owned(),
        };
        [
            format!("{base} {ARROW} {new}"),
            format!("{}{mark}", self.signed(difference.estimate, change)),
            interval,
        ]
    }

    /// A difference with its sign, in the unit of the leading one.
    fn signed(self, value: f64, change: &Change) -> String {
        match change.per_work {
            Some(_) => {
                let sign = if value < 0.0 { "-" } else { "+" };
                format!("{sign}{}", amount(value.abs(), &self.comparison.event))
            }
            // Without a minus before a zero.
            None => format!("{:+.2}", (10_000.0 * value).round() / 100.0 + 0.0),
        }
    }

    /// What was compared, one line each.
    pub(crate) fn headline(self) -> [String; 3] {
        let Comparison { base, new, tests, error_rate, min_share, .. } = self.comparison;
        let side = |name: &str, side: &SideSummary| {
            let mut parts = vec![amount_named(side.weight, &self.comparison.event)];
            if side.samples > 0 {
                parts.push(samples(side.samples));
            }
            if side.profiles > 1 {
                parts.push(format!("{} profiles", side.profiles));
            }
            parts.extend(side.work.map(|work| match side.profiles {
                1 => format!("{work} units of work"),
                _ => format!("{work} units of work each"),
            }));
            let guest = side.guest.as_deref().map_or_else(String::new, |guest| printable(guest) + ", ");
            format!("{name}{guest}{}", parts.join(", "))
        };
        let tests = match tests {
            0 => "nothing was tested".to_owned(),
            _ => format!(
                "{MARK} is beyond noise: together false with a probability of at most {} %; {} tests, of what takes \
                 at least {} %",
                100.0 * error_rate,
                count(*tests as u64),
                100.0 * min_share
            ),
        };
        [side("base: ", base), side("new:  ", new), tests]
    }

    /// How large a change has to be to be found.
    pub(crate) fn detectable(self) -> Option<String> {
        let size = self.size(self.comparison.detectable?);
        Some(format!(
            "a change of self by {size} is found in {:.0} % of cases, in whichever function; a smaller one may be \
             missed",
            100.0 * FOUND
        ))
    }

    /// How small a change of something may be that was not found, if it was looked for and none was.
    pub(crate) fn missed(self, change: &Change) -> Option<String> {
        let difference = change.leading();
        difference.detectable.filter(|_| !difference.significant).map(|size| self.size(size))
    }

    /// A difference without its sign.
    fn size(self, size: f64) -> String {
        match self.comparison.whole.per_work {
            Some(_) => amount(size, &self.comparison.event),
            None => format!("{:.2} points", 100.0 * size),
        }
    }

    /// How a function was found in both builds, or where it is.
    pub(crate) fn matched(self, function: &FunctionChange) -> &'static str {
        match (function.matched_by, &function.base_name) {
            (Some(matched_by), _) => matched_by.label(),
            (None, Some(_)) => "only base",
            (None, None) => "only new",
        }
    }

    /// The change of all samples together, if it is of any interest.
    pub(super) fn whole(self) -> Option<[String; 3]> {
        self.comparison.whole.per_work.map(|_| self.cells(&self.comparison.whole))
    }
}

/// A cost per unit of work, which may be less than one of the unit.
fn amount(cost: f64, event: &Event) -> String {
    match event.unit {
        Unit::Nanoseconds if cost >= 1.0 || cost == 0.0 => {
            Amount { weight: cost.round() as u64, event }.to_string()
        }
        Unit::Nanoseconds => format!("{cost:.2} ns"),
        Unit::Events if cost >= 100.0 => count(cost.round() as u64),
        Unit::Events => format!("{cost:.2}"),
    }
}

fn amount_named(weight: u64, event: &Event) -> String {
    match event.unit {
        Unit::Nanoseconds => format!("{} {}", printable(&event.name), Amount { weight, event }),
        Unit::Events => Amount { weight, event }.named(),
    }
}

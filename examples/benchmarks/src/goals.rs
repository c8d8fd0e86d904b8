//! What flamewalk is held to, and what became of it.

use clap::ValueEnum;

use crate::guest::Guest;
use crate::measurement::{Measurement, find, floor};
use crate::peer::Peer;
use crate::plan::{HIGH, USUAL};
use crate::statistics::Estimate;
use crate::tables::{Table, name};
use crate::ticks;

/// What was measured on one guest.
struct Found {
    guest: String,
    /// `None` if the machine is too noisy to tell.
    estimate: Option<Estimate>,
    /// What a handler that returns at once, and a call hook that does, come to there.
    floor: Option<Estimate>,
}

/// Whether a goal is met on every guest: `most` is the highest that is good enough.
fn verdict(found: &[Found], most: f64) -> &'static str {
    let is_above = |estimate: &Estimate| estimate.low > most;
    if found.iter().any(|found| found.estimate.as_ref().is_some_and(is_above)) {
        let is_floor_above = |found: &Found| {
            found.estimate.as_ref().is_some_and(is_above) && found.floor.as_ref().is_some_and(is_above)
        };
        return if found.iter().any(is_floor_above) { "not met; the floor is above it" } else { "not met" };
    }
    match found.iter().all(|found| found.estimate.is_some_and(|estimate| estimate.high <= most)) {
        true => "met",
        false => "cannot be told here",
    }
}

fn slowdowns(measurements: &[Measurement], peer: Peer, rate: u32) -> Vec<Found> {
    let mut found = Vec::new();
    for &guest in Guest::value_variants() {
        for asynchronous in [false, true] {
            let of = |peer| find(measurements, guest, asynchronous, (peer, rate));
            let Some(ours) = of(peer) else { continue };
            found.push(Found {
                guest: name(guest, asynchronous),
                estimate: Estimate::of(&ours.slowdowns).filter(|estimate| estimate.is_telling()),
                floor: floor(measurements, guest, asynchronous, (peer, rate))
                    .and_then(|floor| Estimate::of(&floor)),
            });
        }
    }
    found
}

fn ticks_over_floor(measurements: &[Measurement]) -> Vec<Found> {
    let found = |&guest: &Guest| {
        let estimate = ticks::over_floor(measurements, guest)?;
        Some(Found { guest: name(guest, false), estimate, floor: None })
    };
    Guest::value_variants().iter().filter_map(found).collect()
}

/// What is not to be more than `most` on any guest.
struct Goal {
    title: &'static str,
    most: f64,
    found: Vec<Found>,
    shown: fn(Estimate) -> String,
}

impl Goal {
    /// What the table says of it after its title; `None` if nothing is known.
    fn cells(&self) -> Option<[String; 5]> {
        let told = self.found.iter().filter_map(|found| Some((found, found.estimate?)));
        let (worst, estimate) = told.clone().max_by(|one, other| one.1.median.total_cmp(&other.1.median))?;
        Some([
            worst.guest.clone(),
            (self.shown)(estimate),
            worst.floor.map_or("1".to_owned(), self.shown),
            format!("{} of {}", told.count(), self.found.len()),
            verdict(&self.found, self.most).to_owned(),
        ])
    }
}

/// One line for each goal.
pub fn summary(measurements: &[Measurement]) -> String {
    let slowdown = |title, most, peer, rate| Goal {
        title,
        most,
        found: slowdowns(measurements, peer, rate),
        shown: |estimate| format!("{:.1} ± {:.1} %", 100.0 * estimate.median, 100.0 * estimate.uncertainty()),
    };
    let tick = Goal {
        title: "a tick at most 1.2 times the floor",
        most: 1.2,
        found: ticks_over_floor(measurements),
        shown: |estimate| format!("{:.2} ± {:.2}", estimate.median, estimate.uncertainty()),
    };
    let goals = [
        slowdown("slowdown at 997 Hz at most 0.3 %", 0.003, Peer::Flamewalk, USUAL),
        slowdown("the same, attached by hand", 0.003, Peer::FlamewalkByHand, USUAL),
        tick,
        slowdown("slowdown at 9,997 Hz at most 3 %", 0.03, Peer::Flamewalk, HIGH),
        slowdown("the same, attached by hand", 0.03, Peer::FlamewalkByHand, HIGH),
    ];
    let mut table = Table::new(
        "**What flamewalk is held to**, on every guest. The floor is a handler and a call hook that return at once; by hand there \
         is no hook.",
        &["goal", "worst guest", "flamewalk there", "floor there", "guests told", ""],
    );
    for goal in goals {
        if let Some(cells) = goal.cells() {
            table.row(goal.title.to_owned(), cells);
        }
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(median: f64, floor: f64) -> Found {
        let around = |median: f64| Some(Estimate { median, low: 0.9 * median, high: 1.1 * median });
        Found { guest: String::new(), estimate: around(median), floor: around(floor) }
    }

    #[test]
    fn one_guest_is_enough_to_miss_a_goal_and_none_may_be_untold_to_meet_it() {
        assert_eq!(verdict(&[found(1.0, 0.5), found(0.5, 0.5)], 1.2), "met");
        assert_eq!(verdict(&[found(1.0, 0.5), found(2.0, 0.5)], 1.2), "not met");
        assert_eq!(verdict(&[found(2.0, 1.9)], 1.2), "not met; the floor is above it");
        assert_eq!(verdict(&[found(1.19, 0.5)], 1.2), "cannot be told here");
        let untold = Found { estimate: None, ..found(1.0, 1.0) };
        assert_eq!(verdict(&[found(1.0, 0.5), untold], 1.2), "cannot be told here");
    }
}

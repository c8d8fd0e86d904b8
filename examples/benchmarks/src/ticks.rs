//! What a tick costs the guest's thread, from slowdowns at the high rate.

use clap::ValueEnum;

use crate::guest::Guest;
use crate::measurement::{Measurement, find, floor};
use crate::peer::Peer;
use crate::plan::{HIGH, TICKED};
use crate::statistics::{Estimate, median};
use crate::tables::{Table, name, percent};

/// The ways to tick that are compared, with what they are for.
const WAYS: [(Peer, &str); 6] = [
    (Peer::Interrupt, "the interrupt of a perf event's timer, which any tick needs"),
    (Peer::EmptyHandler, "flamewalk's way: `SIGPROF` and others by `F_SETSIG`"),
    (Peer::EmptyTimer, "ticks also while the thread waits"),
    (Peer::EmptyTrap, "by the event itself, `sigtrap`"),
    (Peer::Flamewalk, "as it comes"),
    (Peer::FlamewalkTrap, "`Options::signal` set to `SIGTRAP`"),
];

/// Seconds that a tick takes, if a guest is slowed down by this part of its time. The rate is one of the slowed-down guest's time.
fn seconds(slowdown: f64) -> f64 {
    slowdown / (1.0 + slowdown) / f64::from(HIGH)
}

fn median_of(slowdowns: &[f64], chosen: &[usize]) -> f64 {
    median(chosen.iter().map(|&index| slowdowns[index]).collect())
}

/// Microseconds for a tick; `None` if they are not known to a quarter.
fn microseconds(slowdowns: &[f64]) -> Option<Estimate> {
    let cost = Estimate::by(slowdowns.len(), |chosen| 1e6 * seconds(median_of(slowdowns, chosen)))?;
    cost.is_known_to(0.25).then_some(cost)
}

/// What a tick of one costs over that of the other, of the same rounds if they were measured together; `None` if either is
/// not known to a quarter.
fn relative(ours: &[f64], floor: &[f64]) -> Option<Estimate> {
    microseconds(ours).zip(microseconds(floor))?;
    Estimate::by(ours.len().min(floor.len()), |chosen| {
        seconds(median_of(ours, chosen)) / seconds(median_of(floor, chosen))
    })
}

/// flamewalk's tick over the [`floor`]; `None` for guests that it was not measured on, and inside if the machine is too
/// noisy to tell.
pub fn over_floor(measurements: &[Measurement], guest: Guest) -> Option<Option<Estimate>> {
    let ours = find(measurements, guest, false, (Peer::Flamewalk, HIGH))?;
    Some(relative(&ours.slowdowns, &floor(measurements, guest, false, (Peer::Flamewalk, HIGH))?))
}

fn shown(estimate: Option<Estimate>, digits: usize) -> String {
    match estimate {
        Some(estimate) => format!("{:.digits$} ± {:.digits$}", estimate.median, estimate.uncertainty()),
        None => "too noisy".to_owned(),
    }
}

/// The slowdown at the high rate, and what that makes of a tick.
pub fn by_guest(measurements: &[Measurement]) -> String {
    let mut table = Table::new(
        "**At 9,997 Hz**, and what that makes of a tick (± half of the interval that holds it in 95 of 100 cases). The floor \
         is an empty handler and an empty hook together: on a guest that calls the host all the time, hooks are counted as if \
         they were ticks.",
        &[
            "guest",
            "empty handler",
            "empty hook",
            "flamewalk",
            "flamewalk by hand",
            "floor, µs a tick",
            "flamewalk, µs a tick",
            "flamewalk / floor",
        ],
    );
    for &guest in Guest::value_variants() {
        let of = |peer| find(measurements, guest, false, (peer, HIGH));
        let (Some(handler), Some(ours)) = (of(Peer::EmptyHandler), of(Peer::Flamewalk)) else { continue };
        let Some(floor) = floor(measurements, guest, false, (Peer::Flamewalk, HIGH)) else { continue };
        let percent_of = |peer| of(peer).map_or_else(|| "·".to_owned(), percent);
        let cells = [
            percent(handler),
            percent_of(Peer::EmptyHook),
            percent(ours),
            percent_of(Peer::FlamewalkByHand),
            shown(microseconds(&floor), 1),
            shown(microseconds(&ours.slowdowns), 1),
            shown(relative(&ours.slowdowns, &floor), 2),
        ];
        table.row(name(guest, false), cells);
    }
    table.finish()
}

/// Ways to tick, on one guest.
pub fn by_way(measurements: &[Measurement]) -> String {
    let title = format!("**Ways to tick**, on `{}` at 9,997 Hz.", name(TICKED, false));
    let mut table = Table::new(&title, &["", "what it is", "µs a tick", "over the empty handler"]);
    let of = |peer| find(measurements, TICKED, false, (peer, HIGH));
    let handler = of(Peer::EmptyHandler);
    for (peer, what) in WAYS {
        let Some(measurement) = of(peer) else { continue };
        let slowdowns = &measurement.slowdowns;
        let over = |handler: &Measurement| shown(relative(slowdowns, &handler.slowdowns), 2);
        let factor = handler.map_or_else(|| "·".to_owned(), over);
        table.row(peer.title().to_owned(), [what.to_owned(), shown(microseconds(slowdowns), 1), factor]);
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_costs_what_the_guest_is_slowed_down_by() {
        // Of a second under the profiler, 9,997 ticks of 20 µs take a fifth: what took 0.8 s without takes 1 s.
        let cost = 1e6 * seconds(1.0 / (1.0 - 9_997.0 * 20e-6) - 1.0);
        assert!((cost - 20.0).abs() < 1e-6, "{cost}");
    }
}

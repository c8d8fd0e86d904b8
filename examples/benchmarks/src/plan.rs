//! Which guests are measured under which profilers, and how often these tick.

use crate::guest::Guest;
use crate::measurement::Subject;
use crate::peer::Peer;

/// Rates in Hz: a usual one, and ten times as many.
pub const USUAL: u32 = 997;
pub const HIGH: u32 = 9_997;

/// The guest on which ways to tick are compared.
pub const TICKED: Guest = Guest::Compute;

/// What is measured together, so that it can be compared without the noise of two processes.
/// There is one profiler in a process, and so one way of flamewalk's.
const GROUPS: [(u32, &[Peer]); 8] = [
    (USUAL, &[Peer::Nothing, Peer::EmptyHandler, Peer::EmptyHook, Peer::Flamewalk]),
    (HIGH, &[Peer::EmptyHandler, Peer::EmptyHook, Peer::Flamewalk]),
    (USUAL, &[Peer::FlamewalkByHand]),
    (HIGH, &[Peer::FlamewalkByHand]),
    (USUAL, &[Peer::GuestProfiler]),
    (USUAL, &[Peer::Wasmprof]),
    (USUAL, &[Peer::Perf]),
    (HIGH, &[Peer::FlamewalkTrap]),
];

/// Ways to tick besides those above, measured with them on one guest.
const WAYS: [Peer; 3] = [Peer::Interrupt, Peer::EmptyTrap, Peer::EmptyTimer];

/// All measurements of these guests and peers. Asynchronous calls are measured where they differ: where guests leave for
/// the host, and where they are large.
pub fn plan(guests: &[Guest], peers: &[Peer], seconds: f64) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for &guest in guests {
        for asynchronous in [false, true] {
            if asynchronous && !matches!(guest, Guest::Compute | Guest::HostCalls | Guest::Sqlite) {
                continue;
            }
            for (rate, group) in GROUPS {
                if rate == HIGH && asynchronous || group == [Peer::FlamewalkTrap] && guest != TICKED {
                    continue;
                }
                let compares_ways = rate == HIGH && guest == TICKED && group.len() > 1;
                let ways: &[Peer] = if compares_ways { &WAYS } else { &[] };
                let chosen: Vec<Peer> =
                    ways.iter().chain(group).copied().filter(|peer| peers.contains(peer)).collect();
                if !chosen.is_empty() {
                    subjects.push(Subject { guest, peers: chosen, rate, asynchronous, seconds });
                }
            }
        }
    }
    subjects
}

//! Which guests are measured under which profilers, and how often these tick.

use crate::guest::Guest;
use crate::measurement::Subject;
use crate::peer::Peer;

/// Rates in Hz: a usual one, and ten times as many.
pub const USUAL: u32 = 997;
pub const HIGH: u32 = 9_997;

/// All measurements of these guests and peers. Asynchronous calls are measured where they differ: where guests leave for
/// the host, and where they are large.
pub fn plan(guests: &[Guest], peers: &[Peer], seconds: f64) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for &guest in guests {
        for &peer in peers {
            let rates: &[u32] = match peer {
                Peer::EmptyHandler | Peer::Flamewalk => &[USUAL, HIGH],
                _ => &[USUAL],
            };
            let also_async = matches!(guest, Guest::Compute | Guest::HostCalls | Guest::Sqlite)
                && !matches!(peer, Peer::EmptyHandler);
            for &rate in rates {
                let subject = Subject { guest, peer, rate, asynchronous: false, seconds };
                subjects.push(subject.clone());
                if also_async && rate == USUAL {
                    subjects.push(Subject { asynchronous: true, ..subject });
                }
            }
        }
    }
    subjects
}

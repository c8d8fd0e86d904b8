//! What was measured, how, and how it ended.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::Statistics;

/// Unit of a profile's weights. Exhaustive, so that each format has to decide how it shows a new unit.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Unit {
    /// Weights are time in nanoseconds.
    Nanoseconds,
    /// Weights count occurrences of the event.
    #[default]
    Events,
}

/// The event that was sampled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Its usual name: `cpu`, `wall`, `page-faults`, …
    pub name: String,
    /// Unit of the weights.
    pub unit: Unit,
}

impl Event {
    /// An event whose weights are nanoseconds.
    pub fn time(name: impl Into<String>) -> Self {
        Self { name: name.into(), unit: Unit::Nanoseconds }
    }

    /// An event whose weights count its occurrences.
    pub fn count(name: impl Into<String>) -> Self {
        Self { name: name.into(), unit: Unit::Events }
    }

    /// Whether it is known what weights are of: false for the default event.
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// The unit of the weights in a word, for other programs: `nanoseconds`, `events`, or `unknown`.
    pub fn unit_name(&self) -> &'static str {
        match self.unit {
            _ if !self.is_known() => "unknown",
            Unit::Nanoseconds => "nanoseconds",
            Unit::Events => "events",
        }
    }
}

/// Weights of which nothing is known, called `weight`: a folded file holds numbers of samples, nanoseconds or anything
/// else, and does not say which.
impl Default for Event {
    fn default() -> Self {
        Self::count("weight")
    }
}

/// How the run that was profiled ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EndReason {
    /// The guest returned.
    Finished,
    /// The guest exited by itself with this status.
    ExitStatus(i32),
    /// The guest trapped, with the trap's message.
    Trap(String),
    /// The user stopped the run.
    Interrupted,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::ExitStatus(status) => write!(f, "exit status {status}"),
            Self::Trap(message) => write!(f, "trap: {message}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What a profile says about itself. Everything is optional, since a profile may come from a file that does not
/// say; formats leave out what is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// The event, and with it the unit of all weights.
    pub event: Event,
    /// The engine that produced the ticks: `perf cpu-clock`, `timer CLOCK_MONOTONIC`, …
    pub engine: Option<String>,
    /// Rate that was asked for, in ticks per second.
    pub asked_rate: Option<f64>,
    /// Rate that the engine really reached, or can reach, in ticks per second.
    pub real_rate: Option<f64>,
    /// Weight of one tick, in the unit of the event.
    pub period: Option<u64>,
    /// What ran, as a person would call it: the guest's file name, or a name that the embedder chose.
    pub guest: Option<String>,
    /// The guest's command line, program first.
    pub command: Vec<String>,
    /// When the profile was started.
    pub start: Option<SystemTime>,
    /// Length of the slices of time that [`Origin::slice`](crate::Origin::slice) numbers.
    pub slice: Option<Duration>,
    /// How long it lasted, by the wall clock.
    pub duration: Option<Duration>,
    /// How much of that sampling was paused.
    pub paused: Option<Duration>,
    /// How the run ended.
    pub end: Option<EndReason>,
    /// What the user should know about the profile's quality, one sentence each.
    pub notices: Vec<String>,
    /// What became of every tick.
    pub statistics: Statistics,
}

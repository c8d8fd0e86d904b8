//! Why two sets of profiles cannot be compared.

use std::fmt;

use flamewalk_profile::{Event, Unit};

use super::Side;

/// An error of a comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComparisonError {
    /// A side without profiles, or with profiles without any weight.
    #[error("the {side} has no samples: nothing can be compared with it")]
    EmptySide {
        /// The side.
        side: Side,
    },
    /// Profiles of different events or of different units.
    #[error("profiles of different events cannot be compared: {first} and {other}")]
    DifferentEvents {
        /// The event of the first profile of the base.
        first: EventName,
        /// The first event that differs.
        other: EventName,
    },
    /// Noise is not known, so that nothing can be said of what is beyond it.
    #[error(
        "a profile holds neither the number of its samples nor their period: a rise cannot be told from noise"
    )]
    NoiseUnknown,
    /// An option outside of what it may be.
    #[error("{option} is {value}, but must be {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// Writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// An event with its unit, for messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventName(pub Event);

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.0.unit {
            _ if !self.0.is_known() => "of unknown unit",
            Unit::Nanoseconds => "in nanoseconds",
            Unit::Events => "counted",
        };
        write!(f, "`{}` ({unit})", flamewalk_profile::printable(&self.0.name))
    }
}

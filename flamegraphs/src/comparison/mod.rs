//! What changed between two builds of a guest, and what of it is more than noise.
//!
//! A [`Comparison`] takes profiles of a base and of a new build; several profiles of a side are repeated runs. It finds
//! the functions of one build in the other ([`MatchedBy`]), gives the change of each in self and total, of call paths,
//! and, if the work is known, in cost per unit of work. Each change comes with an interval and an adjusted p-value, and
//! what it calls significant is, all together, false with at most the error rate.
//!
//! ```
//! use flamewalk_flamegraphs::comparison::{Comparison, ComparisonOptions};
//! use flamewalk_profile::{Frame, Profile, Tally};
//!
//! let profile = |parse| -> Result<Profile, flamewalk_profile::ProfileError> {
//!     let mut profile = Profile::default();
//!     let main = profile.intern(Frame::guest("main"));
//!     for (name, samples) in [("parse", parse), ("draw", 5_000)] {
//!         let function = profile.intern(Frame::guest(name));
//!         profile.add(&[main, function], Tally { samples, weight: samples })?;
//!     }
//!     Ok(profile)
//! };
//! let comparison = Comparison::new(&[profile(1_000)?], &[profile(1_500)?], &ComparisonOptions::default())?;
//! let parse = comparison.functions.iter().find(|function| function.name == "parse").unwrap();
//! assert!(parse.own.share.significant);
//! assert!(comparison.fail_above(0.05)?.failed());
//! print!("{}", comparison.table());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it can find
//! Samples are few, so that small changes drown. [`Difference::detectable`] says for each function how large a change
//! has to be to be found with a probability of 95 %, at the noise that these profiles have. Between two profiles of n
//! samples each, for a function whose share is p, that is about
//!
//! ```text
//! (z + 1.64) · √(2.2 · p · (1 - p) / n)
//! ```
//!
//! where the 2.2 are two sides with periods that vary, and z is what the error rate comes to in this test: 2.5 for the
//! largest function of ten, about 3 if there are many call paths. In percentage points, for a z of 2.5:
//!
//! | samples a side | share of 2 % | 10 % | 30 % | 50 % |
//! |---:|---:|---:|---:|---:|
//! | 1,000 | 2.7 | 5.8 | 8.9 | 9.7 |
//! | 10,000 | 0.9 | 1.8 | 2.8 | 3.1 |
//! | 100,000 | 0.3 | 0.6 | 0.9 | 1.0 |
//!
//! What disturbs a run adds to that, and so do runs that differ by themselves.
//!
//! # What it cannot know
//! - Shares add up to one: what costs more makes everything else a smaller share. Only costs per unit of work
//!   ([`ComparisonOptions::work`]) tell what became slower from what became a larger part.
//! - One profile a side does not show how runs differ by themselves: another machine, a warm cache. Nor does it tell a
//!   change in a part of the run from something that disturbed the run for a while, and so neither is significant.
//!   Several profiles do both.
//! - Phases that last for a tenth of a run do not begin at quite the same place in two runs. What only runs in such a
//!   phase looks noisier than it is, and its interval is up to three times as wide as it had to be, unless there are
//!   several profiles a side.
//! - A smallest share, chosen before looking at the result, bounds the number of tests
//!   ([`ComparisonOptions::min_share`]); below it nothing is called significant.

mod assembly;
mod change;
mod counts;
mod distributions;
mod error;
mod family;
mod identity;
mod json;
mod markdown;
mod matching;
mod moderation;
mod paths;
mod significance;
mod stable_name;
mod stretches;
mod svg;
mod table;
mod verdict;
mod wording;

use std::fmt;

use flamewalk_profile::{Event, FrameId, Profile};
use serde::Serialize;

pub use change::{Call, Change, Cost, Difference, FunctionChange, PathChange};
pub use error::{ComparisonError, EventName};
pub use markdown::Markdown;
pub use matching::MatchedBy;
pub(crate) use svg::Hue;
pub use svg::{DifferentialOptions, Shape};
pub use table::Table;
pub use verdict::{Cause, CauseOf, Verdict};
pub(crate) use wording::Wording;

/// A side of a comparison.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// What is compared with.
    Base,
    /// What is compared.
    New,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::New => "new build",
        })
    }
}

/// How two sides are compared.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ComparisonOptions {
    /// The probability that anything at all is called significant between two profiles of the same. 0.05 by default.
    pub error_rate: f64,
    /// The smallest share, of both sides together, from which on a function or call path is tested. 0.005 by default.
    pub min_share: f64,
    /// How many units of work each profile of the base and of the new build did: requests, frames, runs.
    pub work: Option<(f64, f64)>,
    /// The weight of one sample, for profiles that hold neither the number of their samples nor their period, as
    /// folded stacks do: 1 if their values are numbers of samples. Without it such profiles are not tested.
    pub period: Option<u64>,
}

impl Default for ComparisonOptions {
    fn default() -> Self {
        Self { error_rate: 0.05, min_share: 0.005, work: None, period: None }
    }
}

/// The profiles of one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SideSummary {
    /// What ran, if the first profile says so.
    pub guest: Option<String>,
    /// How many profiles there are.
    pub profiles: usize,
    /// Their samples. 0 if they do not hold their number.
    pub samples: u64,
    /// Their weight, in the unit of the event.
    pub weight: u64,
    /// The units of work that each of them did.
    pub work: Option<f64>,
}

/// The comparison of two builds.
///
/// The text is a table ([`table`](Self::table)) or Markdown ([`markdown`](Self::markdown)); as JSON
/// ([`write_json`](Self::write_json)) the public fields keep their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// What was measured.
    #[serde(serialize_with = "json::event")]
    pub event: Event,
    /// The profiles of the base.
    pub base: SideSummary,
    /// The profiles of the new build.
    pub new: SideSummary,
    /// [`ComparisonOptions::error_rate`].
    pub error_rate: f64,
    /// [`ComparisonOptions::min_share`].
    pub min_share: f64,
    /// How many tests there were, for which p-values and intervals are adjusted.
    pub tests: usize,
    /// The smallest change of a function's self that is found with a probability of 95 %, whichever of the tested
    /// functions it is: a share, or a cost per unit of work if the work is known. `None` if no function was tested.
    pub detectable: Option<f64>,
    /// All samples. Their share is always one; their cost per unit of work is not.
    pub whole: Change,
    /// All functions that have any weight. First those whose self changed significantly, then those whose total did,
    /// each by the size of the change.
    pub functions: Vec<FunctionChange>,
    /// The call paths that explain the significant changes, by the size of the change: those whose self changed, and
    /// those whose total did without longer paths that account for most of it.
    pub paths: Vec<PathChange>,
    /// All call paths of at least 0.01 % of either side, callers before what they call. Not part of the JSON.
    #[serde(skip)]
    pub calls: Vec<Call>,
    /// What the reader should know about the comparison's quality, one sentence each.
    pub notices: Vec<String>,
    /// Whether the noise of all profiles is known.
    #[serde(skip)]
    testable: bool,
    /// By side and profile the function of each frame.
    #[serde(skip)]
    of_frames: [Vec<Vec<Option<usize>>>; 2],
}

impl Comparison {
    /// Compares the profiles of `new` with those of `base`. Several profiles of a side are repeated runs of one build.
    ///
    /// # Errors
    /// [`ComparisonError::EmptySide`] if a side has no profile or one without weight;
    /// [`ComparisonError::DifferentEvents`] if not all profiles are of one event; [`ComparisonError::Option`] for an
    /// option that makes no sense. Profiles of different guests are no error, but noticed.
    pub fn new(
        base: &[Profile],
        new: &[Profile],
        options: &ComparisonOptions,
    ) -> Result<Self, ComparisonError> {
        assembly::compare(base, new, options)
    }

    /// The function of a frame of the `profile`th profile of a side, as a position in [`functions`](Self::functions).
    /// `None` if the frame is left out of the comparison or has no weight.
    ///
    /// # Panics
    /// If the side has no such profile, or the profile no such frame.
    pub fn function_of(&self, side: Side, profile: usize, frame: FrameId) -> Option<usize> {
        self.of_frames[side as usize][profile][frame.index()]
    }

    /// The functions that are only in the base: gone, or not found.
    pub fn vanished(&self) -> impl Iterator<Item = &FunctionChange> {
        self.functions.iter().filter(|function| function.new_name.is_none())
    }

    /// The functions that are only in the new build: new, or not found.
    pub fn appeared(&self) -> impl Iterator<Item = &FunctionChange> {
        self.functions.iter().filter(|function| function.base_name.is_none())
    }

    /// Whether anything is significant.
    pub fn is_significant(&self) -> bool {
        self.whole.is_significant()
            || self.functions.iter().any(FunctionChange::is_significant)
            || self.calls.iter().any(|call| call.own.is_significant() || call.total.is_significant())
    }
}

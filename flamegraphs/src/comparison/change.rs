//! What a comparison says about one function or call path.

use flamewalk_profile::FrameKind;
use serde::{Serialize, Serializer};

use super::MatchedBy;

/// What something cost on one side, all runs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// Samples. 0 if the profiles do not hold their number.
    pub samples: u64,
    /// Weight, in the unit of the event.
    pub weight: u64,
    /// That weight as a share of the side's, from 0 to 1.
    pub share: f64,
    /// Weight per unit of work, if the work is known.
    pub per_work: Option<f64>,
}

/// A difference, new minus base, and whether it is more than noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The difference as it was measured.
    pub estimate: f64,
    /// Lower and upper end of what it may be: the intervals of the whole comparison hold the truth together, but for
    /// the error rate. `None` if it was not tested.
    pub interval: Option<[f64; 2]>,
    /// The p-value, adjusted for all tests of the comparison. `None` if it was not tested: it costs too little, or
    /// noise cannot be estimated.
    pub p_value: Option<f64>,
    /// Whether the adjusted p-value is at most the error rate.
    pub significant: bool,
    /// The smallest change, in either direction, that is found at this noise with a probability of 95 %. `None` if it
    /// was not tested.
    pub detectable: Option<f64>,
}

/// What something cost on either side, and how that differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// In the base.
    pub base: Cost,
    /// In the new build.
    pub new: Cost,
    /// The difference in share: 0.01 is one percentage point.
    pub share: Difference,
    /// The difference in weight per unit of work, if the work is known.
    pub per_work: Option<Difference>,
}

impl Change {
    /// The difference that counts: of the cost per unit of work if that is known, since shares also change when
    /// something else does; otherwise of the share.
    pub fn leading(&self) -> &Difference {
        self.per_work.as_ref().unwrap_or(&self.share)
    }

    /// Whether the difference that counts is significant.
    pub fn is_significant(&self) -> bool {
        self.leading().significant
    }
}

/// A function of either build or of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FunctionChange {
    /// The name it is shown by: that of the new build, if it is there.
    pub name: String,
    /// What it is.
    #[serde(serialize_with = "kind")]
    pub kind: FrameKind,
    /// Its shown name in the base. `None` if it is only in the new build.
    pub base_name: Option<String>,
    /// Its shown name in the new build. `None` if it is only in the base.
    pub new_name: Option<String>,
    /// How it was found in both.
    pub matched_by: Option<MatchedBy>,
    /// Samples in which it was the youngest frame.
    #[serde(rename = "self")]
    pub own: Change,
    /// Samples that have it anywhere on the stack.
    pub total: Change,
}

impl FunctionChange {
    /// Whether anything about the function is significant.
    pub fn is_significant(&self) -> bool {
        self.own.is_significant() || self.total.is_significant()
    }

    /// The name, and what the base calls it if that is something else.
    pub fn title(&self) -> String {
        match &self.base_name {
            Some(base) if *base != self.name => format!("{} (was {base})", self.name),
            _ => self.name.clone(),
        }
    }
}

/// A call path whose cost changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PathChange {
    /// Its functions, oldest first, as positions in [`Comparison::functions`](super::Comparison::functions).
    pub functions: Vec<usize>,
    /// Samples whose stacks are this path.
    #[serde(rename = "self")]
    pub own: Change,
    /// Samples whose stacks begin with this path.
    pub total: Change,
}

/// A call path as a node of the tree of all call paths of both builds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// Position of its caller in [`Comparison::calls`](super::Comparison::calls); `None` for the oldest function.
    pub caller: Option<usize>,
    /// Position of its function in [`Comparison::functions`](super::Comparison::functions).
    pub function: usize,
    /// Samples whose stacks are this path.
    pub own: Change,
    /// Samples whose stacks begin with this path.
    pub total: Change,
}

/// The name of a kind in JSON.
fn kind<S: Serializer>(kind: &FrameKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match kind {
        FrameKind::Guest => "guest",
        FrameKind::HostCall => "host_call",
        FrameKind::Builtin => "builtin",
        FrameKind::Host => "host",
        FrameKind::Truncated => "truncated",
    })
}

//! Whether a change is reason enough to fail a build.

use std::fmt;

use serde::Serialize;

use super::{Change, Comparison, ComparisonError, Difference, FunctionChange};

/// What [`Comparison::fail_above`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The threshold, as a share.
    pub threshold: f64,
    /// Whether shares are those of the base's cost per unit of work, and not of the side's weight.
    pub per_work: bool,
    /// The rises that exceed it, largest first.
    pub causes: Vec<Cause>,
    /// The smallest rise that is found with a probability of 95 %, whatever it is in: a smaller one, even above the
    /// threshold, may have been missed. `None` if nothing takes enough to be tested, or all that does takes nearly everything.
    pub detectable: Option<f64>,
}

impl Verdict {
    /// Whether the build fails.
    pub fn failed(&self) -> bool {
        !self.causes.is_empty()
    }
}

/// A rise that exceeds the threshold and is significant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cause {
    /// The function's name; `None` for all samples together.
    pub function: Option<String>,
    /// What of it rose.
    pub of: CauseOf,
    /// By how much, as a share of the side's weight, or of the base's cost per unit of work.
    pub rise: f64,
    /// The difference that it is.
    pub difference: Difference,
}

/// What rose.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CauseOf {
    /// Samples in which the function was the youngest frame.
    #[serde(rename = "self")]
    Own,
    /// Samples with the function anywhere on the stack.
    Total,
}

impl Comparison {
    /// Whether a function became costlier by more than `threshold`, and significantly so. The threshold is a share:
    /// 0.05 for five percentage points of a side's weight. If the work is known, costs per unit of work decide instead
    /// of shares, and the threshold is a share of what one unit costs the base; then all samples together count too.
    ///
    /// A function that is only in the new build counts with what it costs more than the costliest one that is only in
    /// the base, since the two may be one that was not recognized.
    ///
    /// # Errors
    /// [`ComparisonError::Option`] if the threshold is negative or not a number; [`ComparisonError::NoiseUnknown`] if a
    /// profile holds neither the number of its samples nor their period, and
    /// [`ComparisonOptions::period`](super::ComparisonOptions::period) does not say it either: nothing would ever fail.
    pub fn fail_above(&self, threshold: f64) -> Result<Verdict, ComparisonError> {
        if !(threshold >= 0.0 && threshold.is_finite()) {
            let (option, allowed) = ("the threshold", "a share of at least 0");
            return Err(ComparisonError::Option { option, value: threshold, allowed });
        }
        if !self.testable {
            return Err(ComparisonError::NoiseUnknown);
        }
        let mut causes = Vec::new();
        let mut detectable: Option<f64> = None;
        if self.whole.per_work.is_some() {
            causes.extend(self.cause(None, CauseOf::Total, &self.whole, 0.0));
        }
        for of in [CauseOf::Own, CauseOf::Total] {
            let change = |function: &FunctionChange| match of {
                CauseOf::Own => function.own,
                CauseOf::Total => function.total,
            };
            for function in &self.functions {
                let lookalike = match function.base_name {
                    Some(_) => 0.0,
                    None => self
                        .vanished()
                        .filter(|vanished| vanished.kind == function.kind)
                        .map(|vanished| -self.rise(&change(vanished)))
                        .fold(0.0, f64::max),
                };
                let change = change(function);
                causes.extend(self.cause(Some(&function.name), of, &change, lookalike));
                let of_function = change.leading().detectable.map(|size| self.as_share(&change, size));
                detectable = detectable.into_iter().chain(of_function).max_by(f64::total_cmp);
            }
        }
        causes.retain(|cause| cause.rise > threshold);
        causes.sort_by(|a, b| b.rise.total_cmp(&a.rise));
        Ok(Verdict { threshold, per_work: self.whole.per_work.is_some(), causes, detectable })
    }

    fn cause(&self, function: Option<&str>, of: CauseOf, change: &Change, less: f64) -> Option<Cause> {
        let difference = *change.leading();
        difference.significant.then(|| Cause {
            function: function.map(str::to_owned),
            of,
            rise: self.rise(change) - less,
            difference,
        })
    }

    /// A change as a share: of the weight, or of what a unit of work costs the base.
    fn rise(&self, change: &Change) -> f64 {
        self.as_share(change, change.leading().estimate)
    }

    /// A difference in the unit of the leading one as such a share.
    fn as_share(&self, change: &Change, difference: f64) -> f64 {
        match (change.per_work, self.whole.base.per_work) {
            (Some(_), Some(whole)) => difference / whole,
            _ => difference,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.per_work { "% of the base's cost per unit of work" } else { "percentage points" };
        let threshold = 100.0 * self.threshold;
        if self.causes.is_empty() {
            writeln!(f, "nothing rose significantly by more than {threshold:.2} {unit}")?;
            return match self.detectable.map(|detectable| 100.0 * detectable) {
                Some(detectable) if detectable > threshold => writeln!(
                    f,
                    "rises of less than {detectable:.2} {unit} may be missed: smaller ones show in longer profiles, or \
                     in more"
                ),
                _ => Ok(()),
            };
        }
        for cause in &self.causes {
            let name = cause.function.as_deref().unwrap_or("everything together");
            let of = match cause.of {
                CauseOf::Own => "self",
                CauseOf::Total => "total",
            };
            let rise = 100.0 * cause.rise;
            writeln!(f, "{name}: {of} rose by {rise:.2} {unit}, more than {threshold:.2}")?;
        }
        Ok(())
    }
}

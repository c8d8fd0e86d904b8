//! What became of every window.

/// What a pusher has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Windows that were taken from the profiler.
    pub taken: u64,
    /// Windows for which there was no profile, as when the profiler was not running.
    pub missed: u64,
    /// Why the last of them was missed.
    pub last_miss: Option<String>,
    /// The sinks by their names, in the order in which they were given.
    pub sinks: Vec<(String, SinkStatistics)>,
}

/// What became of the windows that a sink was given. Each is counted once:
/// `given = delivered + empty + dropped + refused + abandoned + waiting`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkStatistics {
    /// All of them.
    pub given: u64,
    /// Those that were taken.
    pub delivered: u64,
    /// Those without a sample, which are not sent.
    pub empty: u64,
    /// Those that were dropped since too many others were waiting; the oldest go first.
    pub dropped: u64,
    /// Those that the other side does not want.
    pub refused: u64,
    /// Those that were tried for too long, or were not sent when the pusher was stopped.
    pub abandoned: u64,
    /// Those that wait, and the one that is being sent.
    pub waiting: u64,
    /// How often a window was sent again.
    pub retries: u64,
    /// Why the last attempt failed that did.
    pub last_error: Option<String>,
}

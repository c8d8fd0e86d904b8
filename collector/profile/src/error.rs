//! What can go wrong while a profile is built, written or read.

use std::io;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A stack without frames: no format can hold it. A sample outside the guest belongs into
    /// [`Statistics::outside`](crate::Statistics::outside).
    #[error("a stack needs at least one frame")]
    EmptyStack,
    /// A frame id that this profile never gave out.
    #[error("frame {id} is not one of this profile's {frames} frames")]
    UnknownFrame {
        /// The id, as a number.
        id: usize,
        /// How many frames the profile holds.
        frames: usize,
    },
    /// A thread id that this profile never gave out.
    #[error("thread {id} is not one of this profile's {threads} threads")]
    UnknownThread {
        /// The id, as a number.
        id: usize,
        /// How many threads the profile holds.
        threads: usize,
    },
    /// The id of a set of labels that this profile never gave out.
    #[error("set of labels {id} is not one of this profile's {labels}")]
    UnknownLabels {
        /// The id, as a number.
        id: usize,
        /// How many sets of labels the profile holds.
        labels: usize,
    },
    /// The sum of all samples or weights would exceed 64 bits.
    #[error("adding {added} {what} to {total} overflows 64 bits")]
    Overflow {
        /// `samples` or `weight`.
        what: &'static str,
        /// The sum so far.
        total: u64,
        /// What was to be added.
        added: u64,
    },
    /// A line of a folded file that is not `frame;frame;… count`.
    #[error("line {line} of the folded stacks: {reason}: `{text}`")]
    FoldedLine {
        /// Line number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
        /// The line, cut after 200 characters.
        text: String,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

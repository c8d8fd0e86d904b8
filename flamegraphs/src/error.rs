//! What can go wrong while a flame graph is drawn.

use std::io;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlamegraphError {
    /// There is nothing to draw: no stack of the profile has any weight.
    #[error("there are no samples to draw (ticks: {ticks}, outside the guest: {outside}, lost: {lost})")]
    NoSamples {
        /// Ticks that the event source announced.
        ticks: u64,
        /// Ticks that fell where no guest was on the stack.
        outside: u64,
        /// Ticks that should have become a sample.
        lost: u64,
    },
    /// There is nothing to draw in a view of what vanished: all call paths of the base are in the new build too.
    #[error("nothing vanished: all call paths of the base are in the new build too")]
    NothingVanished,
    /// What inferno drew is not well-formed XML.
    #[error("the flame graph that inferno drew is not well-formed")]
    Xml(#[from] quick_xml::Error),
    /// What inferno drew does not have the structure that this crate completes.
    #[error("the flame graph that inferno drew has an unexpected part: `{text}`")]
    UnexpectedGraph {
        /// The text or value in question.
        text: String,
    },
    /// Writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

//! The collector: a thread that drains the rings of all sampled threads and turns samples into a profile.
//!
//! ```text
//!   Channel (ring, counters) ──┐
//!   Channel                  ──┼─▶ drain ─▶ aggregator: distinct stacks ─▶ (on request) symbols ─▶ Profile
//!   Channel                  ──┘              ▲ CodeRegistry: address and generation to image and offset
//! ```
//!
//! There is an aggregator for each [`Window`]: several profiles can be taken at once, each of what was sampled from its own
//! beginning on. Memory is bounded by [`Options::max_stack_bytes`] for each of them, and its work is proportional to the samples for
//! draining and to the distinct stacks for symbols. It holds neither threads that have ended nor code that is
//! unloaded: their sums and the names of their frames are kept, and the rest is let go of when the rings are drained.

#![forbid(unsafe_code)]

mod aggregator;
mod channel;
mod collector;
mod frame_table;
mod labels;
mod merge;
mod session;
mod stack_tree;
mod sums;
mod symbols;
mod table;
mod totals;
mod window;

pub use channel::Channel;
pub use collector::{Collector, CollectorGone, Extent, Options, Sampling};
pub use labels::{LabelTable, MAX_LABEL_BYTES, MAX_LABEL_SETS, MAX_LABELS, OTHERS};
pub use window::Window;

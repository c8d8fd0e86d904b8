//! Comparisons against simulated profiles, of which the truth is known.

mod graph;
mod input;
mod null;
mod power;
mod rename;
mod simulation;
mod texts;

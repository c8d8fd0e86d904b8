//! Comparisons against simulated profiles, of which the truth is known.

mod null;
mod power;
mod rename;
mod simulation;

//! The library in an embedder's hands: whole runs of real guests, with every part in place.

mod accuracy;
mod events;
mod hooks;
mod life;
mod programs;
mod sums;
mod support;

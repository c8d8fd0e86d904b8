//! The library in an embedder's hands: whole runs of real guests, with every part in place.

mod accuracy;
mod churn;
mod events;
mod hooks;
mod life;
mod loading;
mod programs;
mod sums;
mod support;
mod tenants;

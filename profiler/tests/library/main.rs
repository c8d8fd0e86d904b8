//! The library in an embedder's hands: whole runs of real guests, with every part in place.

mod accuracy;
mod churn;
mod configurations;
mod control;
mod events;
mod forks;
mod hooks;
mod life;
mod loading;
mod programs;
mod signals;
mod sums;
mod support;
mod tenants;
mod threads;
mod windows;

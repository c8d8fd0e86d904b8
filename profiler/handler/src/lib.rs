//! Everything that runs inside flamewalk's signal handler.
//!
//! This crate is `no_std` and, without its feature `owner`, does not link `alloc`: nothing that the handler
//! reaches can allocate, lock, log, print or make a system call, and the compiler says so. The feature
//! `owner` adds the other side of the shared structures (publishing code, attaching stores),
//! which runs on ordinary threads.
//!
//! ```text
//!  registers ──▶ stack::walk ──▶ frames ──▶ recorder::Recorder ──▶ ring ──▶ (collector) Ring::pop ──▶ record::Sample
//!                 │    │    │
//!                 │    │    └── activation: where the guests of this thread were entered and left  (stores: whose to show)
//!                 │    └─────── code: what each address is            (published by registry)
//!                 └──────────── memory: reads that were first shown to be valid
//! ```
//!
//! Nothing here panics on any input: indices are checked, arithmetic wraps or saturates, and every walk is
//! bounded by the frame limit.

#![no_std]
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(any(feature = "owner", test))]
extern crate alloc;
#[cfg(any(feature = "owner", test))]
extern crate std;

pub mod activation;
pub mod arch;
pub mod code;
pub mod cycles;
pub mod host;
pub mod memory;
pub mod record;
pub mod recorder;
pub mod registry;
pub mod ring;
pub mod stack;
pub mod statistics;
pub mod stores;
mod sync;
pub mod walk;

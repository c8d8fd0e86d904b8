//! Guests for flamewalk's examples, tests and benchmarks.
//!
//! Four kinds. Small guests of our own are committed as sources and as binaries: [`Guest`] names them, and
//! [`committed`] rebuilds them. Some are made up as text when they are needed: [`GeneratedGuest`]. Real programs that nobody here wrote come from package registries the first time that
//! they are asked for: [`sqlite`], [`sqlite_copies`], [`cpython`]. And any of them can be had as a component: [`as_component`].
//!
//! Most of our own guests link no libc, so that their binaries are small and the same on every machine.
#![forbid(unsafe_code)]

pub mod committed;
mod component;
mod embedding;
mod error;
mod generated;
mod known_answer;
mod on_demand;
mod programs;
mod renamed;
mod zig;

pub use committed::Guest;
pub use component::{as_component, http_handler};
pub use embedding::{python_wasmtime, wasmtime_command};
pub use error::Error;
pub use generated::{GeneratedGuest, Place};
pub use known_answer::{
    GUEST_STEPS_PER_ROUND, HOST_CALL_SHARE, KNOWN_ANSWER, KNOWN_LINES, SEED, STRAIGHT_STEPS, chain,
};
pub use programs::{cpython, cpython_script, sqlite, sqlite_copies, sqlite_with_functions_inserted};
pub use renamed::{cpp_builds, rust_builds};

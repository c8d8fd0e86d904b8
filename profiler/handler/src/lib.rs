//! Everything that runs inside flamewalk's signal handler.
//!
//! This crate is `no_std` and does not link `alloc`, so nothing that the handler can reach is able to
//! allocate, lock, log or print. The feature `owner` adds the other side of the shared structures (the
//! ring's consumer, the registry's publisher), which runs on ordinary threads and may allocate.

#![no_std]

pub mod code;

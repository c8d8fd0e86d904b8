//! Unwinding by instructions.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod cost;
mod frames;
mod hostile;
mod process;
mod rules;
mod tables;

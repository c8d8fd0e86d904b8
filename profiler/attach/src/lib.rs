//! Profiles a running program that embeds Wasmtime, from outside and without its help.
//!
//! ```text
//!   target process                          this process
//!   ┌───────────────────┐  perf events      ┌──────────┐   ┌──────┐   ┌───────────┐
//!   │ threads           │ ────────────────▶ │ sampler  │──▶│ walk │──▶│ collector │──▶ Profile
//!   │                   │  registers, stack └──────────┘   └──────┘   └───────────┘
//!   │ images of code    │ ────────────────▶ images ──────────▲
//!   │ native libraries  │ ────────────────▶ host code ───────┘
//!   └───────────────────┘  read, never written
//! ```
//!
//! The target is not stopped, not written to and not traced: the kernel copies registers and the top of the stack at each
//! tick ([`Options::stack_bytes`]), and images are read while the target runs. Guests are walked by the code that walks
//! them from inside, and the host by its unwind information or its instructions: from outside the store is not known, so that
//! the way from a host call to the guest that made it is found by unwinding alone.
//!
//! # Accuracy
//!
//! - A sample whose walk is not certain is dropped and counted by its cause, as from inside.
//! - Older frames that lie beyond the copied part of the stack are missing, which a frame `[truncated]` shows.
//! - What is known of an image is checked; one that is not understood is refused and told as a notice. Samples in
//!   code that was unmapped before it was read are dropped and counted.
//!
//! # Security
//!
//! Reads what the user who runs it may read of the target: see the kernel's rules for `ptrace` and for perf events. The
//! images of a target are its own, so that all that they hold is taken for hostile.

mod error;
mod host;
mod images;
mod memory;
mod sampler;
mod session;
mod target;
mod walk;

pub use error::Error;
pub use session::{Attachment, Options, defaults};

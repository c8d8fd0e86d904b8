//! A sampling profiler for WebAssembly guests that run in process on Wasmtime.
//!
//! A timer signal interrupts the thread that runs a guest; the handler walks the guest's frames and writes them
//! into a lock-free ring; a collector thread turns them into functions, inlined functions and source lines.
//!
//! ```no_run
//! use flamewalk::{Guest, Options, Profiler};
//! # use wasmtime::{Instance, Module, Store};
//!
//! # fn profile(
//! #     wasm: Vec<u8>, module: Module, mut store: Store<()>, instance: Instance,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let profiler = Profiler::new(Options::default())?;
//! profiler.register_module(&module, Guest::named("guest").binary(wasm))?;
//! profiler.attach(&mut store)?;
//!
//! profiler.start()?;
//! instance.get_typed_func::<(), ()>(&mut store, "run")?.call(&mut store, ())?;
//! let profile = profiler.stop(Default::default())?;
//! println!("{} samples", profile.total().samples);
//! # Ok(())
//! # }
//! ```
//!
//! See the pages on [accuracy], [overhead] and [security].

mod check;
mod code_memory;
mod error;
mod event;
mod fork;
mod host;
mod layout;
mod least_stack;
mod options;
#[cfg(all(test, target_arch = "x86_64"))]
mod oracle;
mod profiler;
mod registration;
mod session;
mod shared;
mod signal;
mod source;
mod stacks;
mod store;
mod suspended;
mod thread;
mod timeline;
mod window;

pub use code_memory::ProfiledCodeMemory;
pub use error::Error;
pub use event::{Event, PerfEvent, UnknownEvent};
pub use flamewalk_profile as profile;
pub use least_stack::LeastStack;
pub use options::{Options, defaults};
pub use profiler::Profiler;
pub use registration::{Guest, Registration};
pub use stacks::BoundedStacks;
pub use store::{StoreHook, StoreLabels};
pub use window::Window;

/// The version of Wasmtime whose guests can be profiled: the one that this crate was built with.
pub const WASMTIME_VERSION: &str = wasmtime_environ::VERSION;

#[doc = include_str!("../docs/accuracy.md")]
pub mod accuracy {}

#[doc = include_str!("../docs/overhead.md")]
pub mod overhead {}

#[doc = include_str!("../docs/security.md")]
pub mod security {}

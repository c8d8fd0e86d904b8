//! What can go wrong when a profiler is set up.

use std::io;

use crate::event::Event;

/// An error of the profiler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is a [`Profiler`](crate::Profiler) in this process already.
    #[error("this process has a profiler already; drop it before creating another")]
    AlreadyExists,
    /// The profiler is sampling already.
    #[error("the profiler is running already; stop it before starting it again")]
    AlreadyRunning,
    /// The profiler is not sampling.
    #[error("the profiler is not running; start it first")]
    NotRunning,
    /// The profiler belongs to the process that this one was forked from.
    #[error(
        "this process was forked from the one that is profiled; create a profiler of its own after dropping this one"
    )]
    Forked,
    /// The signal cannot be used.
    #[error(
        "{signal} cannot be the profiler's signal, since it means something else to the host; choose one of {}",
        crate::signal::USABLE.map(nix::sys::signal::Signal::as_str).join(", ")
    )]
    Signal {
        /// The signal.
        signal: nix::sys::signal::Signal,
    },
    /// The rate is not one that can be sampled at.
    #[error("a rate of {rate} Hz is out of range; choose one from 1 to {max} Hz")]
    Rate {
        /// The rate that was asked for, in Hz.
        rate: u32,
        /// The highest, in Hz.
        max: u32,
    },
    /// Sampling is under way at another rate, which a window cannot change.
    #[error(
        "sampling is under way at {current} Hz and cannot be at {rate} Hz as well; ask for {current} Hz or for no rate"
    )]
    OtherRate {
        /// The rate that was asked for, in Hz.
        rate: u32,
        /// The rate of what is under way, in Hz.
        current: u32,
    },
    /// The frame limit is zero.
    #[error("a frame limit of 0 leaves nothing to show; choose 1 or more")]
    FrameLimit,
    /// The kernel or the processor does not have the event.
    #[error("this machine has no event `{event}` ({source}); `cpu` and `wall` work everywhere")]
    NoEvent {
        /// The event.
        event: Event,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has the event and refuses it.
    #[error(
        "the kernel refuses the event `{event}` ({source}); lower /proc/sys/kernel/perf_event_paranoid or grant \
         CAP_PERFMON, or use `cpu`"
    )]
    EventRefused {
        /// The event.
        event: Event,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was to be done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Code could not be registered.
    #[error(transparent)]
    Code(#[from] flamewalk_symbolizer::Error),
    /// Code that became executable is in no image of Wasmtime's.
    #[error("there is no image of Wasmtime's around the code at {text:x?}")]
    NoImage {
        /// The addresses of the code.
        text: std::ops::Range<usize>,
    },
    /// The separate symbols are those of other code than the guest's binary.
    #[error("the symbols are not those of the guest: {0}")]
    Symbols(#[source] flamewalk_symbolizer::Error),
    /// Code could not be put into the registry.
    #[error(transparent)]
    Register(#[from] flamewalk_symbolizer::registry::RegisterError),
    /// Wasmtime refused what is needed to look into a store.
    #[error("cannot look into the store: {message}")]
    Store {
        /// What Wasmtime said.
        message: String,
    },
    /// The stack of a host function is not one that can be made smaller.
    #[error("{what} (its limit is {limit:#x}, the stack ends at {bottom:#x})")]
    Stack {
        /// What is the matter.
        what: &'static str,
        /// The lowest address that the guest may use.
        limit: usize,
        /// The lowest address of the stack.
        bottom: usize,
    },
    /// The start-up check has failed: profiles would be wrong.
    #[error("this engine or build of Wasmtime is not as flamewalk {} expects, so that stacks would be wrong: {what}", env!("CARGO_PKG_VERSION"))]
    Unexpected {
        /// What is not as expected.
        what: String,
    },
    /// The profile's totals do not fit.
    #[error(transparent)]
    Profile(#[from] flamewalk_profile::ProfileError),
    /// The collector is gone.
    #[error(transparent)]
    Collector(#[from] flamewalk_collector::CollectorGone),
}

impl Error {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |errno| Self::System { action, source: errno.into() }
    }
}

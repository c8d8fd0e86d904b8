//! How to sample.

use nix::sys::signal::Signal;

use crate::event::Event;

/// The default values of [`Options`], for those who show them in a help text.
pub mod defaults {
    /// Rate in Hz: a prime, so that it does not beat with periods of the guest.
    pub const RATE: u32 = 997;
    /// Frames that a sample holds at most.
    pub const FRAME_LIMIT: usize = 1024;
    /// Size of each thread's ring: 1 MiB, which holds a tenth of a second of 100-frame stacks at 10,000 Hz.
    pub const RING_WORDS: usize = 1 << 17;
}

/// How to sample. Start from [`Options::default`] and change what is to be different.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What makes a tick. Default: [`Event::Cpu`].
    pub event: Event,
    /// Ticks per second of what is measured, from 1 to 20,000. Default: [`defaults::RATE`].
    pub rate: u32,
    /// How many frames a sample holds at most; of longer stacks the youngest frames are kept. Default:
    /// [`defaults::FRAME_LIMIT`].
    pub frame_limit: usize,
    /// Whether stacks hold the native functions of the host, too: below the guest, between its segments and in host
    /// calls. Default: no, and then no address of the host is recorded.
    ///
    /// Needs unwind information in the host's binary, which Rust's have unless built without; names and lines need its
    /// symbols and debug information.
    pub host_frames: bool,
    /// Size of each thread's ring, in words of 8 bytes; rounded down to a power of two. The smaller it is for the rate and
    /// the frame limit, the more often the collector's thread wakes up to drain it. Default: [`defaults::RING_WORDS`].
    pub ring_words: usize,
    /// The signal that interrupts threads: `SIGPROF`, `SIGVTALRM`, `SIGALRM`, `SIGUSR1`, `SIGUSR2`, `SIGURG`, `SIGWINCH`,
    /// `SIGIO`, `SIGPWR`, `SIGSTKFLT` or `SIGTRAP`. Default: `SIGPROF`.
    ///
    /// System calls that a tick interrupts go on where the kernel can do that. Those that it never goes on with (`poll`,
    /// `epoll_wait`, `select`, `nanosleep`, reads with a time-out; see signal(7)) return `EINTR`, after which the host has to
    /// call them again: with [`Event::Wall`] at each tick, since threads that wait have ticks, with other events now and then.
    ///
    /// With `SIGTRAP` a tick of a perf event costs the kernel clearly less (since Linux 5.19; see the overhead page). It is
    /// also the signal of breakpoints: a debugger stops at each tick unless told to pass it on, and a handler of the host's
    /// for breakpoints has to be installed before the profiler's, which passes on what is not its own. Where there is none, a
    /// breakpoint ends the process as ever.
    pub signal: Signal,
    /// Whether guests that are suspended appear, with the call of the host or the runtime that they wait in: guests of
    /// asynchronous stores, which then run on no thread. With [`Event::Wall`] only, as samples of a thread of the profiler's
    /// named `suspended`. Default: no.
    ///
    /// For stores whose call hook is used, and fibers with a guard, as Wasmtime's own have and
    /// [`BoundedStacks`](crate::BoundedStacks) gives to others. The hook then walks the stack at each call of the host,
    /// sampling or not. In a store whose host function has panicked, and that is kept nevertheless, that call is shown until the
    /// store runs a guest again: Wasmtime does not tell of panics.
    pub suspended: bool,
    /// How the collector works.
    pub collector: flamewalk_collector::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            event: Event::default(),
            rate: defaults::RATE,
            frame_limit: defaults::FRAME_LIMIT,
            host_frames: false,
            suspended: false,
            ring_words: defaults::RING_WORDS,
            signal: Signal::SIGPROF,
            collector: flamewalk_collector::Options::default(),
        }
    }
}

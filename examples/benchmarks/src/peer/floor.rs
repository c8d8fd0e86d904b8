//! Floors: what a tick costs before a profiler has done anything.
//!
//! ```text
//!   Interrupt    a perf event that counts to its period and tells nobody
//!   Signal       … and signals the thread as a file does, as flamewalk's does; the handler returns at once
//!   Trap         … and signals the thread by itself, with SIGTRAP
//!   Timer        a POSIX timer that signals the thread
//! ```
//!
//! What remains is what the kernel, and a hypervisor if there is one, take. No sampler that interrupts the guest can cost
//! less than the way that it has chosen.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use perf_event_open::config::{Cpu, OnExecve, Opts, Proc, SampleOn, SigData};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;
use wasmtime::Store;

use super::{Outcome, Profiling, Run};
use crate::embedding::{Cost, State};
use crate::error::Error;

/// How a tick reaches the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Interrupt,
    Signal,
    Trap,
    Timer,
}

pub struct Floor {
    way: Way,
    source: Source,
}

enum Source {
    Perf(Counter),
    Timer { timer: Timer, period: Duration },
}

/// By way, since more than one can be measured in turn.
static SIGNALS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Async-signal-safe: yes; it adds to a number that is read when no signal can come any more.
extern "C" fn count<const WAY: usize>(_signal: i32) {
    SIGNALS[WAY].fetch_add(1, Ordering::Relaxed);
}

impl Floor {
    pub fn new(way: Way, rate: u32) -> Result<Self, Error> {
        let source = match way {
            Way::Interrupt => Source::Perf(open(rate, None)?),
            Way::Signal => {
                handle(Signal::SIGUSR1, count::<{ Way::Signal as usize }>)?;
                let counter = open(rate, None)?;
                signal_as_a_file(&counter, Signal::SIGUSR1)?;
                Source::Perf(counter)
            }
            Way::Trap => {
                handle(Signal::SIGTRAP, count::<{ Way::Trap as usize }>)?;
                Source::Perf(open(rate, Some(SigData(0)))?)
            }
            Way::Timer => {
                handle(Signal::SIGUSR2, count::<{ Way::Timer as usize }>)?;
                let thread_id = nix::unistd::gettid().as_raw();
                let notify = SigevNotify::SigevThreadId { signal: Signal::SIGUSR2, thread_id, si_value: 0 };
                let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))
                    .map_err(|error| Error::system("create a timer")(error.into()))?;
                Source::Timer { timer, period: Duration::from_secs(1) / rate }
            }
        };
        Ok(Self { way, source })
    }
}

fn handle(signal: Signal, handler: extern "C" fn(i32)) -> Result<(), Error> {
    // On the alternate stack that Wasmtime gives the thread, as flamewalk's is: a fiber's own may be at its end.
    let flags = SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::empty());
    // SAFETY: the handler is async-signal-safe, and stays valid for the life of the process.
    unsafe { sigaction(signal, &action) }
        .map(drop)
        .map_err(|error| Error::system("install a signal handler")(error.into()))
}

fn open(rate: u32, trap: Option<SigData>) -> Result<Counter, Error> {
    let options = Opts {
        sample_on: SampleOn::Count(1_000_000_000 / u64::from(rate)),
        // The kernel demands it of events that signal by themselves.
        on_execve: trap.is_some().then_some(OnExecve::Remove),
        sigtrap_on_sample: trap,
        ..Opts::default()
    };
    Counter::new(Software::CpuClock, (Proc::CURRENT, Cpu::ALL), options)
        .map_err(Error::system("open a perf event"))
}

fn signal_as_a_file(counter: &Counter, signal: Signal) -> Result<(), Error> {
    const F_SETSIG: i32 = 10;
    let descriptor = counter.file().as_raw_fd();
    // SAFETY: `fcntl` on a descriptor that is open, with arguments of the types that the commands take.
    let results = unsafe {
        [
            libc::fcntl(descriptor, libc::F_SETOWN, libc::gettid()),
            libc::fcntl(descriptor, F_SETSIG, signal as i32),
            libc::fcntl(descriptor, libc::F_SETFL, libc::O_ASYNC),
        ]
    };
    if results.contains(&-1) {
        return Err(Error::system("direct a perf event's signals")(std::io::Error::last_os_error()));
    }
    Ok(())
}

impl Source {
    fn start(&mut self) -> Result<(), Error> {
        match self {
            Source::Perf(counter) => counter.enable().map_err(Error::system("start a perf event")),
            Source::Timer { timer, period } => tick_every(timer, *period),
        }
    }

    fn stop(&mut self) -> Result<(), Error> {
        match self {
            Source::Perf(counter) => counter.disable().map_err(Error::system("stop a perf event")),
            Source::Timer { timer, .. } => tick_every(timer, Duration::ZERO),
        }
    }
}

fn tick_every(timer: &mut Timer, period: Duration) -> Result<(), Error> {
    timer
        .set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty())
        .map_err(|error| Error::system("set a timer")(error.into()))
}

impl Profiling for Floor {
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error> {
        self.source.start()?;
        let cost = run(store);
        self.source.stop()?;
        cost
    }

    fn finish(self: Box<Self>, _folder: &Path) -> Result<Outcome, Error> {
        Ok(Outcome { taken: SIGNALS[self.way as usize].load(Ordering::Relaxed), ..Outcome::default() })
    }
}

//! The floor: a timer like flamewalk's, whose signals are handled by returning at once.
//!
//! What remains is what the kernel, and a hypervisor if there is one, take for a timer interrupt and a signal. No sampler
//! that interrupts the guest can cost less.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use perf_event_open::config::{Cpu, Opts, Proc, SampleOn};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;
use wasmtime::Store;

use super::{Outcome, Profiling, Run};
use crate::embedding::{Cost, State};
use crate::error::Error;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Async-signal-safe: yes; it adds to a number that is read when no signal can come any more.
extern "C" fn count(_signal: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

pub struct EmptyHandler {
    timer: Counter,
}

impl EmptyHandler {
    pub fn new(rate: u32) -> Result<Self, Error> {
        const F_SETSIG: i32 = 10;
        // On the alternate stack that Wasmtime gives the thread, as flamewalk's is: a fiber's own may be at its end.
        let flags = SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::Handler(count), flags, SigSet::empty());
        // SAFETY: the handler is async-signal-safe, and stays valid for the life of the process.
        unsafe { sigaction(Signal::SIGUSR1, &action) }
            .map_err(|error| Error::system("install a signal handler")(error.into()))?;
        let options = Opts { sample_on: SampleOn::Count(1_000_000_000 / u64::from(rate)), ..Opts::default() };
        let timer = Counter::new(Software::CpuClock, (Proc::CURRENT, Cpu::ALL), options)
            .map_err(Error::system("open a perf event"))?;
        let descriptor = timer.file().as_raw_fd();
        // SAFETY: `fcntl` on a descriptor that is open, with arguments of the types that the commands take.
        let results = unsafe {
            [
                libc::fcntl(descriptor, libc::F_SETOWN, libc::gettid()),
                libc::fcntl(descriptor, F_SETSIG, libc::SIGUSR1),
                libc::fcntl(descriptor, libc::F_SETFL, libc::O_ASYNC),
            ]
        };
        if results.contains(&-1) {
            return Err(Error::system("direct a perf event's signals")(std::io::Error::last_os_error()));
        }
        Ok(Self { timer })
    }
}

impl Profiling for EmptyHandler {
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error> {
        self.timer.enable().map_err(Error::system("start a perf event"))?;
        let cost = run(store);
        self.timer.disable().map_err(Error::system("stop a perf event"))?;
        cost
    }

    fn finish(self: Box<Self>, _folder: &Path) -> Result<Outcome, Error> {
        Ok(Outcome { taken: SIGNALS.load(Ordering::Relaxed), ..Outcome::default() })
    }
}

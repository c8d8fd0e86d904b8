//! Ctrl-C: the profile is written although the guest does not end.
//!
//! The signals are blocked for all threads, and one thread waits for them. The guest may be in a loop or in a
//! system call; it is left where it is, and the process ends under it.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// Calls `act` on a thread of its own when the user first asks the command to stop (SIGINT, SIGTERM or SIGHUP), and
/// ends the process with the status that it returns; at once, if the user asks again. To be called before any other
/// thread is started.
pub(crate) fn on_interrupt(act: impl FnOnce() -> u8 + Send + 'static) -> io::Result<()> {
    on_first_interrupt(move || std::process::exit(act().into()))
}

/// As [`on_interrupt`], without ending the process: what is to be ended ends by itself when it sees what `act` has done.
pub(crate) fn on_first_interrupt(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        if signals.wait().is_ok() {
            // Given back to their default action, which ends the process.
            let _ = signals.thread_unblock();
            act();
            // A thread has to be there for which they are not blocked.
            loop {
                std::thread::park();
            }
        }
    })?;
    Ok(())
}

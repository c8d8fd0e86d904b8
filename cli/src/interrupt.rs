//! Ctrl-C: the profile is written although the guest does not end.
//!
//! The signals are blocked for all threads, and one thread waits for them. The guest may be in a loop or in a
//! system call; it is left where it is, and the process ends under it. Signals that whoever started the command has it
//! ignore, as `nohup` does with SIGHUP, go on to be ignored: a blocked one would be waited for all the same.

use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::{SigSet, Signal};

use crate::failure::EXIT_STATUS;

/// Calls `act` on a thread of its own when the user first asks the command to stop (SIGINT, SIGTERM or SIGHUP), and
/// ends the process with the status that it returns; at once, if the user asks again. To be called before any other
/// thread is started.
pub(crate) fn on_interrupt(act: impl FnOnce() -> u8 + Send + 'static) -> io::Result<()> {
    on_first_interrupt(move || {
        // The process ends whatever happens: nothing else is left that would end it.
        let status = catch_unwind(AssertUnwindSafe(act)).unwrap_or(EXIT_STATUS);
        std::process::exit(status.into())
    })
}

/// As [`on_interrupt`], without ending the process: what is to be ended ends by itself when it sees what `act` has done.
pub(crate) fn on_first_interrupt(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let asking = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    let signals: SigSet = asking.into_iter().filter(|signal| !is_ignored(*signal)).collect();
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

/// Whether the signal is ignored.
fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no action is given, and so none changed; that of the signal is written to memory that is ours, for which any
    // bits are valid.
    unsafe {
        libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

//! Standard output and the terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::Duration;

use flamewalk::profile::{Metadata, printable};

use crate::failure::Failure;

/// The columns of the terminal that a stream is; `None` if it is none.
pub(crate) fn columns(stream: &(impl IsTerminal + AsRawFd)) -> Option<usize> {
    // A terminal that does not know its size says 0.
    size(stream).map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The rows, likewise.
pub(crate) fn rows(stream: &(impl IsTerminal + AsRawFd)) -> Option<usize> {
    size(stream).map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

fn size(stream: &(impl IsTerminal + AsRawFd)) -> Option<libc::winsize> {
    if !stream.is_terminal() {
        return None;
    }
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the request fills in a `winsize`, for which any bits are valid.
    unsafe {
        if libc::ioctl(stream.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) == -1 {
            return None;
        }
        Some(size.assume_init())
    }
}

/// Waits until there is something to read, or nobody is left who would write it, but not longer than this; whether it is so.
pub(crate) fn wait_for_input(stream: &impl AsRawFd, limit: Duration) -> io::Result<bool> {
    let mut polled = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = limit.as_millis().try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: one entry is given, and it is ours.
    match unsafe { libc::poll(&mut polled, 1, milliseconds) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
        ready => Ok(ready > 0),
    }
}

/// Writes to standard output.
pub(crate) fn try_print(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush())
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    match try_print(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|source| Failure::Print { source }),
    }
}

/// Writes to standard error, in one piece. What cannot be said, since nobody is left who would read it, changes nothing
/// else: neither what is written nor the exit status.
pub(crate) fn print_to_stderr(text: impl Display) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Says a sentence on standard error.
pub(crate) fn say(sentence: impl Display) {
    print_to_stderr(format_args!("flamewalk: {sentence}\n"));
}

/// Says on standard error what makes a profile poorer than it could be.
pub(crate) fn report_quality(metadata: &Metadata) {
    for notice in &metadata.notices {
        say(printable(notice));
    }
    let statistics = &metadata.statistics;
    for (cause, lost) in &statistics.lost {
        let (lost, all) = (lost.samples, statistics.ticks.samples);
        say(format_args!("{lost} of {all} samples lost: {}", printable(cause)));
    }
}

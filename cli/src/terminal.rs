//! Standard output and the terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use flamewalk::profile::{Metadata, printable};

use crate::failure::Failure;

/// The columns of the terminal that a stream is; `None` if it is none.
pub(crate) fn columns(stream: &(impl IsTerminal + AsRawFd)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the request fills in a `winsize`, for which any bits are valid.
    let size = unsafe {
        if libc::ioctl(stream.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) == -1 {
            return None;
        }
        size.assume_init()
    };
    // A terminal that does not know its size says 0.
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|source| Failure::Print { source }),
    }
}

/// Says on standard error what makes a profile poorer than it could be.
pub(crate) fn report_quality(metadata: &Metadata) {
    for notice in &metadata.notices {
        eprintln!("flamewalk: {}", printable(notice));
    }
    let statistics = &metadata.statistics;
    for (cause, lost) in &statistics.lost {
        eprintln!(
            "flamewalk: {} of {} samples lost: {}",
            lost.samples,
            statistics.ticks.samples,
            printable(cause)
        );
    }
}

//! How wide the terminal is.

use std::io::IsTerminal;
use std::mem::MaybeUninit;

/// The columns of the terminal that standard error is; `None` if it is none.
pub(crate) fn columns() -> Option<usize> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the request fills in a `winsize`, for which any bits are valid.
    let size = unsafe {
        if libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) == -1 {
            return None;
        }
        size.assume_init()
    };
    // A terminal that does not know its size says 0.
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

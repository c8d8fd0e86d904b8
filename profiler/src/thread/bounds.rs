//! Where the calling thread's stack lies.

use std::ops::Range;
use std::ptr;

use crate::error::Error;

/// The addresses of the calling thread's stack.
pub(crate) fn stack_bounds() -> Result<Range<usize>, Error> {
    stack_and_guard().map(|(stack, _)| stack)
}

/// The lowest address of the calling thread's stack that can be used, whether or not the guard counts as part of it.
///
/// # Errors
///
/// [`Error::Stack`] on the main thread, whose stack is not there yet as far as it was not used.
pub(crate) fn usable_stack_start() -> Result<usize, Error> {
    let (stack, guard) = stack_and_guard()?;
    if nix::unistd::gettid() == nix::unistd::getpid() {
        let what = "the main thread's stack grows as it is used; run the guest on another thread";
        return Err(Error::Stack { what, limit: 0, bottom: stack.start });
    }
    Ok(stack.start.saturating_add(guard))
}

/// The calling thread's stack, and the size of its guard in bytes.
fn stack_and_guard() -> Result<(Range<usize>, usize), Error> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    let mut start = ptr::null_mut();
    let (mut size, mut guard) = (0, 0);
    // SAFETY: the attributes are initialized by the first call, read by the others only if that succeeded, and
    // destroyed once.
    let result = unsafe {
        match libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) {
            0 => {
                let stack = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size);
                let guard = libc::pthread_attr_getguardsize(attributes.as_ptr(), &mut guard);
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                if stack == 0 { guard } else { stack }
            }
            error => error,
        }
    };
    if result != 0 {
        let source = std::io::Error::from_raw_os_error(result);
        return Err(Error::System { action: "find the bounds of a thread's stack", source });
    }
    let start = start.addr();
    Ok((start..start.saturating_add(size), guard))
}

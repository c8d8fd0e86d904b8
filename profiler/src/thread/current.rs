//! The calling thread's [`Thread`]: made when it first enters a guest, known to its signal handler, gone when the thread ends.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;

use super::Thread;
use crate::error::Error;
use crate::shared::Shared;
use crate::signal;

/// The calling thread's [`Thread`], until the thread ends.
struct Current(RefCell<Option<Arc<Thread>>>);

thread_local! {
    static CURRENT: Current = const { Current(RefCell::new(None)) };
    /// What the calling thread's [`Thread`] is of; null if there is none. Without a destructor, so that it takes a load to
    /// read it.
    static KNOWN: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

impl Drop for Current {
    fn drop(&mut self) {
        self.replace(None);
    }
}

impl Current {
    fn replace(&self, thread: Option<Arc<Thread>>) {
        let pointer = thread.as_ref().map_or(ptr::null(), Arc::as_ptr);
        KNOWN.set(thread.as_ref().map_or(ptr::null(), |thread| Arc::as_ptr(&thread.shared)));
        let before = self.0.replace(thread);
        if let Some(before) = &before {
            before.shared.remove_thread(before);
        }
        // SAFETY: `self` keeps the thread until the next call, which sets another pointer before it lets go.
        unsafe { signal::set_current(pointer) };
    }
}

/// Runs `act` with the calling thread's [`Thread`] for this profiler, which is made if there is none. `None` if the thread
/// is ending, the process was forked from the profiler's, or the profiler is gone.
///
/// # Errors
///
/// [`Error::System`] or [`Error::Unexpected`] if it cannot be made.
pub(crate) fn with_current<R>(
    shared: &Arc<Shared>,
    act: impl FnOnce(&Thread) -> R,
) -> Result<Option<R>, Error> {
    if !shared.process.is_current() || shared.has_ended() {
        return Ok(None);
    }
    let with = |current: &Current| {
        let known = current.0.borrow().as_ref().is_some_and(|thread| Arc::ptr_eq(&thread.shared, shared));
        if !known {
            let thread = Arc::new(Thread::new(Arc::clone(shared))?);
            current.replace(Some(Arc::clone(&thread)));
            shared.add_thread(thread);
        }
        Ok(current.0.borrow().as_deref().map(act))
    };
    CURRENT.try_with(with).unwrap_or(Ok(None))
}

/// Whether the calling thread is known to this profiler, or, in a forked process, was to its parent's.
#[inline]
pub(crate) fn is_known(shared: &Arc<Shared>) -> bool {
    KNOWN.get() == Arc::as_ptr(shared)
}

/// Makes the calling thread known to this profiler, if it is not yet.
///
/// # Errors
///
/// As for [`with_current`].
pub(crate) fn attach_current(shared: &Arc<Shared>) -> Result<(), Error> {
    with_current(shared, |_| ()).map(drop)
}

/// Runs `act` with the calling thread's [`Thread`] for this profiler, if there is one.
pub(crate) fn with_existing(shared: &Arc<Shared>, act: impl FnOnce(&Thread)) {
    // A thread that is ending has let go of it.
    let _ = CURRENT.try_with(|current| {
        let thread = current.0.borrow();
        if let Some(thread) = thread.as_deref().filter(|thread| Arc::ptr_eq(&thread.shared, shared)) {
            act(thread);
        }
    });
}

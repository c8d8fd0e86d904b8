//! Forks of the process.
//!
//! A child has its own copy of the profiler's memory and one thread, but shares the parent's perf events: what it did to
//! them would be done to the parent's. Locks may be held, and rings be written, by threads that it does not have. So in a
//! child everything of the parent's profiler is left alone, which is known by comparing [`Process`]es.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A process, told from those that it was forked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The process that this runs in. Forks are noticed from the first call on.
    pub(crate) fn current() -> Self {
        static NOTICE: Once = Once::new();
        NOTICE.call_once(|| {
            // SAFETY: the function is async-signal-safe, which is what it has to be in the child.
            let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            if result != 0 {
                tracing::warn!("forks go unnoticed: {}", std::io::Error::from_raw_os_error(result));
            }
        });
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this is the process that the calling code runs in.
    ///
    /// Async-signal-safe: yes; a load. No order is needed: only the child's one thread sees a change, its own.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        GENERATION.load(Ordering::Relaxed) == self.0
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

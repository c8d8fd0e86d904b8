//! The atomics of the shared structures: `core`'s, or `loom`'s when a model is being checked; and what lets a model
//! notice a use after free.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Part of a value that is shared without a lock: says when the value is used, and when it is freed.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct Lifetime;

/// As long as this lives, the value is in use.
#[cfg(not(loom))]
pub(crate) struct InUse;

#[cfg(not(loom))]
impl Lifetime {
    /// The value is being used.
    pub(crate) const fn in_use(&self) -> InUse {
        InUse
    }
}

/// As above; a model fails if the value is in use when it ends, or is used afterwards.
#[cfg(loom)]
#[derive(Debug, Default)]
pub(crate) struct Lifetime(loom::cell::UnsafeCell<bool>);

/// As long as this lives, the value is in use.
#[cfg(loom)]
pub(crate) struct InUse(
    #[allow(dead_code, reason = "tracks the use until it is dropped")] loom::cell::ConstPtr<bool>,
);

#[cfg(loom)]
impl Lifetime {
    /// The value is being used.
    pub(crate) fn in_use(&self) -> InUse {
        // SAFETY: the flag is written once, below; `loom` checks that this is before or after.
        assert!(!self.0.with(|ended| unsafe { *ended }), "used after it was freed");
        InUse(self.0.get())
    }

    /// The value would be freed now.
    pub(crate) fn end(&self) {
        // SAFETY: `loom` checks that nothing else is going on with the flag.
        self.0.with_mut(|ended| unsafe { *ended = true });
    }
}

//! The atomics of the shared structures: `core`'s, or `loom`'s when a model is being checked; and what lets a model
//! notice a use after free.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Part of a value that is shared without a lock: says when the value is used, and when it is freed.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Lifetime;

#[cfg(not(loom))]
impl Lifetime {
    /// The value is new.
    #[cfg(feature = "owner")]
    pub(crate) const fn new() -> Self {
        Self
    }

    /// Runs `using`, which uses the value.
    pub(crate) fn used_by<R>(&self, using: impl FnOnce() -> R) -> R {
        using()
    }
}

/// As above; a model fails if the value is in use when it ends, or is used afterwards.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Lifetime(loom::cell::UnsafeCell<bool>);

#[cfg(loom)]
impl Lifetime {
    /// The value is new.
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(false))
    }

    /// Runs `using`, which uses the value.
    pub(crate) fn used_by<R>(&self, using: impl FnOnce() -> R) -> R {
        self.0.with(|ended| {
            // SAFETY: the flag is written once, in `end`; `loom` checks that this is not at the same time.
            assert!(!unsafe { *ended }, "used after it was freed");
            using()
        })
    }

    /// The value would be freed now.
    pub(crate) fn end(&self) {
        // SAFETY: `loom` checks that the value is not in use.
        self.0.with_mut(|ended| unsafe { *ended = true });
    }
}

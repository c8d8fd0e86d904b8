//! An embedder's own stacks for asynchronous guests, with ends that the profiler can see.
//!
//! Where a fiber's stack ends is known from the guard that Wasmtime is told of. Stacks without one are sampled only as
//! deep as the guest itself may go, and not in host functions that go deeper. So a creator of such stacks is wrapped:
//! the stacks stay its own, and get a guard of no size at their very end, which guards nothing and says where that is.

use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use wasmtime::{StackCreator, StackMemory};

/// Wraps an embedder's [`StackCreator`], for [`Config::with_host_stack`](wasmtime::Config::with_host_stack).
///
/// ```
/// # fn configure(config: &mut wasmtime::Config, own: std::sync::Arc<dyn wasmtime::StackCreator>) {
/// config.with_host_stack(std::sync::Arc::new(flamewalk::BoundedStacks::new(own)));
/// # }
/// ```
///
/// Not needed for Wasmtime's own stacks, nor for stacks that say where their guard is.
pub struct BoundedStacks {
    creator: Arc<dyn StackCreator>,
}

impl BoundedStacks {
    /// The stacks of `creator`.
    pub fn new(creator: Arc<dyn StackCreator>) -> Self {
        Self { creator }
    }
}

impl std::fmt::Debug for BoundedStacks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BoundedStacks").finish_non_exhaustive()
    }
}

// SAFETY: the stacks are those of the creator, which keeps the trait's contract.
unsafe impl StackCreator for BoundedStacks {
    fn new_stack(&self, size: usize, zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        Ok(Box::new(BoundedStack(self.creator.new_stack(size, zeroed)?)))
    }
}

struct BoundedStack(Box<dyn StackMemory>);

// SAFETY: all but an empty guard is the stack's own.
unsafe impl StackMemory for BoundedStack {
    fn top(&self) -> *mut u8 {
        self.0.top()
    }

    fn range(&self) -> Range<usize> {
        self.0.range()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let guard = self.0.guard_range();
        if guard.end.is_null() {
            let end = ptr::with_exposed_provenance_mut(self.0.range().start);
            return end..end;
        }
        guard
    }
}

//! Where the guest segments of one execution stack begin and end.
//!
//! Each time that the host enters a guest it starts an *activation*. While the guest is inside a host call,
//! Wasmtime keeps in the store where the guest was left: the *exit state*. When the host enters a guest of the
//! same store again, those values are overwritten, so they are copied here first:
//!
//! ```text
//!   youngest   activation 2, store A    live     → read from store A
//!              activation 1, store B    live     → read from store B
//!   oldest     activation 0, store A    frozen   → the copy made when activation 2 began
//! ```
//!
//! The copy, or the store, may also hold values that are no longer, or not yet, true: the guest has returned
//! from its host call, or is just being entered, or a panic has unwound the stack. Nothing here tries to keep
//! up with that. A segment counts only if it lies above everything that was seen on the stack so far and its
//! own words agree with each other; see [`crate::stack`].

use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// Offsets of the exit state in Wasmtime's `VMStoreContext`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStateLayout {
    /// `last_wasm_exit_trampoline_fp`.
    pub exit_fp: usize,
    /// `last_wasm_exit_pc`.
    pub exit_pc: usize,
    /// `last_wasm_entry_fp`.
    pub entry_fp: usize,
}

/// Where a guest was left, and where it had been entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitState {
    /// Frame pointer of the exit trampoline.
    pub exit_fp: usize,
    /// Return address from the exit trampoline into the guest.
    pub exit_pc: usize,
    /// Frame pointer of the entry trampoline.
    pub entry_fp: usize,
}

/// A store's `VMStoreContext`, as an address to read the exit state from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreContext {
    address: *const u8,
    layout: ExitStateLayout,
}

// SAFETY: the pointer is only read through `exit_state`, by the thread that runs the store's guest.
unsafe impl Send for StoreContext {}
// SAFETY: as above.
unsafe impl Sync for StoreContext {}

impl StoreContext {
    /// # Safety
    ///
    /// `address` must point to a `VMStoreContext` of the given layout that stays valid for as long as an
    /// activation with this context is on an [`ActivationStack`].
    pub unsafe fn new(address: *const u8, layout: ExitStateLayout) -> Self {
        Self { address, layout }
    }

    /// The address of the context: its identity.
    pub fn address(&self) -> usize {
        self.address.addr()
    }

    /// Reads what the store holds now.
    pub fn exit_state(&self) -> ExitState {
        let word = |offset: usize| {
            // SAFETY: `new`'s caller vouches for the context and its layout. The words are changed by guest
            // code on this thread only; volatile, since that code is unknown to the compiler.
            unsafe { self.address.wrapping_add(offset).cast::<usize>().read_volatile() }
        };
        ExitState {
            exit_fp: word(self.layout.exit_fp),
            exit_pc: word(self.layout.exit_pc),
            entry_fp: word(self.layout.entry_fp),
        }
    }
}

/// One entry of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    context: StoreContext,
    /// What the store held before a younger activation of the same store began; `None` while this is its
    /// youngest.
    frozen: Option<ExitState>,
}

impl Activation {
    /// Where the guest of this activation was left.
    pub fn exit_state(&self) -> ExitState {
        self.frozen.unwrap_or_else(|| self.context.exit_state())
    }
}

/// The activations of one execution stack, oldest first.
///
/// Written by the thread that runs on that stack, and read by a signal handler on the same thread. The handler
/// runs between two instructions of the writer, so that the order of the writer's stores is all that matters.
#[derive(Debug)]
pub struct ActivationStack {
    activations: AtomicPtr<Activation>,
    length: AtomicUsize,
    #[cfg(feature = "owner")]
    storage: core::cell::UnsafeCell<alloc::vec::Vec<Activation>>,
}

impl ActivationStack {
    /// The exit states of all activations, youngest first.
    ///
    /// # Safety
    ///
    /// To be called on the thread that the stack belongs to, and not from within one of its own methods other
    /// than as a signal handler.
    pub unsafe fn exit_states(&self) -> impl Iterator<Item = ExitState> + '_ {
        // Pair: the stores in `publish`, on the same thread; program order is enough.
        let length = self.length.load(Ordering::Relaxed);
        let activations = self.activations.load(Ordering::Relaxed);
        (0..length).rev().map(move |index| {
            // SAFETY: `publish` sets a length only after that many activations lie at the pointer, and takes
            // the length down before it lets go of any.
            unsafe { (*activations.wrapping_add(index)).exit_state() }
        })
    }
}

#[cfg(feature = "owner")]
mod owner {
    use super::{Activation, ActivationStack, StoreContext};
    use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
    use alloc::vec::Vec;
    use core::cell::UnsafeCell;
    use core::sync::atomic::compiler_fence;

    impl Default for ActivationStack {
        fn default() -> Self {
            let mut storage = Vec::with_capacity(16);
            Self {
                activations: AtomicPtr::new(storage.as_mut_ptr()),
                length: AtomicUsize::new(0),
                storage: UnsafeCell::new(storage),
            }
        }
    }

    impl ActivationStack {
        /// How many activations there are.
        pub fn len(&self) -> usize {
            self.length.load(Ordering::Relaxed)
        }

        /// Whether there is none.
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// Notes that the host is about to enter the guest of `context`.
        ///
        /// # Safety
        ///
        /// To be called on the thread that the stack belongs to, outside of signal handlers; and `context` must
        /// stay valid until the activation is removed.
        pub unsafe fn push(&self, context: StoreContext) {
            // SAFETY: the caller keeps `change`'s conditions.
            unsafe {
                self.change(|activations| {
                    let same_store = activations.iter_mut().rev().find(|older| older.context == context);
                    if let Some(older) = same_store {
                        older.frozen = Some(context.exit_state());
                    }
                    activations.push(Activation { context, frozen: None });
                });
            }
        }

        /// Removes the youngest activations until `length` are left: what an entry of the guest found when it
        /// began.
        ///
        /// # Safety
        ///
        /// As for [`ActivationStack::push`].
        pub unsafe fn truncate(&self, length: usize) {
            if self.len() <= length {
                return;
            }
            // SAFETY: the caller keeps `change`'s conditions.
            unsafe { self.change(|activations| Self::remove(activations, |index, _| index >= length)) }
        }

        /// Removes all activations of `context`, whose store is going away.
        ///
        /// # Safety
        ///
        /// As for [`ActivationStack::push`].
        pub unsafe fn remove_store(&self, context: StoreContext) {
            // SAFETY: the caller keeps `change`'s conditions.
            unsafe {
                self.change(|activations| {
                    Self::remove(activations, |_, activation| activation.context == context)
                });
            }
        }

        fn remove(activations: &mut Vec<Activation>, mut goes: impl FnMut(usize, &Activation) -> bool) {
            let mut index = 0usize;
            activations.retain(|activation| {
                let keep = !goes(index, activation);
                index = index.saturating_add(1);
                keep
            });
            // The youngest activation of each store reads its store again.
            let contexts: Vec<StoreContext> =
                activations.iter().map(|activation| activation.context).collect();
            for (index, activation) in activations.iter_mut().enumerate() {
                let younger = contexts.get(index.saturating_add(1)..).unwrap_or(&[]);
                if !younger.contains(&activation.context) {
                    activation.frozen = None;
                }
            }
        }

        /// Changes the activations while a handler on this thread sees either all of them or none.
        ///
        /// # Safety
        ///
        /// On the owning thread, outside of signal handlers, and not within itself.
        unsafe fn change(&self, change: impl FnOnce(&mut Vec<Activation>)) {
            // SAFETY: this thread is the only one to touch the storage, handlers do not touch it (they read
            // through `activations`), and `change` is not nested.
            let storage = unsafe { &mut *self.storage.get() };
            // Pair: the loads in `exit_states`, on this thread. A handler in between finds no activation, and
            // counts its sample as outside the guest: the thread is in our own code, for some nanoseconds.
            self.length.store(0, Ordering::Relaxed);
            compiler_fence(core::sync::atomic::Ordering::SeqCst);
            change(storage);
            self.activations.store(storage.as_mut_ptr(), Ordering::Relaxed);
            compiler_fence(core::sync::atomic::Ordering::SeqCst);
            self.length.store(storage.len(), Ordering::Relaxed);
        }
    }
}

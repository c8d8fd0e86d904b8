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
//! When a younger activation ends, whatever way, Wasmtime puts back what the store held before, so that the copy
//! is out of date as soon as the store is in the older activation again, which its entry tells.
//!
//! The copy, or the store, may also hold values that are no longer, or not yet, true: the guest has returned
//! from its host call, or is just being entered, or a panic has unwound the stack. A segment counts only if it lies
//! above everything that was seen on the stack so far and its own words agree with each other; see [`crate::stack`].

use core::ops::Deref;

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

/// A store's `VMStoreContext`, to read the exit state from for as long as the store lives.
#[derive(Debug)]
pub struct StoreContext {
    /// Null once the store is gone.
    address: AtomicPtr<u8>,
    layout: ExitStateLayout,
}

impl StoreContext {
    /// # Safety
    ///
    /// `address` must point to a `VMStoreContext` of the given layout that stays valid until
    /// [`StoreContext::close`] was called and every handler that was running then has returned.
    pub unsafe fn new(address: *mut u8, layout: ExitStateLayout) -> Self {
        Self { address: AtomicPtr::new(address), layout }
    }

    /// Notes that the store is going away: nothing is read from it any more.
    pub fn close(&self) {
        // Pair: the load in `exit_state`.
        self.address.store(core::ptr::null_mut(), Ordering::Release);
    }

    /// Reads what the store holds now; all zero if it is gone.
    pub fn exit_state(&self) -> ExitState {
        // Pair: the store in `close`.
        let address = self.address.load(Ordering::Acquire);
        if address.is_null() {
            return ExitState::default();
        }
        let word = |offset: usize| {
            // SAFETY: `new`'s caller vouches for the context and its layout. The words are changed by guest
            // code on this thread only; volatile, since that code is unknown to the compiler.
            unsafe { address.wrapping_add(offset).cast::<usize>().read_volatile() }
        };
        ExitState {
            exit_fp: word(self.layout.exit_fp),
            exit_pc: word(self.layout.exit_pc),
            entry_fp: word(self.layout.entry_fp),
        }
    }
}

/// One entry of a guest. `C` refers to its [`StoreContext`] and keeps that in memory.
#[derive(Clone, Debug)]
pub struct Activation<C> {
    context: C,
    /// Where on this stack the store's guest had been left when this activation began: this one leaves its guest
    /// below that. [`usize::MAX`] if it had not been left.
    below: usize,
    /// What the store held when a younger activation of the same store began.
    frozen: Option<ExitState>,
}

impl<C: Deref<Target = StoreContext>> Activation<C> {
    /// Where the guest of this activation was left; all zero if it was not.
    pub fn exit_state(&self) -> ExitState {
        let live = self.context.exit_state();
        match self.frozen {
            _ if self.is_current(live) => live,
            Some(frozen) => frozen,
            None => ExitState::default(),
        }
    }

    /// Whether `live`, what the store holds now, is of this activation. Wasmtime sets the entry when the guest is
    /// entered, leaves the exit as it is until the guest is left, and puts both back when it leaves the activation.
    fn is_current(&self, live: ExitState) -> bool {
        match self.frozen {
            Some(frozen) => frozen.entry_fp != 0 && frozen.entry_fp == live.entry_fp,
            None => live.exit_fp != 0 && live.exit_fp < self.below,
        }
    }
}

/// The activations of one execution stack, oldest first.
///
/// Written by the thread that runs on that stack, and read by a signal handler on the same thread. The handler
/// runs between two instructions of the writer, so that the order of the writer's stores is all that matters.
#[derive(Debug)]
pub struct ActivationStack<C> {
    activations: AtomicPtr<Activation<C>>,
    length: AtomicUsize,
    #[cfg(feature = "owner")]
    storage: core::cell::UnsafeCell<alloc::vec::Vec<Activation<C>>>,
}

impl<C: Deref<Target = StoreContext>> ActivationStack<C> {
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
    use super::{Activation, ActivationStack, ExitState, StoreContext};
    use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
    use alloc::vec::Vec;
    use core::cell::UnsafeCell;
    use core::ops::Deref;
    use core::sync::atomic::compiler_fence;

    impl<C> Default for ActivationStack<C> {
        fn default() -> Self {
            let mut storage = Vec::with_capacity(16);
            Self {
                activations: AtomicPtr::new(storage.as_mut_ptr()),
                length: AtomicUsize::new(0),
                storage: UnsafeCell::new(storage),
            }
        }
    }

    impl<C: Deref<Target = StoreContext>> ActivationStack<C> {
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
        /// To be called on the thread that the stack belongs to, outside of signal handlers.
        pub unsafe fn push(&self, context: C) {
            // SAFETY: the caller keeps `change`'s conditions.
            unsafe {
                self.change(|activations| {
                    let live = context.exit_state();
                    remove_left(activations, &context, live);
                    let older = activations.iter_mut().rfind(|older| same(&older.context, &context));
                    let below = older.map_or(usize::MAX, |older| older.frozen.insert(live).exit_fp);
                    activations.push(Activation { context, below, frozen: None });
                });
            }
        }

        /// Notes that the host has left the guest of `context`: removes its youngest activation, and younger
        /// ones of other stores, which a panic must have unwound.
        ///
        /// # Safety
        ///
        /// As for [`ActivationStack::push`].
        pub unsafe fn pop(&self, context: &StoreContext) {
            // SAFETY: the caller keeps `change`'s conditions.
            unsafe {
                self.change(|activations| {
                    let youngest =
                        activations.iter().rposition(|activation| same(&activation.context, context));
                    activations.truncate(youngest.unwrap_or(usize::MAX));
                    remove_left(activations, context, context.exit_state());
                });
            }
        }

        /// Removes all activations of `context`, whose store is going away.
        ///
        /// # Safety
        ///
        /// As for [`ActivationStack::push`].
        pub unsafe fn remove_store(&self, context: &StoreContext) {
            // SAFETY: the caller keeps `change`'s conditions.
            unsafe {
                self.change(|activations| {
                    activations.retain(|activation| !same(&activation.context, context));
                });
            }
        }

        /// Changes the activations while a handler on this thread sees either all of them or none.
        ///
        /// # Safety
        ///
        /// On the owning thread, outside of signal handlers, and not within itself.
        unsafe fn change(&self, change: impl FnOnce(&mut Vec<Activation<C>>)) {
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

    /// Removes the activations of `context` that are younger than the one that its store is in: a panic has
    /// unwound them.
    fn remove_left<C: Deref<Target = StoreContext>>(
        activations: &mut Vec<Activation<C>>,
        context: &StoreContext,
        live: ExitState,
    ) {
        while let Some(youngest) =
            activations.iter().rposition(|activation| same(&activation.context, context))
            && !activations.get(youngest).is_some_and(|activation| activation.is_current(live))
        {
            activations.remove(youngest);
        }
    }

    fn same(left: &StoreContext, right: &StoreContext) -> bool {
        core::ptr::eq(left, right)
    }
}

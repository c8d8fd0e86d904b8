//! The stores whose guests are to be seen, each with the number of its labels: looked up by handlers without waiting.
//!
//! A hash table with open addressing. A store lies within a few slots from where its address leads to, and a look-up
//! goes through all of these, so that slots can be emptied and filled again in any order. A table that is too full for
//! that is replaced by a larger one; the old one is freed once no handler can be reading it, as the code table's is
//! ([`crate::registry`]).

use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// How many slots are looked through for a store.
const WINDOW: usize = 8;

/// One store; free if its address is 0.
#[derive(Debug)]
struct Slot {
    store: AtomicUsize,
    labels: AtomicU64,
}

#[derive(Debug)]
struct Table {
    /// One less than the power of two of places where windows begin.
    mask: usize,
    slots: *const Slot,
    /// `mask + WINDOW`.
    length: usize,
}

impl Table {
    /// The slots in which the store can be.
    fn window(&self, store: usize) -> &[Slot] {
        // The multiplier spreads addresses that differ in few bits (Fibonacci hashing); the upper half is the best.
        let hash = (store as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let start = hash as usize & self.mask;
        if start.saturating_add(WINDOW) > self.length {
            return &[];
        }
        // SAFETY: the slots belong to the table, whose owner keeps them, and there are `length`.
        unsafe { core::slice::from_raw_parts(self.slots.wrapping_add(start), WINDOW) }
    }
}

/// The attached stores of a profiler.
#[derive(Debug)]
pub struct Stores {
    table: AtomicPtr<Table>,
    #[cfg(feature = "owner")]
    owner: owner::Owner,
}

impl Stores {
    /// The number of the store's labels; `None` if it is not attached.
    ///
    /// # Safety
    ///
    /// To be called within [`Registry::read`](crate::registry::Registry::read) of the registry that
    /// [`Stores::attach`] is given.
    pub unsafe fn labels(&self, store: usize) -> Option<u64> {
        // Pair: the swap in `grow`, which releases the table's contents.
        // SAFETY: null or from `grow`, which frees a table only when every handler has left `Registry::read` since.
        let table = unsafe { self.table.load(Ordering::Acquire).as_ref() }?;
        let is_store = |slot: &&Slot| {
            // Pair: the release store in `insert`, after that of the labels. No store has the address of a free slot.
            store != 0 && slot.store.load(Ordering::Acquire) == store
        };
        let slot = table.window(store).iter().find(is_store)?;
        let labels = slot.labels.load(Ordering::Relaxed);
        // Still the same store's: it has not been detached, and the slot been used for another, in between.
        is_store(&slot).then_some(labels)
    }
}

#[cfg(feature = "owner")]
mod owner {
    use super::{Slot, Stores, Table, WINDOW};
    use crate::registry::Registry;
    use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    #[cfg(loom)]
    use loom::sync::{Mutex, MutexGuard};
    use std::collections::HashMap;
    #[cfg(not(loom))]
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Places of the first table.
    const FIRST: usize = 64;

    #[derive(Debug, Default)]
    pub(super) struct Owner {
        state: Mutex<State>,
    }

    #[derive(Debug, Default)]
    struct State {
        /// How often each store is attached.
        attached: HashMap<usize, usize>,
        /// The slots of the current table. A vector, since a box that is moved must be the only way to what it holds.
        slots: Vec<Slot>,
    }

    impl Default for Stores {
        fn default() -> Self {
            Self { table: AtomicPtr::new(core::ptr::null_mut()), owner: Owner::default() }
        }
    }

    impl Stores {
        /// Adds a store, without labels. One that is attached already has to be detached once more, and loses the labels that it had:
        /// whoever attaches it may do that for somebody else.
        pub fn attach(&self, store: usize, registry: &Registry) {
            let mut state = self.state();
            let count = state.attached.entry(store).or_default();
            *count = count.saturating_add(1);
            if *count > 1 {
                if let Some(slot) = self.slot(store) {
                    // Pair: the load in `labels`, as in `set_labels`.
                    slot.labels.store(0, Ordering::Relaxed);
                }
                return;
            }
            while !self.insert(store, 0) {
                self.grow(&mut state, registry);
            }
        }

        /// Takes a store out. When this returns, its guests are not seen any more by handlers that begin later.
        pub fn detach(&self, store: usize) {
            let mut state = self.state();
            let Some(count) = state.attached.get_mut(&store) else { return };
            *count = count.saturating_sub(1);
            if *count > 0 {
                return;
            }
            state.attached.remove(&store);
            if let Some(slot) = self.slot(store) {
                slot.store.store(0, Ordering::Release);
            }
        }

        /// Changes the number of a store's labels, for samples from now on.
        pub fn set_labels(&self, store: usize, labels: u64) {
            // Locked, so that the table is not replaced meanwhile.
            let _state = self.state();
            if let Some(slot) = self.slot(store) {
                // Pair: the load in `labels`. Nothing else goes with the number.
                slot.labels.store(labels, Ordering::Relaxed);
            }
        }

        /// How many stores are attached.
        pub fn len(&self) -> usize {
            self.state().attached.len()
        }

        /// Whether no store is attached.
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// The memory of the table, in bytes.
        pub fn bytes(&self) -> usize {
            size_of_val(&*self.state().slots)
        }

        fn state(&self) -> MutexGuard<'_, State> {
            #[cfg(loom)]
            return self.owner.state.lock().unwrap_or_else(|_| unreachable!("models do not panic"));
            // Every change leaves the state whole, so that a panic elsewhere does not matter.
            #[cfg(not(loom))]
            self.owner.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// The current table; called with the state locked, so that it stays.
        fn table(&self) -> Option<&Table> {
            // SAFETY: null or from `grow`, which only runs with the state locked.
            unsafe { self.table.load(Ordering::Acquire).as_ref() }
        }

        fn slot(&self, store: usize) -> Option<&Slot> {
            let window = self.table()?.window(store);
            window.iter().find(|slot| slot.store.load(Ordering::Relaxed) == store)
        }

        fn insert(&self, store: usize, labels: u64) -> bool {
            let Some(table) = self.table() else { return false };
            let free = table.window(store).iter().find(|slot| slot.store.load(Ordering::Relaxed) == 0);
            let Some(slot) = free else { return false };
            slot.labels.store(labels, Ordering::Relaxed);
            // Pair: the loads in `labels`.
            slot.store.store(store, Ordering::Release);
            true
        }

        /// Puts a larger table in place of the current one, and frees that.
        fn grow(&self, state: &mut State, registry: &Registry) {
            let mut places = state.slots.len().saturating_sub(WINDOW).max(FIRST / 2);
            let table = loop {
                places = places.saturating_mul(2);
                if let Some(table) = Self::copy(&state.slots, places) {
                    break table;
                }
            };
            let new = Table { mask: places.saturating_sub(1), slots: table.as_ptr(), length: table.len() };
            // Pair: the load in `labels`; releases the new table.
            let old = self.table.swap(Box::into_raw(Box::new(new)), Ordering::AcqRel);
            registry.wait_for_handlers();
            // Its slots can go now, too.
            state.slots = table;
            if !old.is_null() {
                // SAFETY: from `Box::into_raw` above, taken out by the swap, and no handler has it any more.
                drop(unsafe { Box::from_raw(old) });
            }
        }

        /// The stores of `slots` in a table with this many places, if they fit.
        fn copy(slots: &[Slot], places: usize) -> Option<Vec<Slot>> {
            let free = || Slot { store: AtomicUsize::new(0), labels: AtomicU64::new(0) };
            let length = places.saturating_add(WINDOW);
            let copied: Vec<Slot> = (0..length).map(|_| free()).collect();
            let table = Table { mask: places.saturating_sub(1), slots: copied.as_ptr(), length };
            for slot in slots {
                let store = slot.store.load(Ordering::Relaxed);
                if store == 0 {
                    continue;
                }
                let free = table.window(store).iter().find(|slot| slot.store.load(Ordering::Relaxed) == 0)?;
                free.labels.store(slot.labels.load(Ordering::Relaxed), Ordering::Relaxed);
                free.store.store(store, Ordering::Relaxed);
            }
            Some(copied)
        }
    }

    impl Drop for Stores {
        fn drop(&mut self) {
            // Nobody else can hold the stores, so that no handler reads them.
            let table = self.table.swap(core::ptr::null_mut(), Ordering::AcqRel);
            if !table.is_null() {
                // SAFETY: as in `grow`.
                drop(unsafe { Box::from_raw(table) });
            }
        }
    }
}

// SAFETY: the pointers in a table are to slots that are shared by design.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

//! The activations of a thread: its entries of the host into guests that have not ended, youngest first.
//!
//! Wasmtime keeps them itself, in a list through the stack that begins in a thread-local word. It puts an activation
//! in before it enters the guest, takes it out when the guest has ended, whatever way, and moves the activations of a
//! fiber from thread to thread with it. So the list is exact at every instruction, and nobody has to tell the profiler:
//!
//! ```text
//!   thread-local word ──▶ activation ── store ──▶ VMStoreContext { exit_fp, exit_pc, entry_fp, guard }
//!                           │   └────── before ─▶ { exit_fp, exit_pc, entry_fp }   what the store held before
//!                         older
//!                           ▼
//!                         activation ── …
//! ```
//!
//! While the guest of an activation is inside a host call, the store says where it was left: the *exit state*. When the
//! host then enters a guest of the same store again, these values are overwritten; the younger activation has them in
//! `before`. The words of the list are found by what they hold, see the profiler's `layout` module; what is read here is
//! memory of frames that are live for as long as the activation is in the list.

/// Offsets of an exit state's words, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitStateLayout {
    /// The exit trampoline's frame pointer.
    pub exit_fp: usize,
    /// The return address into the guest.
    pub exit_pc: usize,
    /// The entry trampoline's frame pointer.
    pub entry_fp: usize,
}

/// Offsets of what is read of Wasmtime's activations, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivationLayout {
    /// In an activation: the address of the store's context.
    pub store: usize,
    /// In an activation: the address of the next older one, or null.
    pub older: usize,
    /// In an activation: the address of what the store held before.
    pub before: usize,
    /// In what the store held before.
    pub saved: ExitStateLayout,
    /// In the store's context.
    pub current: ExitStateLayout,
    /// In the store's context: the two ends of the guard below the fiber's stack, in either order; both are null without
    /// a fiber, or without a guard.
    pub guard: usize,
    /// In the store's context: the lowest address that the guest may use of its stack.
    pub stack_limit: usize,
    /// In the store's context: the address of something in the frame that has entered the guest last, in which there is
    /// also what the store held before.
    pub entering_frame: usize,
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

/// An entry of a guest that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Address of Wasmtime's record of it: in the frame of the host function that has entered the guest, on the stack
    /// that the guest runs on, above all frames of the guest.
    pub address: usize,
    /// Address of the store's context.
    pub store: usize,
    /// Where the guest was left last; out of date while the guest itself runs.
    pub exit: ExitState,
    /// An address below everything on the stack that the guest of the youngest activation runs on, if that is a fiber's.
    /// It is the lowest of the stack unless Wasmtime knows of no guard; then the lowest that the guest may use.
    pub stack_start: usize,
    /// An address in the frame that is to put the exit state back into the store's context: that of this activation, or of
    /// a younger one of the same store that is not in the list any more. 0 if `exit` is not from there.
    pub entering_frame: usize,
    /// How that frame keeps what the store held before.
    pub saved: ExitStateLayout,
    /// Whether the store's guests are to be seen.
    pub attached: bool,
}

/// How many stores can have activations on one thread at the same time. Older activations than those of so many are
/// left out, and the walk then ends as at the frame limit.
pub const MOST_STORES: usize = 4;

/// What [`Activations`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next older activation.
    Activation(Activation),
    /// There are more, of too many stores.
    TooMany,
    /// There are more, but the list does not lead to them: its head is being put in or taken out.
    Cut,
}

/// The activations of the calling thread, youngest first.
#[derive(Clone, Debug)]
pub struct Activations<'a> {
    layout: &'a ActivationLayout,
    next: usize,
    /// The stores that were met, each with the address of what it held before its oldest activation so far.
    met: [(usize, usize); MOST_STORES],
    stores: usize,
}

impl<'a> Activations<'a> {
    /// The activations from the one at `youngest` on; none if that is null.
    ///
    /// # Safety
    ///
    /// `youngest` must be what the calling thread's list of activations begins with, in a build of Wasmtime with this
    /// layout, and the result must not be used after the thread goes on (a signal handler of the thread does not let it).
    pub unsafe fn new(youngest: usize, layout: &'a ActivationLayout) -> Self {
        Self { layout, next: youngest, met: [(0, 0); MOST_STORES], stores: 0 }
    }
}

/// The address of the next older activation; 0 if there is none.
///
/// # Safety
///
/// `address` must be 0, or that of an activation that is in the calling thread's list.
pub unsafe fn older(address: usize, layout: &ActivationLayout) -> usize {
    if address == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { word(address, layout.older) }
}

impl Iterator for Activations<'_> {
    type Item = Next;

    #[inline(always)]
    fn next(&mut self) -> Option<Next> {
        let address = self.next;
        if address == 0 {
            return None;
        }
        // SAFETY: `new`'s caller vouches that this is an activation of the list: its record is live.
        let (store, older, before) = unsafe {
            (
                word(address, self.layout.store),
                word(address, self.layout.older),
                word(address, self.layout.before),
            )
        };
        let mut entering_frame = 0;
        let known = self.met.iter_mut().take(self.stores).find(|(known, _)| *known == store);
        let exit = match known {
            Some((_, younger)) => {
                // SAFETY: what an activation refers to is in the same frames.
                let exit = unsafe { exit_state(*younger, &self.layout.saved) };
                *younger = before;
                exit
            }
            None => {
                let Some(free) = self.met.get_mut(self.stores) else {
                    self.next = 0;
                    return Some(Next::TooMany);
                };
                *free = (store, before);
                self.stores = self.stores.saturating_add(1);
                // SAFETY: the store of a live activation lives.
                unsafe {
                    entering_frame = word(store, self.layout.entering_frame);
                    exit_state(store, &self.layout.current)
                }
            }
        };
        // SAFETY: the store of a live activation lives.
        let (guard, limit) = unsafe {
            let second = self.layout.guard.wrapping_add(size_of::<usize>());
            (word(store, self.layout.guard).max(word(store, second)), word(store, self.layout.stack_limit))
        };
        let stack_start = if guard == 0 { limit } else { guard };
        self.next = older;
        let saved = self.layout.saved;
        Some(Next::Activation(Activation {
            address,
            store,
            exit,
            stack_start,
            entering_frame,
            saved,
            attached: true,
        }))
    }
}

/// # Safety
///
/// Null, or the address of something that has a word at this offset.
unsafe fn word(address: usize, offset: usize) -> usize {
    let address = address.wrapping_add(offset);
    if address == offset || !address.is_multiple_of(align_of::<usize>()) {
        return 0;
    }
    // SAFETY: the caller's promise. Volatile, since what writes it is unknown to the compiler: guest code and Wasmtime, on
    // this thread only.
    unsafe { core::ptr::with_exposed_provenance::<usize>(address).read_volatile() }
}

/// # Safety
///
/// Null, or the address of something that has an exit state of this layout.
unsafe fn exit_state(address: usize, layout: &ExitStateLayout) -> ExitState {
    // SAFETY: the caller's promise.
    unsafe {
        ExitState {
            exit_fp: word(address, layout.exit_fp),
            exit_pc: word(address, layout.exit_pc),
            entry_fp: word(address, layout.entry_fp),
        }
    }
}

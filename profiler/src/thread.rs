//! One sampled thread: what its signal handler works with, and its life.
//!
//! A [`Thread`] is made when a thread first enters a guest of an attached store, and goes when the thread ends.
//! While a session runs it is *armed*: it has an event source, a ring and counters.

use std::cell::UnsafeCell;
use std::ops::{ControlFlow, Range};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use flamewalk_collector::Channel;
use flamewalk_handler::activation::{Activation, Activations, Next};
use flamewalk_handler::arch::{Native, Registers};
use flamewalk_handler::code::CodeTable;
use flamewalk_handler::cycles;
use flamewalk_handler::host::{HostUnwinder, NoHostFrames};
use flamewalk_handler::memory::LiveStack;
use flamewalk_handler::record::{Frame, HEADER_WORDS, Header, MIXED_LABELS};
use flamewalk_handler::recorder::{Recorder, Visit};
use flamewalk_handler::registry::Reader;
use flamewalk_handler::ring::Full;
use flamewalk_handler::stack::{self, Walk};
use flamewalk_handler::statistics::{Fate, LossCause};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_unwinder::HostFrames;

use crate::error::Error;
use crate::layout::ActivationList;
use crate::shared::Shared;
use crate::source::{Plan, SignalInfo, Source, Ticks};

mod bounds;
mod current;

pub(crate) use bounds::{stack_bounds, usable_stack_start};
pub(crate) use current::{attach_current, is_known, with_current, with_existing};

/// What a thread has while a session runs.
#[derive(Debug)]
pub(crate) struct Armed {
    pub(crate) source: Arc<Source>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) frame_limit: usize,
    /// What native frames of the host are found with, if they are wanted. Belongs to the thread's handler.
    pub(crate) host: Option<UnsafeCell<HostFrames>>,
}

impl Armed {
    /// Has the ring be drained as often as ticks of `plan` can make it necessary.
    pub(crate) fn expect(&self, plan: &Plan) {
        let record_words = HEADER_WORDS.saturating_add(self.frame_limit) as u64;
        self.channel.expect(plan.most_ticks_per_second().saturating_mul(record_words));
    }
}

/// A thread that enters guests of attached stores.
#[derive(Debug)]
pub(crate) struct Thread {
    shared: Arc<Shared>,
    /// The kernel's id.
    pub(crate) id: i32,
    stack: Range<usize>,
    /// How to read Wasmtime's list of activations, and the address of the word that it begins with on this thread.
    list: &'static ActivationList,
    list_word: usize,
    /// The address of the activation that is older than the one which was put into the list last, or is taken out next; 0
    /// for none. Written by the thread outside of its handler, and read by that, as far as call hooks tell.
    below: AtomicUsize,
    reader: Arc<Reader>,
    /// For walks outside of the handler, if there are any.
    hook_reader: Option<Arc<Reader>>,
    armed: AtomicPtr<Armed>,
}

// SAFETY: what is armed for host frames is changed by the thread's handler only (see `sample`); the rest is shared by
// design.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

impl Thread {
    /// Makes the calling thread known.
    fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let list = ActivationList::of_process()?;
        let list_word = list.word_of_this_thread()?;
        let reader = Arc::new(Reader::default());
        let stack = stack_bounds()?;
        let hook_reader = shared.options.suspended.then(Arc::default);
        for reader in [Some(&reader), hook_reader.as_ref()].into_iter().flatten() {
            shared.registry.handlers().add_reader(Arc::clone(reader));
        }
        Ok(Self {
            shared,
            id: nix::unistd::gettid().as_raw(),
            stack,
            list,
            list_word,
            below: AtomicUsize::new(0),
            reader,
            hook_reader,
            armed: AtomicPtr::new(ptr::null_mut()),
        })
    }

    /// Begins sampling, paused or not. To be called under the session's lock.
    pub(crate) fn arm(&self, armed: Armed, paused: bool) -> Result<(), Error> {
        let armed = Box::into_raw(Box::new(armed));
        // Pair: the load in `on_signal`.
        let before = self.armed.swap(armed, Ordering::AcqRel);
        debug_assert!(before.is_null(), "armed twice");
        // SAFETY: just made; freed only by `disarm`, which the session's lock keeps from running now.
        let started = if paused { Ok(()) } else { unsafe { &(*armed).source }.start() };
        if started.is_err() {
            self.disarm();
        }
        started
    }

    /// Runs `act` with what the thread is armed with, if it is. To be called under the session's lock.
    pub(crate) fn with_armed<R>(&self, act: impl FnOnce(&Armed) -> R) -> Option<R> {
        // SAFETY: null or made by `arm`; freed only by `disarm`, which the session's lock keeps from running now.
        unsafe { self.armed.load(Ordering::Acquire).as_ref() }.map(act)
    }

    /// Ends sampling. To be called under the session's lock, or by the thread's last owner. When this returns, the
    /// handler does not use what it was armed with any more.
    pub(crate) fn disarm(&self) {
        // SAFETY: null or made by `arm`; freed only below.
        let Some(armed) = (unsafe { self.armed.load(Ordering::Acquire).as_ref() }) else { return };
        armed.source.stop();
        // Pair: the load in `on_signal`.
        let armed = self.armed.swap(ptr::null_mut(), Ordering::AcqRel);
        self.reader.wait_until_left();
        if !armed.is_null() {
            // SAFETY: made by `arm`, taken out by the swap, and no handler that could have loaded it is running.
            drop(unsafe { Box::from_raw(armed) });
        }
    }

    /// Handles a signal of this thread; `false` if it is not from its event source.
    ///
    /// Async-signal-safe: yes. It works on atomics, its own ring and memory that was shown to be valid.
    ///
    /// `entered` is the cycle counter at the signal's arrival.
    pub(crate) fn on_signal(&self, info: &SignalInfo, registers: &Registers, entered: u64) -> bool {
        // In a forked process, what this thread was armed with is the parent's.
        if !self.shared.process.is_current() {
            return false;
        }
        let handlers = self.shared.registry.handlers();
        // SAFETY: the reader is this thread's, registered in `new`, and the signal is blocked while it is handled.
        unsafe { handlers.read(&self.reader, |table| self.handle(info, registers, table, entered)) }
    }

    fn handle(&self, info: &SignalInfo, registers: &Registers, table: CodeTable<'_>, entered: u64) -> bool {
        // Pair: the swaps in `arm` and `disarm`.
        // SAFETY: null, or made by `arm`; `disarm` frees it only after this handler has left `read`.
        let Some(armed) = (unsafe { self.armed.load(Ordering::Acquire).as_ref() }) else { return false };
        let Some(ticks) = armed.source.ticks(info) else { return false };
        if ticks.count > 0 {
            let fate = self.sample(armed, registers, table, ticks);
            armed.channel.counters.count(fate, ticks.count, ticks.weight);
        }
        armed.channel.counters.took(cycles::now().saturating_sub(entered));
        true
    }

    /// Visits the guest frames of this thread; see [`stack::walk`].
    ///
    /// Async-signal-safe: yes.
    ///
    /// # Safety
    ///
    /// To be called in a signal handler of this thread that interrupted it at `registers`, or on this thread with registers
    /// that it has, within [`Registry::read`](flamewalk_handler::registry::Registry::read) that gave `table`.
    pub(crate) unsafe fn walk(
        &self,
        registers: &Registers,
        table: CodeTable<'_>,
        host: &mut impl HostUnwinder,
        frame_limit: usize,
        visit: &mut impl Visit,
    ) -> Walk {
        // SAFETY: the caller's promise: on this thread, which is interrupted.
        let mut list = unsafe { self.activations() };
        let (mut first, mut number) = (0, 0usize);
        let mut activations = std::iter::from_fn(|| {
            let next = list.next();
            number = number.wrapping_add(1);
            match next {
                Some(Next::Activation(activation)) => {
                    if number == 1 {
                        first = activation.address;
                    }
                    // SAFETY: the caller is within `read`.
                    let attached = unsafe { self.shared.stores.labels(activation.store) }.is_some();
                    Some(Next::Activation(Activation { attached, ..activation }))
                }
                None if number == 2 && self.is_cut(first) => Some(Next::Cut),
                _ => next,
            }
        });
        // SAFETY: the walk reads the stack that the thread was interrupted on from the stack pointer up to the top or to an
        // activation of the list, which lies on it; and of other stacks from where a guest has left to its activation, all
        // of which is in frames that are live. Code of the table is mapped while a frame of it is on a stack: its
        // store keeps it.
        let memory = unsafe { LiveStack::new() };
        let thread = stack::Thread {
            memory: &memory,
            table,
            stack: self.stack.clone(),
            activations: &mut activations,
        };
        stack::walk::<Native, _>(registers, thread, host, frame_limit, visit)
    }

    /// Notes what lies below the activation that is put into the list next.
    ///
    /// Wasmtime makes an activation the head of its list some instructions before it says which is the next older one, and
    /// unsays that some instructions before it takes the activation out. In between, this is how the handler knows that
    /// there are others.
    pub(crate) fn before_entry(&self) {
        // SAFETY: `with_current` hands a thread to its own code only.
        let [youngest, _] = unsafe { self.list.two_youngest(self.list_word) };
        // Pair: the load in `is_cut`, on this thread.
        self.below.store(youngest, Ordering::Relaxed);
    }

    /// Notes what lies below the activation that is taken out of the list next, which is its head now.
    pub(crate) fn after_entry(&self) {
        // SAFETY: as in `before_entry`.
        let [_, older] = unsafe { self.list.two_youngest(self.list_word) };
        // Pair: as in `before_entry`.
        self.below.store(older, Ordering::Relaxed);
    }

    /// Whether the list, in which `head` is the only activation, leads to less than there is: an older one lies above it
    /// on this thread's stack.
    fn is_cut(&self, head: usize) -> bool {
        // Pair: the stores above, on this thread. The address may be out of date, and nothing is read there.
        let below = self.below.load(Ordering::Relaxed);
        below > head && self.stack.contains(&head) && self.stack.contains(&below)
    }

    /// The activations of this thread, youngest first.
    ///
    /// # Safety
    ///
    /// To be called on this thread, which must not enter or leave a guest while the result is used.
    pub(crate) unsafe fn activations(&self) -> Activations<'_> {
        // SAFETY: the calling thread's own word, and the caller's promise.
        unsafe { self.list.activations(self.list_word) }
    }

    /// The addresses of this thread's stack.
    #[cfg(test)]
    pub(crate) fn stack(&self) -> Range<usize> {
        self.stack.clone()
    }

    /// The labels of the youngest guest's store, and whether a store with others has a guest on the stack, too, or might
    /// have one beyond the limit.
    ///
    /// # Safety
    ///
    /// As for [`Thread::walk`].
    unsafe fn labels(&self, store: usize, limit: usize) -> u64 {
        // SAFETY: the caller is within `read`.
        let labels_of = |store| unsafe { self.shared.stores.labels(store) };
        let own = labels_of(store).unwrap_or_default();
        // SAFETY: the caller's promise.
        let mut activations = unsafe { self.activations() }.enumerate();
        let is_mixed = activations.any(|(number, next)| match next {
            Next::Activation(activation) if number < limit => {
                labels_of(activation.store).is_some_and(|labels| labels != own)
            }
            _ => true,
        });
        if is_mixed { own | MIXED_LABELS } else { own }
    }

    /// What a sample says besides its frames.
    ///
    /// # Safety
    ///
    /// As for [`Thread::walk`], which `walk` is from.
    unsafe fn header(&self, walk: &Walk, ticks: Ticks, table: CodeTable<'_>, limit: usize) -> Header {
        Header {
            ticks: u32::try_from(ticks.count).unwrap_or(u32::MAX),
            end: walk.end,
            weight: ticks.weight,
            time: ticks.time,
            generation: table.generation(),
            // SAFETY: the caller's promise.
            labels: unsafe { self.labels(walk.store, limit) },
            stack_used: saturate(walk.stack_used),
            stack_left: saturate(walk.stack_left),
        }
    }

    /// Adds to `frames` the words of the frames of this thread's stack, if the youngest guest on it is one of the store with
    /// this context and in a call of the host. To be called on this thread, by the host function or a hook. The header is
    /// that of a sample without ticks.
    pub(crate) fn host_call(&self, store: usize, frames: &mut Vec<u64>) -> Option<Header> {
        let here = 0u8;
        // In host code the walk uses nothing but the stack pointer, for which an address in this frame will do.
        let registers = Registers { sp: (&raw const here).addr(), ..Registers::default() };
        let mut visit = |frame: Frame| {
            frames.push(frame.encode());
            ControlFlow::Continue(())
        };
        let limit = self.shared.options.frame_limit;
        let reader = self.hook_reader.as_ref()?;
        let walk_and_describe = |table: CodeTable<'_>| {
            // SAFETY: on this thread, which does nothing else meanwhile: the handler, which can interrupt this, leaves it as
            // it was. And within `read`.
            unsafe {
                let walk = self.walk(&registers, table, &mut NoHostFrames, limit, &mut visit);
                let has_call = walk.store == store && LossCause::of_walk(walk.end).is_none();
                has_call.then(|| self.header(&walk, Ticks { count: 0, weight: 0, time: 0 }, table, limit))
            }
        };
        // SAFETY: the reader is this thread's, registered in `new`, and used nowhere else, so that calls do not nest.
        unsafe { self.shared.registry.handlers().read(reader, walk_and_describe) }
    }

    /// Writes a sample into the ring, if there is one to write.
    fn sample(&self, armed: &Armed, registers: &Registers, table: CodeTable<'_>, ticks: Ticks) -> Fate {
        let mut recorder = Recorder::begin(&armed.channel.ring);
        let limit = armed.frame_limit;
        let walk = match &armed.host {
            // SAFETY: in the handler of this thread's own signal, which has gone through `on_signal`.
            None => unsafe { self.walk(registers, table, &mut NoHostFrames, limit, &mut recorder) },
            Some(host) => {
                // SAFETY: only this thread's handler uses it, which its own signal does not interrupt.
                let host = unsafe { &mut *host.get() };
                // SAFETY: as above.
                unsafe { self.walk(registers, table, host, limit, &mut recorder) }
            }
        };
        let end = walk.end;
        if let Some(cause) = LossCause::of_walk(end) {
            return Fate::Lost(cause);
        }
        // Host frames alone are a guest's if the limit was reached before the guest.
        if !recorder.has_guest() && end == WalkEnd::EntryTrampoline {
            return Fate::Outside;
        }
        // SAFETY: as above.
        let header = unsafe { self.header(&walk, ticks, table, limit) };
        match recorder.commit(&header) {
            Ok(()) => Fate::Delivered,
            Err(Full) => Fate::Lost(LossCause::RingFull),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.shared.process.is_current() {
            return;
        }
        self.disarm();
        for reader in [Some(&self.reader), self.hook_reader.as_ref()].into_iter().flatten() {
            self.shared.registry.handlers().remove_reader(reader);
        }
    }
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

//! Attaching stores: whose guests are seen, with which labels, and how threads that run them become known.
//!
//! A store is attached for as long as its [`StoreHook`] lives. The hook sits in the store's call hook, alone or called
//! from the embedder's own: so the profiler learns of each thread that runs a guest. An embedder that wants nothing on
//! the way between guest and host keeps the hook elsewhere, and attaches its threads by hand.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use flamewalk_profile::Labels;
use wasmtime::{AsContextMut, CallHook, Func};

use crate::error::Error;
use crate::shared::Shared;
use crate::suspended::HostCall;
use crate::thread::Thread;
use crate::{layout, thread};

/// Keeps a store attached.
///
/// Wherever guests of the store run, on whatever thread or fiber, they are seen on the threads that are known. It must be
/// dropped no later than the store, which is the case when the store's own call hook owns it: another store could
/// otherwise get its address, and its guests be taken for those of this one.
#[derive(Debug)]
pub struct StoreHook {
    shared: Arc<Shared>,
    /// The address of the store's context.
    context: usize,
    /// The number of the labels. Locked while they are changed: two changes at once would leave the labels of one of them, and
    /// forget them as those that were before.
    labels: Mutex<u64>,
    /// The host call that the store's guest is in, if suspended guests are to be seen.
    host_call: Option<Arc<HostCall>>,
}

impl StoreHook {
    pub(crate) fn new(shared: Arc<Shared>, store: impl AsContextMut, func: &Func) -> Result<Self, Error> {
        shared.check_process()?;
        let context = layout::store_context(store, func)?;
        shared.stores.attach(context, shared.registry.handlers());
        let host_call = shared.options.suspended.then(|| shared.host_calls.attach(context));
        Ok(Self { shared, context, labels: Mutex::default(), host_call })
    }

    /// To be called from the store's call hook with what Wasmtime passes to it. Makes the calling thread known, if it is
    /// not yet: the thread that enters a guest, and the one that a suspended guest goes on on.
    #[inline]
    pub fn call(&self, hook: CallHook) {
        // This is on the way of every host call, of which a guest can make a hundred million a second.
        let is_known = match hook {
            CallHook::CallingHost => true,
            CallHook::ReturningFromHost => thread::is_known(&self.shared),
            CallHook::CallingWasm | CallHook::ReturningFromWasm => false,
        };
        if !is_known || self.host_call.is_some() {
            self.see(hook);
        }
    }

    /// What a call hook is there for.
    fn see(&self, hook: CallHook) {
        if let Some(host_call) = &self.host_call {
            self.follow(host_call, hook);
        }
        let known = match hook {
            CallHook::CallingWasm => thread::with_current(&self.shared, Thread::before_entry).map(drop),
            CallHook::ReturningFromHost => thread::attach_current(&self.shared),
            CallHook::ReturningFromWasm => {
                thread::with_existing(&self.shared, Thread::after_entry);
                Ok(())
            }
            CallHook::CallingHost => Ok(()),
        };
        if let Err(error) = known {
            self.shared.note(format!("a thread could not be sampled: {error}"));
        }
    }

    /// Follows the guest into the host and back.
    fn follow(&self, host_call: &HostCall, hook: CallHook) {
        if !self.shared.process.is_current() {
            return;
        }
        host_call.end();
        // After a guest that was entered from a host call, this goes on.
        if matches!(hook, CallHook::CallingHost | CallHook::ReturningFromWasm) {
            thread::with_existing(&self.shared, |thread| host_call.begin(thread));
        }
    }

    /// Sets the labels of the store, for samples from now on. Can be called at any time, also while its guest runs.
    ///
    /// Large sets are cut, and when there are very many different ones, further ones are shown as one: see the profile's
    /// notices.
    pub fn set_labels(&self, labels: Labels) {
        if !self.shared.process.is_current() {
            return;
        }
        let mut current = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = self.shared.labels.intern(labels);
        self.shared.stores.set_labels(self.context, labels);
        self.host_call.iter().for_each(|call| call.set_labels(labels));
        // No tick that begins now finds the ones before.
        self.shared.labels.release(std::mem::replace(&mut *current, labels));
    }
}

/// Sets the labels of a store that is attached by its own call hook; see [`StoreHook::set_labels`].
#[derive(Clone, Debug)]
pub struct StoreLabels {
    hook: Weak<StoreHook>,
}

impl StoreLabels {
    pub(crate) fn of(hook: &Arc<StoreHook>) -> Self {
        Self { hook: Arc::downgrade(hook) }
    }

    /// Sets the labels of the store, for samples from now on. Nothing if the store is gone, or has another call hook now.
    pub fn set(&self, labels: Labels) {
        if let Some(hook) = self.hook.upgrade() {
            hook.set_labels(labels);
        }
    }
}

impl Drop for StoreHook {
    fn drop(&mut self) {
        // In a forked process nothing looks the store up.
        if self.shared.process.is_current() {
            self.shared.stores.detach(self.context);
            self.shared.labels.release(*self.labels.get_mut().unwrap_or_else(PoisonError::into_inner));
            self.host_call.iter().for_each(|call| self.shared.host_calls.detach(call));
        }
    }
}

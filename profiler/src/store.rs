//! Attaching stores: how the profiler learns where a store's guests begin and end on the stack.
//!
//! Two ways, with the same result. A [`StoreHook`] sits in the store's call hook, alone or called from the
//! embedder's own. A [`Entered`] guard spans the calls that an embedder makes into the guest, and costs nothing
//! on the way between guest and host.

use std::marker::PhantomData;
use std::sync::Arc;

use flamewalk_handler::activation::StoreContext;
use wasmtime::{AsContextMut, CallHook, Func};

use crate::error::Error;
use crate::session::Shared;
use crate::{layout, thread};

/// Tells the profiler when the host enters and leaves guests of one store.
///
/// It must be dropped no later than the store, which is the case when the store's own call hook owns it.
#[derive(Debug)]
pub struct StoreHook {
    shared: Arc<Shared>,
    context: Arc<StoreContext>,
}

impl StoreHook {
    pub(crate) fn new(shared: Arc<Shared>, store: impl AsContextMut, func: &Func) -> Result<Self, Error> {
        let context = layout::store_context(store, func)?;
        Ok(Self { shared, context: Arc::new(context) })
    }

    /// To be called from the store's call hook with what Wasmtime passes to it.
    pub fn call(&self, hook: CallHook) {
        match hook {
            CallHook::CallingWasm => {
                thread::with_current(&self.shared, |thread| thread.enter(Arc::clone(&self.context)));
            }
            CallHook::ReturningFromWasm => {
                thread::with_existing(&self.shared, |thread| thread.leave(&self.context));
            }
            CallHook::CallingHost | CallHook::ReturningFromHost => {}
        }
    }

    /// Marks a stretch of code on this thread that calls guests of this store, until the guard is dropped.
    ///
    /// For stores whose call hook is not used. Guards nest; one is needed for each time that the host, when
    /// called by a guest of this store, enters a guest of this store again.
    pub fn enter(&self) -> Entered<'_> {
        self.call(CallHook::CallingWasm);
        Entered { hook: self, not_send: PhantomData }
    }
}

impl Drop for StoreHook {
    fn drop(&mut self) {
        // The store may go next: from here on nothing is read from it.
        self.context.close();
        thread::with_existing(&self.shared, |thread| thread.forget(&self.context));
        // A handler of another thread can have an activation that a panic has left, and be reading it.
        self.shared.registry.handlers().wait_for_handlers();
    }
}

/// A stretch of code that calls guests; see [`StoreHook::enter`].
#[derive(Debug)]
pub struct Entered<'a> {
    hook: &'a StoreHook,
    /// The guard ends on the thread that it began on.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.hook.call(CallHook::ReturningFromWasm);
    }
}

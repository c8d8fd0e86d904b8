//! For tests of embeddings: host functions that get no more stack than a guest can leave them.
//!
//! A guest and the host functions that it calls share a stack. Wasmtime stops a guest that has used its part
//! (`Config::max_wasm_stack`), but a guest that stops just short of that may still call the host. So every host function
//! must do with what lies below, and one that does not brings the process down when a guest wants it to. A test hardly
//! ever sees that: its guests are shallow, and leave host functions all the rest.
//!
//! ```text
//!   top     host         │ guest, shallow in a test │ host function
//!           ─────────────┼──────────────────────────┼──── the stack pointer, when the host is called
//!                        │                          │ ▲ as much as would be left at the limit: stays
//!           limit ·······│··························│·▼···
//!                                                   │ taken away until the host function returns
//!   bottom  guard
//! ```
//!
//! [`LeastStack`] takes the difference away, to within a page, so that a host function that needs too much dies in the
//! test as it would in production.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wasmtime::{AsContextMut, CallHook, Func, Instance, Module, Store};

use crate::error::Error;
use crate::{layout, profiler, thread};

/// Runs the host functions of one store with the smallest stack that they can ever get, on threads and on fibers.
///
/// A host function that needs more ends the process with a signal. Not for the main thread, whose stack grows as it is
/// used, and not for production: each host call costs two system calls.
#[derive(Debug)]
pub struct LeastStack {
    /// The address of the store's context.
    context: usize,
    /// What is taken away for each host call that has not returned, and each guest below it (nothing), oldest first.
    taken: Mutex<Vec<Range<usize>>>,
}

impl LeastStack {
    /// Watches the host calls of `store` by its call hook, which it replaces.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the store does not let an instance of a tiny module be made, by which it is found.
    pub fn attach<T: 'static>(store: &mut Store<T>) -> Result<(), Error> {
        let module = Module::new(store.engine(), profiler::PROBE).map_err(profiler::refused)?;
        let instance = Instance::new(&mut *store, &module, &[]).map_err(profiler::refused)?;
        let func = instance.get_func(&mut *store, "");
        let func = func.ok_or_else(|| Error::Store { message: "the probe has no function".to_owned() })?;
        let least = Self::of(&mut *store, &func)?;
        store.call_hook(move |_, event| Ok(least.call(event)?));
        Ok(())
    }

    /// For a store with a call hook of its own, which hands what it is given to [`LeastStack::call`]; by way of any
    /// function that an instance in this store exports.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the function is one of the host.
    pub fn of(store: impl AsContextMut, func: &Func) -> Result<Self, Error> {
        Ok(Self { context: layout::store_context(store, func)?, taken: Mutex::default() })
    }

    /// To be called from the store's call hook with what Wasmtime passes to it.
    ///
    /// # Errors
    ///
    /// [`Error::Stack`] if nothing is left for the host when the guest has used its part, or on the main thread;
    /// [`Error::System`] if memory cannot be protected.
    pub fn call(&self, hook: CallHook) -> Result<(), Error> {
        let mut taken = self.taken();
        match hook {
            CallHook::CallingHost => {
                let spare = self.spare()?;
                protect(&spare, libc::PROT_NONE)?;
                taken.push(spare);
            }
            CallHook::ReturningFromHost => {
                if let Some(spare) = taken.pop() {
                    protect(&spare, libc::PROT_READ | libc::PROT_WRITE)?;
                }
            }
            // A guest in a host call may use its part again.
            CallHook::CallingWasm => {
                if let Some(spare) = taken.last() {
                    protect(spare, libc::PROT_READ | libc::PROT_WRITE)?;
                }
            }
            CallHook::ReturningFromWasm => {
                if let Some(spare) = taken.last() {
                    protect(spare, libc::PROT_NONE)?;
                }
            }
        }
        Ok(())
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Range<usize>>> {
        // Every change is a single push or pop.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of the stack that a host function which is called here would not have at the guest's limit.
    fn spare(&self) -> Result<Range<usize>, Error> {
        let here = 0_u8;
        let stack_pointer = (&raw const here).addr();
        // SAFETY: the context of the store whose call hook this is called from.
        let (limit, fiber) = unsafe { layout::stack_limit(self.context) };
        let bottom = match fiber {
            Some(bottom) => bottom,
            None => thread::usable_stack_start()?,
        };
        let refused = |what| Error::Stack { what, limit, bottom };
        if limit <= bottom || limit > stack_pointer {
            return Err(refused("a guest that goes to its limit leaves the host nothing"));
        }
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|page| usize::try_from(page).ok()).unwrap_or(4096);
        let start = bottom.next_multiple_of(page);
        let end = stack_pointer - (limit - bottom);
        Ok(start..(end - end % page).max(start))
    }
}

impl Drop for LeastStack {
    fn drop(&mut self) {
        // A panic has left host functions that have not returned: others use the stack next.
        for spare in std::mem::take(&mut *self.taken()) {
            let _ = protect(&spare, libc::PROT_READ | libc::PROT_WRITE);
        }
    }
}

fn protect(part: &Range<usize>, access: i32) -> Result<(), Error> {
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(part.start);
    // SAFETY: whole pages of a stack, below the stack pointer of what runs on it: nothing of value is there, and what
    // needs them before they are given back is what this is to find.
    if !part.is_empty() && unsafe { libc::mprotect(start, part.len(), access) } != 0 {
        let source = std::io::Error::last_os_error();
        return Err(Error::System { action: "protect a part of the stack", source });
    }
    Ok(())
}

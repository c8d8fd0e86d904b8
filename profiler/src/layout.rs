//! Where Wasmtime keeps what the profiler reads: the one place that knows Wasmtime's own structures.
//!
//! ```text
//!   VMFuncRef.vmctx ──▶ VMContext { magic "core", store_context } ──▶ VMStoreContext { last_wasm_* }
//! ```
//!
//! All offsets come from `wasmtime-environ` of the very version of Wasmtime that runs the guest.

use flamewalk_handler::activation::{ExitStateLayout, StoreContext};
use wasmtime::{AsContextMut, Func};
use wasmtime_environ::{HostPtr, PtrSize, VMCONTEXT_MAGIC};

use crate::error::Error;

fn exit_state_layout() -> ExitStateLayout {
    let store_context = HostPtr.vm_store_context();
    ExitStateLayout {
        exit_fp: store_context.last_wasm_exit_trampoline_fp().into(),
        exit_pc: store_context.last_wasm_exit_pc().into(),
        entry_fp: store_context.last_wasm_entry_fp().into(),
    }
}

/// The context of the store that `func`, a function of an instance in that store, belongs to.
///
/// The result reads the store until it is closed.
pub(crate) fn store_context(mut store: impl AsContextMut, func: &Func) -> Result<StoreContext, Error> {
    let func_ref = func.to_raw(store.as_context_mut()).cast::<u8>();
    // SAFETY: a `VMFuncRef` that lives as long as the store; its `vmctx` is never null.
    let vmctx = unsafe { func_ref.add(HostPtr.vm_func_ref().vmctx().into()).cast::<*mut u8>().read() };
    // SAFETY: every kind of `vmctx` begins with its magic number.
    let magic = unsafe { vmctx.cast::<u32>().read() };
    if magic != VMCONTEXT_MAGIC {
        return Err(Error::Store {
            message: format!("the function belongs to the host, not to an instance (magic {magic:#x})"),
        });
    }
    // SAFETY: a `VMContext`, as the magic says, which holds the address of its store's context.
    let context = unsafe { vmctx.add(HostPtr.vmctx_store_context().into()).cast::<*mut u8>().read() };
    // SAFETY: a `VMStoreContext` of this version of Wasmtime; `StoreHook` closes it before the store goes.
    Ok(unsafe { StoreContext::new(context, exit_state_layout()) })
}

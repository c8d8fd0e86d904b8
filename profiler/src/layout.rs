//! Where Wasmtime keeps what the profiler reads: the one place that knows Wasmtime's own structures.
//!
//! ```text
//!   VMFuncRef.vmctx ──▶ VMContext { magic "core", store_context } ──▶ VMStoreContext { last_wasm_*, … }
//! ```
//!
//! These offsets come from `wasmtime-environ` of the very version of Wasmtime that runs the guest. The list of
//! activations (see `flamewalk_handler::activation`) is private to Wasmtime and laid out as the compiler likes. Its words
//! are found by what they hold, see [`search`].

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

use flamewalk_handler::activation::{self, ActivationLayout, Activations, ExitStateLayout};
use wasmtime::{AsContextMut, Engine, Func};
use wasmtime_environ::{HostPtr, PtrSize, VMCONTEXT_MAGIC};

use crate::error::Error;

mod search;

/// The list in this process: its layout is that of the build.
static LIST: OnceLock<ActivationList> = OnceLock::new();

const WORD: usize = size_of::<usize>();
/// Wasmtime's mark in the thread-local word that the thread is ready for traps.
const INITIALIZED: usize = 1;

/// Where a thread's list of activations begins, and how it is read.
#[derive(Debug)]
pub(crate) struct ActivationList {
    /// The loader's number of the object that has the thread-local word, and the offset of the word in its block.
    object: usize,
    offset: usize,
    layout: ActivationLayout,
}

impl ActivationList {
    /// The list in this process, which [`ActivationList::find`] has found.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] before that.
    pub(crate) fn of_process() -> Result<&'static Self, Error> {
        LIST.get().ok_or_else(|| Error::Unexpected { what: "no engine was checked yet".to_owned() })
    }

    /// Finds the list with guests of `engine`, if it was not found before. To be called on a thread on which no guest
    /// runs.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] if it cannot be told; [`Error::Store`] if the guests could not be run.
    pub(crate) fn find(engine: &Engine) -> Result<&'static Self, Error> {
        if let Some(list) = LIST.get() {
            return Ok(list);
        }
        let found = search::find(engine)?;
        Ok(LIST.get_or_init(|| found))
    }

    /// The address of the calling thread's word. It stays for as long as the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] if the thread has none, which can be only if Wasmtime was unloaded.
    pub(crate) fn word_of_this_thread(&self) -> Result<usize, Error> {
        let block = thread_local_blocks().into_iter().find(|block| block.object == self.object);
        let word = block.and_then(|block| block.words().nth(self.offset / WORD));
        word.ok_or_else(|| Error::Unexpected { what: "a thread has no list of activations".to_owned() })
    }

    /// The youngest activation by the value of the word.
    const fn youngest(word: usize) -> usize {
        word & !INITIALIZED
    }

    /// The addresses of the calling thread's youngest activation and of the next older one; 0 for none. `word` is the
    /// address of its word.
    ///
    /// # Safety
    ///
    /// As for [`ActivationList::activations`].
    pub(crate) unsafe fn two_youngest(&self, word: usize) -> [usize; 2] {
        // SAFETY: the caller's promise: the word stays for as long as the thread.
        let youngest = Self::youngest(unsafe { ptr::with_exposed_provenance::<usize>(word).read_volatile() });
        // SAFETY: what the thread's list begins with.
        [youngest, unsafe { activation::older(youngest, &self.layout) }]
    }

    /// The activations of the calling thread, youngest first. `word` is the address of its word.
    ///
    /// # Safety
    ///
    /// `word` must be from [`ActivationList::word_of_this_thread`] on this thread, and the thread must not enter or leave a
    /// guest while the result is used.
    pub(crate) unsafe fn activations(&self, word: usize) -> Activations<'_> {
        // SAFETY: the caller's promise: the word stays for as long as the thread.
        let value = unsafe { ptr::with_exposed_provenance::<usize>(word).read_volatile() };
        // SAFETY: what the thread's list begins with, whose layout was found.
        unsafe { Activations::new(Self::youngest(value), &self.layout) }
    }
}

/// The address of the context of the store that `func`, a function of an instance in that store, belongs to.
pub(crate) fn store_context(mut store: impl AsContextMut, func: &Func) -> Result<usize, Error> {
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
    Ok(context.expose_provenance())
}

/// The lowest address that a guest of the store may use now, and, on a fiber that has a guard, that of the whole stack.
///
/// # Safety
///
/// `context` must be the context of a store that is live.
pub(crate) unsafe fn stack_limit(context: usize) -> (usize, Option<usize>) {
    let layout = known_layout();
    // SAFETY: the caller's promise, and offsets of this version of Wasmtime.
    let word = |offset| unsafe { ptr::with_exposed_provenance::<usize>(context + offset).read_volatile() };
    let guard = word(layout.guard).max(word(layout.guard + WORD));
    (word(layout.stack_limit), (guard != 0).then_some(guard))
}

/// The address of the two words that hold the guard of the fiber that the store with this context runs on; both are 0
/// while it runs on none, which is also the case while its guest is suspended.
pub(crate) fn guard_address(context: usize) -> usize {
    context.wrapping_add(known_layout().guard)
}

/// The layout as far as `wasmtime-environ` tells it.
fn known_layout() -> ActivationLayout {
    let store = HostPtr.vm_store_context();
    ActivationLayout {
        current: ExitStateLayout {
            exit_fp: store.last_wasm_exit_trampoline_fp().into(),
            exit_pc: store.last_wasm_exit_pc().into(),
            entry_fp: store.last_wasm_entry_fp().into(),
        },
        // A `Range` of pointers: whichever order the compiler gives the two, the larger one is the end.
        guard: store.async_guard_range().into(),
        stack_limit: store.stack_limit().into(),
        // The stack chain is a tag and, when a guest runs, the address of a local of the frame that has entered it.
        entering_frame: usize::from(store.stack_chain()) + WORD,
        ..ActivationLayout::default()
    }
}

/// The words of one loaded object that belong to the calling thread.
struct Block {
    object: usize,
    addresses: Range<usize>,
}

impl Block {
    /// The addresses of the words.
    fn words(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.addresses.start.next_multiple_of(WORD);
        (first..self.addresses.end.saturating_sub(WORD - 1)).step_by(WORD)
    }
}

/// The thread-local blocks of the calling thread.
fn thread_local_blocks() -> Vec<Block> {
    /// # Safety
    ///
    /// For `dl_iterate_phdr` only, with a vector of blocks as its `data`.
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the caller's promise; the loader keeps the headers until this returns.
        let (info, blocks) = unsafe { (&*info, &mut *data.cast::<Vec<Block>>()) };
        // SAFETY: as above.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let segment = headers.iter().find(|header| header.p_type == libc::PT_TLS);
        if let Some(segment) = segment
            && !info.dlpi_tls_data.is_null()
        {
            let start = info.dlpi_tls_data.expose_provenance();
            let addresses = start..start.saturating_add(segment.p_memsz as usize);
            blocks.push(Block { object: info.dlpi_tls_modid, addresses });
        }
        0
    }
    let mut blocks = Vec::<Block>::new();
    // SAFETY: `visit` is called with what it expects, and only until this returns.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut blocks).cast()) };
    blocks
}

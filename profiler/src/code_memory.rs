//! Finding guests' code without registering it: Wasmtime tells when it makes code executable, and when it stops.
//!
//! ```text
//!   Module::new, deserialize ──▶ publish_executable ──▶ LOADED ──▶ registry of the profiler, if there is one
//!   last use of the module  ──▶ unpublish_executable ─▶ retired, before the memory goes
//!   Profiler::new ─────────────────────────────────▶ registers all of LOADED
//! ```
//!
//! What is loaded is noted whether there is a profiler or not, since one may come later: an entry in a map. Images are
//! looked for and read only when there is one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_symbolizer::registry::{CodeRegistry, ImageId, RegisterError};
use flamewalk_symbolizer::{CodeImage, Symbolizer, find_image};
use nix::errno::Errno;
use nix::sys::mman::{ProtFlags, mprotect};
use wasmtime::CustomCodeMemory;

use crate::error::Error;
use crate::fork::Process;

/// Lets the profiler find the code of an engine's modules and components by itself, also of those that are
/// deserialized, and lets go of it when they are dropped.
///
/// ```
/// use std::sync::Arc;
/// use flamewalk::ProfiledCodeMemory;
/// use wasmtime::{Config, Engine};
///
/// let mut config = Config::new();
/// config.with_custom_code_memory(Some(Arc::new(ProfiledCodeMemory::new())));
/// let engine = Engine::new(&config)?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
///
/// Engines may be made before or after the profiler, and outlive it. A guest that is found so is known by its own name
/// and functions; [`Profiler::register_module`](crate::Profiler::register_module) adds what only the embedder knows.
#[derive(Clone, Default)]
pub struct ProfiledCodeMemory {
    inner: Option<Arc<dyn CustomCodeMemory>>,
}

impl ProfiledCodeMemory {
    /// Makes code executable as Wasmtime does by itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `inner`, an embedder's own, make code executable.
    pub fn around(inner: Arc<dyn CustomCodeMemory>) -> Self {
        Self { inner: Some(inner) }
    }
}

impl std::fmt::Debug for ProfiledCodeMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ProfiledCodeMemory").field("is_around", &self.inner.is_some()).finish()
    }
}

impl CustomCodeMemory for ProfiledCodeMemory {
    fn required_alignment(&self) -> usize {
        self.inner.as_ref().map_or_else(page_size, |inner| inner.required_alignment())
    }

    fn publish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        let text = start.addr()..start.addr().saturating_add(length);
        match &self.inner {
            Some(inner) => inner.publish_executable(start, length)?,
            None => make_executable(start, &text)?,
        }
        publish(text);
        Ok(())
    }

    fn unpublish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        // First: the memory may be gone when this returns, and no handler must look at it then.
        loaded().unpublish(start.addr());
        match &self.inner {
            Some(inner) => inner.unpublish_executable(start, length),
            None if length == 0 => Ok(()),
            None => protect(start, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE),
        }
    }
}

/// All code of engines that have a [`ProfiledCodeMemory`], and who has to know of it.
static LOADED: Mutex<Loaded> =
    Mutex::new(Loaded { code: BTreeMap::new(), registry: None, process: None, found: 0 });

/// Locked before the registry, and never while Wasmtime is called.
fn loaded() -> MutexGuard<'static, Loaded> {
    // Every change is a single insertion or store, so that a panic elsewhere does not matter.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.process.is_some_and(|process| !process.is_current()) {
        // The parent's profiler, whose threads will never leave the registry here.
        std::mem::forget(loaded.registry.take());
        loaded.process = None;
        loaded.code.values_mut().for_each(|code| (code.id, code.is_described) = (None, false));
    }
    loaded
}

struct Loaded {
    /// By the start of the text.
    code: BTreeMap<usize, Code>,
    /// That of the profiler.
    registry: Option<Arc<CodeRegistry>>,
    /// Where that was made.
    process: Option<Process>,
    /// How many images were registered here, to call them by a number.
    found: u64,
}

struct Code {
    end: usize,
    /// In the profiler's registry.
    id: Option<ImageId>,
    /// Whether the embedder has said what it is.
    is_described: bool,
}

/// Notes code that has just become executable.
fn publish(text: Range<usize>) {
    let has_profiler = loaded().registry.is_some();
    // Read without the lock, so that modules can be loaded side by side: this one does not go before it is published.
    let image = has_profiler.then(|| read_image(&text));
    let mut loaded = loaded();
    let id = loaded.register(&text, image);
    loaded.code.insert(text.start, Code { end: text.end, id, is_described: false });
}

impl Loaded {
    fn unpublish(&mut self, start: usize) {
        if let (Some(Code { id: Some(id), .. }), Some(registry)) = (self.code.remove(&start), &self.registry)
        {
            registry.retire(id);
        }
    }

    /// Registers code that is mapped with its image; `image` is what was read there, if it was read already.
    fn register(
        &mut self,
        text: &Range<usize>,
        image: Option<Result<Arc<CodeImage>, Error>>,
    ) -> Option<ImageId> {
        let registry = self.registry.as_ref()?;
        self.found += 1;
        let registered = image.unwrap_or_else(|| read_image(text)).and_then(|image| {
            let symbolizer = Symbolizer::of_unknown(Arc::clone(&image), format!("guest {}", self.found));
            Ok(registry.register(text.start, &image, symbolizer)?)
        });
        registered
            .inspect_err(|error| {
                tracing::warn!("samples in the code at {text:x?} will be lost as unknown code: {error}");
            })
            .ok()
    }
}

/// Registers all code that is loaded, and from now on all that is, with a new profiler.
pub(crate) fn begin(registry: &Arc<CodeRegistry>) {
    let mut loaded = loaded();
    loaded.registry = Some(Arc::clone(registry));
    loaded.process = Some(Process::current());
    let texts: Vec<_> = loaded.code.iter().map(|(start, code)| *start..code.end).collect();
    for text in texts {
        let id = loaded.register(&text, None);
        if let Some(code) = loaded.code.get_mut(&text.start) {
            code.id = id;
        }
    }
}

/// The profiler goes.
pub(crate) fn end() {
    let mut loaded = loaded();
    let Some(registry) = loaded.registry.take() else { return };
    for code in loaded.code.values_mut() {
        code.is_described = false;
        if let Some(id) = code.id.take() {
            registry.retire(id);
        }
    }
}

/// Tells what the code at `text_start` is, if it is registered here.
///
/// # Errors
///
/// [`Error::Register`] if that was told before, and what `describe` returns.
pub(crate) fn describe(
    text_start: usize,
    describe: impl FnOnce(&mut Symbolizer) -> Result<(), Error>,
) -> Result<Option<ImageId>, Error> {
    let mut loaded = loaded();
    let Loaded { code, registry, .. } = &mut *loaded;
    let Some((id, registry, code)) =
        code.get_mut(&text_start).and_then(|code| Some((code.id?, registry.as_ref()?, code)))
    else {
        return Ok(None);
    };
    if code.is_described {
        let text = text_start..code.end;
        return Err(RegisterError::Overlap { existing: text.clone(), text }.into());
    }
    registry.with_symbolizer(id, describe).transpose()?;
    code.is_described = true;
    Ok(Some(id))
}

/// Reads the image around a text that was published and not unpublished.
fn read_image(text: &Range<usize>) -> Result<Arc<CodeImage>, Error> {
    // SAFETY: the text is published, and stays so while this runs: either this is its publishing, or the lock is held
    // that its unpublishing needs.
    let bytes = unsafe { image_bytes(text) }.ok_or(Error::NoImage { text: text.clone() })?;
    Ok(Arc::new(CodeImage::parse(bytes)?))
}

/// The image around a text.
///
/// # Safety
///
/// The text must be that of an image that Wasmtime has loaded and is not going to change or unmap while the result is
/// used.
unsafe fn image_bytes<'a>(text: &Range<usize>) -> Option<&'a [u8]> {
    let range = find_image(text, page_size(), read_memory)?;
    let start = std::ptr::with_exposed_provenance::<u8>(range.start);
    // SAFETY: the range holds the text and what the headers of the image around it speak of. Wasmtime has found the
    // text by these headers, and has checked that all of it lies in the mapping of the image, which is read-only.
    Some(unsafe { std::slice::from_raw_parts(start, range.len()) })
}

/// Reads memory of this process that may not be there.
fn read_memory(address: usize, buffer: &mut [u8]) -> bool {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: buffer.len() };
    // SAFETY: the kernel writes to the buffer only, and refuses to read what is not mapped and readable.
    let read =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read) == Ok(buffer.len())
}

fn page_size() -> usize {
    // SAFETY: no memory is involved.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// As Wasmtime does it: the instruction cache first, then the pages, then what processors have fetched already.
fn make_executable(start: *const u8, text: &Range<usize>) -> wasmtime::Result<()> {
    let flags = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC | branch_protection(text);
    // SAFETY: the text is mapped, as the caller was told.
    unsafe { wasmtime_internal_jit_icache_coherence::clear_cache(start.cast(), text.len())? };
    protect(start, text.len(), flags)?;
    Ok(wasmtime_internal_jit_icache_coherence::pipeline_flush_mt()?)
}

fn protect(start: *const u8, length: usize, flags: ProtFlags) -> wasmtime::Result<()> {
    let Some(start) = std::ptr::NonNull::new(start.cast_mut().cast()) else {
        return Err(Errno::EFAULT.into());
    };
    // SAFETY: the text of an image that nobody uses yet, or any more; Wasmtime asks for just this.
    unsafe { mprotect(start, length, flags) }?;
    Ok(())
}

/// Pages of code that was compiled with landing pads are marked so on processors that then insist on them.
#[cfg(target_arch = "aarch64")]
fn branch_protection(text: &Range<usize>) -> ProtFlags {
    /// `PROT_BTI`
    const BTI: i32 = 0x10;
    // SAFETY: the text is about to be published, by this thread.
    let has_landing_pads = || unsafe { image_bytes(text) }.is_some_and(CodeImage::has_branch_protection);
    if std::arch::is_aarch64_feature_detected!("bti") && has_landing_pads() {
        return ProtFlags::from_bits_retain(BTI);
    }
    ProtFlags::empty()
}

#[cfg(not(target_arch = "aarch64"))]
fn branch_protection(_text: &Range<usize>) -> ProtFlags {
    ProtFlags::empty()
}

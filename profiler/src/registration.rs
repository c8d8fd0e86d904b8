//! Making the code of guests known, and what is known of it besides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use flamewalk_symbolizer::{CodeImage, GuestBinary, Symbolizer};
use wasmtime::Module;
use wasmtime::component::Component;

use crate::code_memory;
use crate::error::Error;
use crate::fork::Process;

/// What is known of a guest besides its compiled code.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Guest {
    /// What the guest is called in profiles that hold several.
    pub name: String,
    /// The WebAssembly binary that was compiled: the source of lines and of the names of host calls.
    pub binary: Option<Arc<[u8]>>,
    /// A binary with the same code and more symbols, for a guest that was stripped.
    pub symbols: Option<Arc<[u8]>>,
}

impl Guest {
    /// A guest with its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds the binary that was compiled.
    pub fn binary(self, binary: impl Into<Arc<[u8]>>) -> Self {
        Self { binary: Some(binary.into()), ..self }
    }

    /// Adds a binary with the same code and more symbols.
    pub fn symbols(self, symbols: impl Into<Arc<[u8]>>) -> Self {
        Self { symbols: Some(symbols.into()), ..self }
    }
}

/// Keeps the code of a registered guest in memory.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

impl Code {
    fn text_start(&self) -> usize {
        match self {
            Self::Module(module) => module.text().as_ptr().addr(),
            Self::Component(component) => component.text().as_ptr().addr(),
        }
    }

    fn image(&self) -> &[u8] {
        let range = match self {
            Self::Module(module) => module.image_range(),
            Self::Component(component) => component.image_range(),
        };
        // SAFETY: the module or component keeps its image mapped, and is borrowed meanwhile.
        unsafe { image_bytes(range) }
    }
}

/// The code that one profiler keeps in memory, so that its addresses are not used for anything else meanwhile.
#[derive(Debug)]
pub(crate) struct KeptCode {
    registry: Arc<CodeRegistry>,
    /// Where this was made.
    process: Process,
    code: Mutex<HashMap<ImageId, Code>>,
}

impl KeptCode {
    pub(crate) fn new(registry: Arc<CodeRegistry>) -> Self {
        Self { registry, process: Process::current(), code: Mutex::default() }
    }

    /// Registers code, or tells what it is if it was found by itself.
    pub(crate) fn register(self: &Arc<Self>, code: Code, guest: Guest) -> Result<Registration, Error> {
        if !self.process.is_current() {
            return Err(Error::Forked);
        }
        let text = code.text_start();
        let binary = guest.binary.map(GuestBinary::from);
        let symbols = guest.symbols.map(GuestBinary::from);
        let (name, described_binary, described_symbols) =
            (guest.name.clone(), binary.clone(), symbols.clone());
        let found = code_memory::describe(text, |symbolizer| {
            symbolizer.describe(name, described_binary, described_symbols).map_err(Error::Symbols)
        })?;
        if found.is_some() {
            return Ok(Registration { kept: None });
        }
        let image = Arc::new(CodeImage::parse(code.image())?);
        let symbolizer =
            Symbolizer::new(Arc::clone(&image), guest.name, binary, symbols).map_err(Error::Symbols)?;
        let id = self.registry.register(text, &image, symbolizer)?;
        self.code.lock().unwrap_or_else(PoisonError::into_inner).insert(id, code);
        Ok(Registration { kept: Some((Arc::clone(self), id)) })
    }

    fn forget(&self, id: ImageId) {
        if !self.process.is_current() {
            // Threads that this process does not have will never leave the registry here.
            return;
        }
        self.registry.retire(id);
        let code = self.code.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        // Only now, and without the lock: this may unmap the code.
        drop(code);
    }

    /// Lets go of all code: the profiler goes.
    pub(crate) fn forget_all(&self) {
        let code = std::mem::take(&mut *self.code.lock().unwrap_or_else(PoisonError::into_inner));
        code.keys().for_each(|id| self.registry.retire(*id));
    }
}

/// A guest that is registered. It stays so, and its module or component in memory, for as long as the profiler or until
/// [`Registration::end`].
///
/// Of an engine with a [`ProfiledCodeMemory`](crate::ProfiledCodeMemory), nothing is kept in memory: a guest is known
/// until it is dropped.
#[derive(Debug)]
pub struct Registration {
    /// `None` if nothing is kept.
    kept: Option<(Arc<KeptCode>, ImageId)>,
}

impl Registration {
    /// Lets go of the module or component. Samples that were taken before keep their names; the guest must not run any
    /// more, since frames in code that is not registered cannot be shown.
    pub fn end(self) {
        if let Some((kept, id)) = self.kept {
            kept.forget(id);
        }
    }
}

/// # Safety
///
/// The range must be mapped for as long as the result is used.
pub(crate) unsafe fn image_bytes<'a>(range: std::ops::Range<*const u8>) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(range.start, range.end.addr() - range.start.addr()) }
}

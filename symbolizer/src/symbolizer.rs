//! From addresses to frames.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::guest::{Guest, GuestName, Place};
use crate::image::CodeImage;
use crate::module::ModuleSymbols;
use crate::symbol::Symbol;
use crate::{CodeAddress, Error, GuestBinary, HostCall, Notice, SourceLocation, SymbolFrame, host_call};

/// How many addresses' frames are kept. A profile of a long run of a large guest has some tens of thousands of
/// distinct addresses; when there are more, all are forgotten and found again.
const MOST_CACHED: usize = 1 << 16;

/// Turns text offsets of one image into the frames of its guest.
///
/// Cheap to make: the image's metadata, the binaries and their DWARF are read when the first address asks for
/// them, each part only as far as needed.
pub struct Symbolizer {
    image: Arc<CodeImage>,
    name: GuestName,
    binary: Option<GuestBinary>,
    symbols: Option<GuestBinary>,
    guest: Option<Guest>,
    /// Where in `frames` those of each address are that was asked for.
    known: HashMap<u32, Range<usize>>,
    frames: Vec<SymbolFrame>,
    notices: Vec<Notice>,
}

impl Symbolizer {
    /// A symbolizer for `image`, whose module or component a user knows by `name`.
    ///
    /// `binary` is what the image was compiled from. Without it there are no source lines, unless the image
    /// was compiled with `wasm_backtrace_details`, and imports are less often named.
    ///
    /// `symbols` is a binary with the same code that has names and DWARF when the one that runs was stripped.
    ///
    /// # Errors
    ///
    /// If the code of `symbols` is not that of `binary`, see [`GuestBinary::check_same_code`]. A binary that
    /// the image was not compiled from is found out only later, and ignored with a [`Notice`].
    pub fn new(
        image: impl Into<Arc<CodeImage>>,
        name: impl Into<Arc<str>>,
        binary: Option<GuestBinary>,
        symbols: Option<GuestBinary>,
    ) -> Result<Symbolizer, Error> {
        if let (Some(symbols), Some(binary)) = (&symbols, &binary) {
            symbols.check_same_code(binary)?;
        }
        Ok(Self::with(image.into(), GuestName { text: name.into(), is_makeshift: false }, binary, symbols))
    }

    /// A symbolizer for an image of which nothing else is known. It is known by its own name, by `makeshift` if it has
    /// none.
    pub fn of_unknown(image: impl Into<Arc<CodeImage>>, makeshift: impl Into<Arc<str>>) -> Symbolizer {
        let name = GuestName { text: makeshift.into(), is_makeshift: true };
        Self::with(image.into(), name, None, None)
    }

    fn with(
        image: Arc<CodeImage>,
        name: GuestName,
        binary: Option<GuestBinary>,
        symbols: Option<GuestBinary>,
    ) -> Symbolizer {
        Symbolizer {
            image,
            name,
            binary,
            symbols,
            guest: None,
            known: HashMap::new(),
            frames: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Goes on as a symbolizer that was made with [`Symbolizer::new`] for the same image.
    ///
    /// # Errors
    ///
    /// As for [`Symbolizer::new`]; nothing changes then.
    pub fn describe(
        &mut self,
        name: impl Into<Arc<str>>,
        binary: Option<GuestBinary>,
        symbols: Option<GuestBinary>,
    ) -> Result<(), Error> {
        *self = Self::new(Arc::clone(&self.image), name, binary, symbols)?;
        Ok(())
    }

    /// The image that addresses are looked up in.
    pub fn image(&self) -> &CodeImage {
        &self.image
    }

    /// What to tell the user about this guest's symbols, each thing once, in the order in which it turned up.
    /// Complete for the addresses looked up so far.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The frames at an address, innermost inlined function first; the last one is the function whose code
    /// runs. Empty if the address is in no function of the guest.
    pub fn frames(&mut self, address: CodeAddress) -> &[SymbolFrame] {
        let offset = address.offset_for_lookup();
        if let Some(known) = self.known.get(&offset) {
            return &self.frames[known.clone()];
        }
        if self.known.len() >= MOST_CACHED {
            self.known.clear();
            self.frames.clear();
        }
        let start = self.frames.len();
        self.find_frames(offset);
        self.known.insert(offset, start..self.frames.len());
        &self.frames[start..]
    }

    /// A hash of the body of a frame's function that a rebuild of the guest does not change; `None` without the guest's
    /// binary, and for a function without an index.
    ///
    /// It is found out only for functions that it is asked of, since that takes a third of what all the rest takes.
    pub fn body_hash(&mut self, frame: &SymbolFrame) -> Option<u64> {
        let guest =
            load(&self.image, &self.name, &self.binary, &self.symbols, &mut self.guest, &mut self.notices);
        guest.modules.get_mut(frame.module_index? as usize)?.body_hash(frame.function_index?)
    }

    /// What the guest called, by the address that the call returns to in the guest's code and, if the thread
    /// was in one or the stack shows one, an address in the trampoline that it went through; both text offsets.
    pub fn host_call(&mut self, return_address: u32, trampoline: Option<u32>) -> HostCall {
        let guest =
            load(&self.image, &self.name, &self.binary, &self.symbols, &mut self.guest, &mut self.notices);
        host_call::find(&self.image, guest, return_address, trampoline)
    }

    /// Appends an address's frames to those that are kept.
    fn find_frames(&mut self, offset: u32) {
        let guest =
            load(&self.image, &self.name, &self.binary, &self.symbols, &mut self.guest, &mut self.notices);
        let Some((code, symbol)) = self.image.find(offset) else { return };
        match symbol {
            Symbol::Function { module, function } => {
                let bytecode_offset = self.image.address_map.find_nearest(code, offset);
                function_frames(guest, *module, *function, bytecode_offset, &mut self.frames);
                guest.take_damage(&mut self.notices);
            }
            Symbol::ModuleStart { module } => {
                let module = guest.modules.get(*module as usize);
                let module = module.map_or_else(|| self.name.text.clone(), |module| module.name.clone());
                self.frames.push(runtime_frame(module, "(module start)".into()));
            }
            Symbol::UnsafeIntrinsic { name } => {
                let name = format!("(unsafe intrinsic) {name}").into();
                self.frames.push(runtime_frame(self.name.text.clone(), name));
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Symbolizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Symbolizer").field("name", &self.name.text).finish_non_exhaustive()
    }
}

/// Reads the guest if it has not been read yet. A function, so that the image stays free to be looked at.
fn load<'guest>(
    image: &CodeImage,
    name: &GuestName,
    binary: &Option<GuestBinary>,
    symbols: &Option<GuestBinary>,
    guest: &'guest mut Option<Guest>,
    notices: &mut Vec<Notice>,
) -> &'guest mut Guest {
    guest.get_or_insert_with(|| Guest::new(image, name, binary.as_ref(), symbols.as_ref(), notices))
}

/// Code that Wasmtime adds to the guest's.
fn runtime_frame(module: Arc<str>, name: Arc<str>) -> SymbolFrame {
    SymbolFrame {
        name,
        module,
        module_index: None,
        location: None,
        function_index: None,
        bytecode_offset: None,
        inlined: false,
    }
}

/// Appends the frames of an instruction that comes from `bytecode_offset`, in the code of a function.
fn function_frames(
    guest: &mut Guest,
    module: u32,
    function: u32,
    bytecode_offset: Option<u32>,
    frames: &mut Vec<SymbolFrame>,
) {
    let start = frames.len();
    let place = bytecode_offset.and_then(|offset| guest.find(module, function, offset));
    if let Some(place) = place {
        place_frames(guest, place, bytecode_offset, frames);
    }
    if place.is_some_and(|place| (place.module, place.function) == (module, function)) {
        return;
    }
    // Wasmtime inlined the instruction's function here, through functions that nothing tells.
    for frame in &mut frames[start..] {
        frame.inlined = true;
    }
    let Some(symbols) = guest.modules.get_mut(module as usize) else { return };
    // Or no instruction comes first: this is the prologue, which belongs to the line that opens the function.
    let opening = if place.is_none() { symbols.opening(function) } else { None };
    frames.push(function_frame(
        symbols,
        (module, function),
        opening,
        bytecode_offset.filter(|_| place.is_none()),
    ));
}

/// Appends the frames of a place in the bytecode: the functions that the guest's compiler inlined, then the function.
fn place_frames(
    guest: &mut Guest,
    place: Place,
    bytecode_offset: Option<u32>,
    frames: &mut Vec<SymbolFrame>,
) {
    let Some(symbols) = guest.modules.get_mut(place.module as usize) else { return };
    let module = symbols.name.clone();
    let inlined = |name, location| {
        frames.push(SymbolFrame {
            name,
            module: module.clone(),
            location,
            module_index: None,
            function_index: None,
            bytecode_offset,
            inlined: true,
        });
    };
    let location = symbols.inlined_frames(place.function, place.code_offset, inlined);
    frames.push(function_frame(symbols, (place.module, place.function), location, bytecode_offset));
}

/// The frame of a function that runs, or that Wasmtime inlined.
fn function_frame(
    symbols: &mut ModuleSymbols,
    (module, function): (u32, u32),
    location: Option<SourceLocation>,
    bytecode_offset: Option<u32>,
) -> SymbolFrame {
    SymbolFrame {
        name: symbols.function_name(function),
        module: symbols.name.clone(),
        module_index: Some(module),
        location,
        function_index: Some(function),
        bytecode_offset,
        inlined: false,
    }
}

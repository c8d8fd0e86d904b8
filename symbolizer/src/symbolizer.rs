//! From addresses to frames.

use std::collections::HashMap;
use std::sync::Arc;

use crate::guest::{Guest, GuestName, Place};
use crate::image::CodeImage;
use crate::symbol::Symbol;
use crate::{CodeAddress, Error, GuestBinary, HostCall, Notice, SymbolFrame, host_call};

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
    frames: HashMap<u32, Vec<SymbolFrame>>,
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
        Symbolizer { image, name, binary, symbols, guest: None, frames: HashMap::new(), notices: Vec::new() }
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
    pub fn frames(&mut self, address: CodeAddress) -> Vec<SymbolFrame> {
        let offset = address.offset_for_lookup();
        if let Some(known) = self.frames.get(&offset) {
            return known.clone();
        }
        let frames = self.find_frames(offset);
        if self.frames.len() >= MOST_CACHED {
            self.frames.clear();
        }
        self.frames.insert(offset, frames.clone());
        frames
    }

    /// What the guest called, by the address that the call returns to in the guest's code and, if the thread
    /// was in one or the stack shows one, an address in the trampoline that it went through; both text offsets.
    pub fn host_call(&mut self, return_address: u32, trampoline: Option<u32>) -> HostCall {
        let guest =
            load(&self.image, &self.name, &self.binary, &self.symbols, &mut self.guest, &mut self.notices);
        host_call::find(&self.image, guest, return_address, trampoline)
    }

    fn find_frames(&mut self, offset: u32) -> Vec<SymbolFrame> {
        let guest =
            load(&self.image, &self.name, &self.binary, &self.symbols, &mut self.guest, &mut self.notices);
        let Some((code, symbol)) = self.image.find(offset) else { return Vec::new() };
        match symbol {
            Symbol::Function { module, function } => {
                let bytecode_offset = self.image.address_map.find_nearest(code, offset);
                let frames = function_frames(guest, *module, *function, bytecode_offset);
                guest.take_damage(&mut self.notices);
                frames
            }
            Symbol::ModuleStart { module } => {
                let module = guest.modules.get(*module as usize);
                let module = module.map_or_else(|| self.name.text.clone(), |module| module.name.clone());
                vec![runtime_frame(module, "(module start)".into())]
            }
            Symbol::UnsafeIntrinsic { name } => {
                vec![runtime_frame(self.name.text.clone(), format!("(unsafe intrinsic) {name}").into())]
            }
            _ => Vec::new(),
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
        location: None,
        function_index: None,
        bytecode_offset: None,
        body_hash: None,
        inlined: false,
    }
}

/// The frames of an instruction that comes from `bytecode_offset`, in the code of a function.
fn function_frames(
    guest: &mut Guest,
    module: u32,
    function: u32,
    bytecode_offset: Option<u32>,
) -> Vec<SymbolFrame> {
    let place = bytecode_offset.and_then(|offset| guest.find(module, function, offset));
    let mut frames = match place {
        Some(place) => place_frames(guest, place, bytecode_offset),
        None => Vec::new(),
    };
    if place.is_some_and(|place| (place.module, place.function) == (module, function)) {
        return frames;
    }
    // Wasmtime inlined the instruction's function here, through functions that nothing tells.
    for frame in &mut frames {
        frame.inlined = true;
    }
    let Some(symbols) = guest.modules.get_mut(module as usize) else { return frames };
    // Or no instruction comes first: this is the prologue, which belongs to the line that opens the function.
    let opening = if place.is_none() { symbols.opening(function) } else { None };
    frames.push(SymbolFrame {
        name: symbols.function_name(function),
        module: symbols.name.clone(),
        location: opening,
        function_index: Some(function),
        bytecode_offset: bytecode_offset.filter(|_| place.is_none()),
        body_hash: symbols.body_hash(function),
        inlined: false,
    });
    frames
}

/// The frames of a place in the bytecode: the functions that the guest's compiler inlined, then the function.
fn place_frames(guest: &mut Guest, place: Place, bytecode_offset: Option<u32>) -> Vec<SymbolFrame> {
    let Some(symbols) = guest.modules.get_mut(place.module as usize) else { return Vec::new() };
    let module = symbols.name.clone();
    let mut dwarf_frames = symbols.dwarf_frames(place.body, place.code_offset);
    let function_location = dwarf_frames.pop().and_then(|frame| frame.location);
    let inlined = dwarf_frames.into_iter().map(|frame| SymbolFrame {
        name: frame.name.map_or_else(|| "(inlined)".into(), |name| name.shown()),
        module: module.clone(),
        location: frame.location,
        function_index: None,
        bytecode_offset,
        body_hash: None,
        inlined: true,
    });
    let mut frames: Vec<SymbolFrame> = inlined.collect();
    frames.push(SymbolFrame {
        name: symbols.function_name(place.function),
        module,
        location: function_location,
        function_index: Some(place.function),
        bytecode_offset,
        body_hash: symbols.body_hash(place.function),
        inlined: false,
    });
    frames
}

//! One compiled image: what of Wasmtime's ELF file the symbolizer needs, copied out of it.
//!
//! The copy owns no part of the module or component that it was made from, so that a profile never keeps a
//! guest alive. Parsing reads the symbol table and scans `.text` for calls of trampolines once; everything else
//! is copied as it is and decoded when the first address asks for it.

use std::ops::Range;
use std::sync::Arc;

use flamewalk_handler::code::{CodeKind, Function, UNKNOWN_FRAME_SIZE};
use object::read::elf::{ElfFile64, ElfSection64};
use object::{Architecture as ElfArchitecture, FileFlags, Object, ObjectSection, ObjectSymbol, SymbolKind};
use wasmtime_environ::obj;

use crate::address_map::AddressMap;
use crate::foreign::{ForeignNames, NamedSymbol};
use crate::guest::DefinedFunctions;
use crate::info::ImageInfo;
use crate::machine::{Architecture, DirectCall};
use crate::symbol::Symbol;
use crate::{Error, GuestBinary};

/// Owned description of one compiled image: a `.cwasm` file, or the memory of `Module::image_range()`.
#[derive(Debug)]
pub struct CodeImage {
    text: Range<usize>,
    functions: Vec<Function>,
    /// Where each of them starts: a search stays within fewer cache lines than in `functions`.
    starts: Box<[u32]>,
    /// Parallel to `functions`.
    symbols: Vec<Symbol>,
    /// The direct calls of trampolines, by return address.
    trampoline_calls: Vec<DirectCall>,
    pub(crate) address_map: AddressMap,
    pub(crate) is_component: bool,
    /// The version of Wasmtime that compiled it, if it says so.
    version: Option<Box<str>>,
    /// The names of its functions, if that is another version than the one whose types are known here.
    pub(crate) foreign: Option<ForeignNames>,
    /// `.wasmtime.info`, still encoded.
    pub(crate) info: Box<[u8]>,
    /// `.name.wasm`, which `info` points into.
    pub(crate) names: Arc<[u8]>,
    /// `.wasmtime.dwarf`, which `info` points into; empty unless the image has it and it was asked for.
    pub(crate) dwarf: Arc<[u8]>,
}

impl CodeImage {
    /// What is in the ELF header of Wasmtime's images, and of no other file, in place of an operating system's number.
    pub const OS_ABI: u8 = obj::ELFOSABI_WASMTIME;

    /// Reads an image, and copies the guest's DWARF if the image has it.
    ///
    /// An image has DWARF only if it was compiled with `wasm_backtrace_details`.
    ///
    /// # Errors
    ///
    /// If the bytes are not an image of Wasmtime's, have no symbols, or have symbols that are not understood.
    pub fn parse(image: &[u8]) -> Result<CodeImage, Error> {
        Self::parse_with(image, true)
    }

    /// About how much memory its tables take, in bytes.
    pub fn bytes(&self) -> usize {
        let tables = [
            size_of_val(self.functions.as_slice()),
            size_of_val(&*self.starts),
            size_of_val(self.symbols.as_slice()),
            size_of_val(self.trampoline_calls.as_slice()),
            self.address_map.bytes(),
            self.info.len(),
            self.names.len(),
            self.dwarf.len(),
        ];
        tables.iter().sum()
    }

    /// Like [`parse`](Self::parse), without the DWARF: for an image whose guest's binary is at hand.
    ///
    /// # Errors
    ///
    /// The same as of [`parse`](Self::parse).
    pub fn parse_without_dwarf(image: &[u8]) -> Result<CodeImage, Error> {
        Self::parse_with(image, false)
    }

    fn parse_with(image: &[u8], with_dwarf: bool) -> Result<CodeImage, Error> {
        let elf = ElfFile64::<object::Endianness>::parse(image).map_err(Error::NotElf)?;
        let FileFlags::Elf { os_abi, e_flags, .. } = elf.flags() else {
            return Err(Error::NotWasmtime { os_abi: 0 });
        };
        if os_abi != obj::ELFOSABI_WASMTIME {
            return Err(Error::NotWasmtime { os_abi });
        }
        let text_section = elf.section_by_name(".text").ok_or(Error::MissingSection { name: ".text" })?;
        let text = text_section.data().map_err(Error::NotElf)?;
        let start = text_section.file_range().map_or(0, |(start, _)| start);
        let start = usize::try_from(start).map_err(|_| Error::TooLarge { size: image.len() })?;
        if u32::try_from(text.len()).is_err() {
            return Err(Error::TooLarge { size: text.len() });
        }
        let architecture = match elf.architecture() {
            ElfArchitecture::X86_64 => Architecture::X86_64,
            ElfArchitecture::Aarch64 => Architecture::Aarch64,
            _ => Architecture::Other,
        };
        let section = |name| {
            let data = elf.section_by_name(name).and_then(|section| section.data().ok());
            data.unwrap_or_default()
        };
        let version = version(section(obj::ELF_WASM_ENGINE));
        let is_foreign = version.is_some_and(|version| {
            major(version).is_some_and(|found| Some(found) != major(wasmtime_environ::VERSION))
        });
        let mut named = Vec::new();
        let wanted = is_foreign.then_some(&mut named);
        let (functions, symbols) = read_functions(&elf, &text_section, text, architecture, wanted)?;
        let trampoline_calls = find_trampoline_calls(architecture, text, &functions);
        let foreign = is_foreign.then(|| {
            let modules = count_modules(&symbols);
            ForeignNames::read(section(obj::ELF_NAME_DATA), section(obj::ELF_WASMTIME_INFO), modules, named)
        });
        Ok(CodeImage {
            text: start..start + text.len(),
            starts: functions.iter().map(|function| function.start).collect(),
            functions,
            symbols,
            trampoline_calls,
            address_map: AddressMap::new(section(obj::ELF_WASMTIME_ADDRMAP)),
            is_component: e_flags & obj::EF_WASMTIME_COMPONENT != 0,
            version: version.map(Into::into),
            info: if is_foreign { Box::default() } else { section(obj::ELF_WASMTIME_INFO).into() },
            names: match &foreign {
                Some(foreign) => foreign.bytes.clone(),
                None => section(obj::ELF_NAME_DATA).into(),
            },
            foreign,
            dwarf: if with_dwarf { section(obj::ELF_WASMTIME_DWARF).into() } else { Arc::default() },
        })
    }

    /// Whether the code of an image has landing pads for indirect branches, which processors can insist on.
    pub fn has_branch_protection(image: &[u8]) -> bool {
        let elf = ElfFile64::<object::Endianness>::parse(image).ok();
        let section = elf.as_ref().and_then(|elf| elf.section_by_name(obj::ELF_WASM_BTI));
        section.and_then(|section| section.data().ok()).is_some_and(|data| data.iter().any(|byte| *byte != 0))
    }

    /// The version of Wasmtime that compiled the image, as far as it says so: `48`, `36.0.2`. Embedders can have it say
    /// anything else.
    pub fn wasmtime_version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether the image can have been compiled from this binary: it has the same functions, and the first
    /// instructions of nearly all of them come from theirs.
    ///
    /// # Errors
    ///
    /// [`Error::NotTheSource`] with the reason if not; that of the binary if it is none.
    pub fn check_source(&self, binary: &GuestBinary) -> Result<(), Error> {
        let info = ImageInfo::decode(self);
        DefinedFunctions::read(self).check_source(info.as_ref(), binary)
    }

    /// Where `.text` lies, in bytes from the start of the image.
    pub fn text(&self) -> Range<usize> {
        self.text.clone()
    }

    /// Every function and trampoline, sorted by text offset, none overlapping.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function that covers a text offset, and what its symbol says.
    pub(crate) fn find(&self, offset: u32) -> Option<(Function, &Symbol)> {
        let index = self.starts.partition_point(|start| *start <= offset).checked_sub(1)?;
        let function = self.functions[index];
        (offset < function.end()).then(|| (function, &self.symbols[index]))
    }

    /// Every function and trampoline with what its symbol says.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = (Function, &Symbol)> {
        self.functions.iter().copied().zip(&self.symbols)
    }

    /// The trampoline that the call before `return_address` names, if it is a direct call of a trampoline.
    pub(crate) fn called_trampoline(&self, return_address: u32) -> Option<&Symbol> {
        let calls = &self.trampoline_calls;
        let index = calls.binary_search_by_key(&return_address, |call| call.return_address).ok()?;
        self.find(calls[index].target).map(|(_, symbol)| symbol)
    }
}

/// The version in the section that Wasmtime checks before it loads an image: a byte 0, the length, the text.
fn version(engine: &[u8]) -> Option<&str> {
    let [0, length, rest @ ..] = engine else { return None };
    std::str::from_utf8(rest.get(..usize::from(*length))?).ok()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// The core modules that have functions, and those between them.
fn count_modules(symbols: &[Symbol]) -> usize {
    let modules = symbols.iter().filter_map(|symbol| match symbol {
        Symbol::Function { module, .. } => Some(*module as usize),
        _ => None,
    });
    // No module is empty for long; an index beyond all reason is damage.
    modules.filter(|module| *module < symbols.len()).max().map_or(0, |last| last + 1)
}

fn read_functions(
    elf: &ElfFile64<'_>,
    text_section: &ElfSection64<'_, '_>,
    text: &[u8],
    architecture: Architecture,
    mut named: Option<&mut Vec<NamedSymbol>>,
) -> Result<(Vec<Function>, Vec<Symbol>), Error> {
    let mut found = Vec::new();
    for elf_symbol in elf.symbols() {
        let in_text = elf_symbol.section_index() == Some(text_section.index());
        if !in_text || elf_symbol.kind() != SymbolKind::Text {
            continue;
        }
        let name = String::from_utf8_lossy(elf_symbol.name_bytes().map_err(Error::NotElf)?);
        let start = elf_symbol.address().wrapping_sub(text_section.address());
        let end = start.saturating_add(elf_symbol.size());
        let (Ok(start32), Ok(end32), Some(code)) = (
            u32::try_from(start),
            u32::try_from(end),
            usize::try_from(start)
                .ok()
                .zip(usize::try_from(end).ok())
                .and_then(|(start, end)| text.get(start..end)),
        ) else {
            let text_length = text.len() as u64;
            return Err(Error::SymbolOutOfRange { name: name.into(), start, end, text_length });
        };
        let Some(symbol) = Symbol::parse(&name) else {
            return Err(Error::UnknownSymbol { name: name.into() });
        };
        if let (Some(named), Symbol::Function { module, function }) = (&mut named, &symbol)
            && let Some(name) = Symbol::function_name(&name)
        {
            named.push((*module, *function, name.to_owned()));
        }
        let kind = symbol.kind();
        let frame_size = match kind {
            CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline => {
                architecture.frame_size(code).unwrap_or(UNKNOWN_FRAME_SIZE)
            }
            CodeKind::Guest | CodeKind::EntryTrampoline => 0,
        };
        found.push((Function { start: start32, length: end32 - start32, kind, frame_size }, symbol));
    }
    if found.is_empty() && !text.is_empty() {
        return Err(Error::NoSymbols);
    }
    found.sort_by_key(|(function, _)| (function.start, function.length));
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0.end() > pair[1].0.start) {
        return Err(Error::OverlappingSymbols { offset: pair[1].0.start });
    }
    Ok(found.into_iter().unzip())
}

/// The direct calls of anything that leaves the guest: they alone have to be known when a sample is
/// symbolized, and they are few, so that `.text` itself need not be kept.
fn find_trampoline_calls(architecture: Architecture, text: &[u8], functions: &[Function]) -> Vec<DirectCall> {
    let mut targets: Vec<u32> = functions
        .iter()
        .filter(|function| matches!(function.kind, CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline))
        .map(|function| function.start)
        .collect();
    targets.sort_unstable();
    if targets.is_empty() {
        return Vec::new();
    }
    let calls = architecture.direct_calls(text);
    // Ordered by return address already, since the text is read from its start.
    calls.filter(|call| targets.binary_search(&call.target).is_ok()).collect()
}

//! A guest's binary, core module or component, as far as symbols are concerned.
//!
//! The order of the core modules is that in which they appear in the component, nested components included:
//! Wasmtime numbers them the same way. The adapters that it fuses between components come after them and are
//! in no binary.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gimli::SectionId;
use wasmparser::{KnownCustom, Name, Parser, Payload, TypeRef};

use crate::Error;
use crate::bodies::{Bodies, Body};
use crate::body_hash::body_hash;

/// A guest's binary: a core module or a component. Cheap to make and to clone; parsed on first use.
#[derive(Clone)]
pub struct GuestBinary {
    bytes: Arc<[u8]>,
    modules: Arc<OnceLock<Result<Vec<CoreModule>, Error>>>,
}

/// A function's body in a guest's binary.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionBody {
    /// The function's index in its core module, imports included.
    pub function_index: u32,
    /// Where the body lies, from its locals to its end.
    pub range: Range<u32>,
    /// The hash, as [`body_hash`](crate::Symbolizer::body_hash) gives it; `None` if the body is not well-formed.
    pub hash: Option<u64>,
}

/// Where the parts of one core module lie in the binary.
#[derive(Default)]
pub(crate) struct CoreModule {
    /// The contents of the code section; empty without one.
    pub(crate) code: Range<usize>,
    /// The function bodies, relative to `code`.
    pub(crate) bodies: Arc<Bodies>,
    /// Module and name of each imported function.
    pub(crate) imports: Vec<(Arc<str>, Arc<str>)>,
    /// The contents of the name section.
    names: Option<Range<usize>>,
    /// The contents of the DWARF sections, by `SectionId`.
    pub(crate) dwarf: Vec<(SectionId, Range<usize>)>,
}

/// What a name section says.
#[derive(Default)]
pub(crate) struct NameSection {
    pub(crate) module: Option<String>,
    /// Sorted by function index; where in the binary each name is.
    pub(crate) functions: Vec<(u32, Range<usize>)>,
    /// Whether reading it ended early.
    pub(crate) is_corrupt: bool,
}

impl From<Vec<u8>> for GuestBinary {
    fn from(bytes: Vec<u8>) -> GuestBinary {
        GuestBinary::from(Arc::<[u8]>::from(bytes))
    }
}

impl From<Arc<[u8]>> for GuestBinary {
    fn from(bytes: Arc<[u8]>) -> GuestBinary {
        GuestBinary { bytes, modules: Arc::default() }
    }
}

impl std::fmt::Debug for GuestBinary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GuestBinary").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl GuestBinary {
    /// Checks that this is a WebAssembly module or component.
    ///
    /// # Errors
    ///
    /// [`Error::NotWasm`] or [`Error::TooLarge`] if it is not.
    pub fn check(&self) -> Result<(), Error> {
        self.modules().map(drop)
    }

    /// Checks that the code of two binaries is the same, byte for byte, so that the symbols of one describe
    /// the code of the other. Everything else may differ: sizes, names, DWARF, other custom sections.
    ///
    /// # Errors
    ///
    /// If one of them is no WebAssembly binary, or the first difference in their code.
    pub fn check_same_code(&self, other: &GuestBinary) -> Result<(), Error> {
        let (ours, theirs) = (self.modules()?, other.modules()?);
        if ours.len() != theirs.len() {
            return Err(Error::DifferentModuleCount { ours: ours.len(), theirs: theirs.len() });
        }
        for (module, (our, their)) in ours.iter().zip(theirs).enumerate() {
            if our.bodies.len() != their.bodies.len() {
                let (ours, theirs) = (our.bodies.len(), their.bodies.len());
                return Err(Error::DifferentFunctionCount { module, ours, theirs });
            }
            let same_layout = our.bodies == their.bodies && our.imports.len() == their.imports.len();
            let (our_code, their_code) = (self.slice(&our.code), other.slice(&their.code));
            if same_layout && our_code == their_code {
                continue;
            }
            let defined = our.bodies.iter().zip(their.bodies.iter()).position(|(our, their)| {
                our != their || our_code.get(our.bytes()) != their_code.get(their.bytes())
            });
            let function = our.imports.len() + defined.unwrap_or_default();
            return Err(Error::DifferentCode {
                module,
                function: u32::try_from(function).unwrap_or(u32::MAX),
            });
        }
        Ok(())
    }

    /// The function body that covers an offset in the binary, in whichever core module.
    ///
    /// # Errors
    ///
    /// If this is no WebAssembly binary.
    pub fn body_at(&self, offset: u32) -> Result<Option<FunctionBody>, Error> {
        let found = self.modules()?.iter().find_map(|module| {
            // Positions fit: the whole binary is smaller than 4 GiB.
            let start = module.code.start as u32;
            let (defined, body) = module.bodies.find(offset.checked_sub(start)?)?;
            let function_index = u32::try_from(module.imports.len()).ok()?.checked_add(defined)?;
            let hash = self.slice(&module.code).get(body.bytes()).and_then(body_hash);
            Some(FunctionBody { function_index, range: start + body.start..start + body.end, hash })
        });
        Ok(found)
    }

    pub(crate) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(crate) fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// The core modules, in the order of Wasmtime's indices.
    pub(crate) fn modules(&self) -> Result<&[CoreModule], Error> {
        let parsed = self.modules.get_or_init(|| parse(&self.bytes));
        parsed.as_deref().map_err(Error::clone)
    }

    /// Reads the name section of a core module. Damage ends the reading; what came before is kept.
    pub(crate) fn name_section(&self, module: &CoreModule) -> NameSection {
        let mut section = NameSection::default();
        if let Some(range) = &module.names {
            section.is_corrupt = self.read_names(range, &mut section).is_err();
            section.functions.sort_by_key(|(function, _)| *function);
        }
        section
    }

    fn read_names(&self, range: &Range<usize>, into: &mut NameSection) -> wasmparser::Result<()> {
        let data = self.slice(range);
        let reader = wasmparser::BinaryReader::new(data, range.start);
        for name in wasmparser::NameSectionReader::new(reader) {
            match name? {
                Name::Module { name, .. } => into.module = Some(name.to_string()),
                Name::Function(functions) => {
                    for naming in functions {
                        let naming = naming?;
                        // The name is a part of the binary's bytes: where it lies in them.
                        let start = naming.name.as_ptr().addr() - self.bytes.as_ptr().addr();
                        into.functions.push((naming.index, start..start + naming.name.len()));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<CoreModule>, Error> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Error::TooLarge { size: bytes.len() });
    }
    let mut modules: Vec<CoreModule> = Vec::new();
    // The nesting of modules and components; a component has no entry in `modules`.
    let mut open: Vec<Option<OpenModule>> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_wasm)? {
            Payload::Version { encoding, .. } => {
                let is_module = encoding == wasmparser::Encoding::Module;
                open.push(is_module.then(|| {
                    modules.push(CoreModule::default());
                    OpenModule { index: modules.len() - 1, bodies: Vec::new() }
                }));
            }
            Payload::End(_) => {
                if let Some(Some(module)) = open.pop() {
                    modules[module.index].bodies = Arc::new(Bodies::exact(module.bodies));
                }
            }
            payload => {
                if let Some(Some(module)) = open.last_mut() {
                    read_section(payload, &mut modules[module.index], &mut module.bodies)?;
                }
            }
        }
    }
    Ok(modules)
}

struct OpenModule {
    index: usize,
    bodies: Vec<Body>,
}

fn read_section(payload: Payload<'_>, module: &mut CoreModule, bodies: &mut Vec<Body>) -> Result<(), Error> {
    match payload {
        Payload::ImportSection(imports) => {
            for import in imports.into_imports() {
                let import = import.map_err(not_wasm)?;
                if matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                    module.imports.push((import.module.into(), import.name.into()));
                }
            }
        }
        Payload::CodeSectionStart { range, .. } => module.code = range,
        Payload::CodeSectionEntry(body) => {
            let range = body.range();
            // Positions fit: the whole binary is smaller than 4 GiB.
            let relative = |position: usize| (position.saturating_sub(module.code.start)) as u32;
            bodies.push(Body { start: relative(range.start), end: relative(range.end) });
        }
        Payload::CustomSection(section) => match section.as_known() {
            KnownCustom::Name(_) => module.names = Some(section.data_range()),
            _ => {
                if let Some(id) = dwarf_section(section.name()) {
                    module.dwarf.push((id, section.data_range()));
                }
            }
        },
        _ => {}
    }
    Ok(())
}

trait DataRange {
    fn data_range(&self) -> Range<usize>;
}

impl DataRange for wasmparser::CustomSectionReader<'_> {
    fn data_range(&self) -> Range<usize> {
        self.data_offset()..self.data_offset() + self.data().len()
    }
}

/// The DWARF sections that lines and inlined functions are read from.
pub(crate) const DWARF_SECTIONS: [SectionId; 9] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

fn dwarf_section(name: &str) -> Option<SectionId> {
    DWARF_SECTIONS.into_iter().find(|id| id.name() == name)
}

fn not_wasm(error: wasmparser::Error) -> Error {
    Error::NotWasm { message: error.message().to_string(), offset: error.offset() as u64 }
}

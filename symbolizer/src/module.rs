//! The symbols of one core module, from every source there is.
//!
//! In order of preference: a separate file of symbols, the guest's binary, what the image kept. They can differ
//! in where their code sections begin, so that everything here counts from the start of its contents.

use std::mem::discriminant;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::binary::CoreModule;
use crate::bodies::{Bodies, Body};
use crate::body_hash::body_hash;
use crate::dwarf::{Damage, Defined, Dwarf};
use crate::guest::DefinedFunctions;
use crate::info::ModuleInfo;
use crate::name::{display_name, is_cpp_mangled, is_demangled_form_of};
use crate::{GuestBinary, SourceLocation};

/// A core module within a guest's binary.
#[derive(Clone, Copy)]
pub(crate) struct BinaryModule<'binary> {
    pub(crate) binary: &'binary GuestBinary,
    pub(crate) module: &'binary CoreModule,
}

/// Names, bodies, imports and DWARF of one core module.
pub(crate) struct ModuleSymbols {
    /// As shown to a user.
    pub(crate) name: Arc<str>,
    /// Where the contents of the code section began in the binary that was compiled.
    code_start: u32,
    /// How many functions it imports.
    import_count: u32,
    /// Module and name of each imported function, as far as that is known.
    pub(crate) imports: Vec<(Arc<str>, Arc<str>)>,
    /// The component's trampoline behind each imported function, where there is one.
    pub(crate) import_trampolines: Vec<Option<u32>>,
    bodies: Arc<Bodies>,
    /// The binary, and in it the contents of the code section, if the binary is at hand.
    code: Option<(GuestBinary, Range<usize>)>,
    body_hashes: HashMap<u32, Option<u64>>,
    names: Vec<NameTable>,
    pub(crate) has_corrupt_names: bool,
    dwarf: Option<Dwarf>,
    told_damage: Option<Damage>,
    /// The names to show, by function index.
    shown: HashMap<u32, Arc<str>>,
}

/// Function names that lie somewhere in a run of bytes.
struct NameTable {
    bytes: Arc<[u8]>,
    /// Sorted by function index.
    functions: Vec<(u32, Range<usize>)>,
}

impl NameTable {
    fn find(&self, function: u32) -> Option<&str> {
        let index = self.functions.binary_search_by_key(&function, |(function, _)| *function).ok()?;
        let bytes = self.bytes.get(self.functions[index].1.clone())?;
        std::str::from_utf8(bytes).ok().filter(|name| !name.is_empty())
    }
}

impl ModuleSymbols {
    /// Gathers what the sources know about a core module. Nothing is named or read from DWARF yet.
    ///
    /// `defined` is what the image says of the functions that the modules define. The second result is the module's own
    /// name.
    pub(crate) fn new(
        defined: &DefinedFunctions<'_>,
        index: u32,
        info: Option<ModuleInfo>,
        binary: Option<BinaryModule<'_>>,
        symbols: Option<BinaryModule<'_>>,
    ) -> (ModuleSymbols, Option<String>) {
        let (image, info) = (defined.image, info.unwrap_or_default());
        let of_binary = || u32::try_from(binary.or(symbols)?.module.code.start).ok();
        let code_start = info.code_start.or_else(of_binary).unwrap_or_default();
        let mut own_name = None;
        let mut has_corrupt_names = false;
        let mut names = Vec::new();
        for source in [symbols, binary].into_iter().flatten() {
            let section = source.binary.name_section(source.module);
            has_corrupt_names |= section.is_corrupt;
            own_name = own_name.or(section.module);
            names.push(NameTable { bytes: source.binary.bytes().clone(), functions: section.functions });
        }
        own_name = own_name.or(info.name);
        // All core modules of a component share one copy of the bytes.
        names.push(NameTable { bytes: image.names.clone(), functions: info.functions });
        let bodies = match symbols.or(binary) {
            Some(source) => source.module.bodies.clone(),
            None => Arc::new(approximate_bodies(defined.lowest_offsets(index), code_start)),
        };
        let code = symbols.or(binary).map(|source| (source.binary.clone(), source.module.code.clone()));
        let of_binaries = [symbols, binary].into_iter().flatten().find_map(|source| {
            Dwarf::new(source.binary.bytes().clone(), &source.module.dwarf, bodies.clone())
        });
        let dwarf = of_binaries.or_else(|| Dwarf::new(image.dwarf.clone(), &info.dwarf, bodies.clone()));
        let imports = match symbols.or(binary) {
            Some(source) => source.module.imports.clone(),
            None => info.imports,
        };
        let import_count = match defined.of_module(index).functions.is_empty() {
            true => u32::try_from(imports.len()).unwrap_or(u32::MAX),
            // Also where the image does not say what the imports are.
            false => defined.of_module(index).first,
        };
        let module = ModuleSymbols {
            name: Arc::default(),
            code_start,
            import_count,
            imports,
            import_trampolines: info.import_trampolines,
            bodies,
            code,
            names,
            has_corrupt_names,
            dwarf,
            told_damage: None,
            body_hashes: HashMap::new(),
            shown: HashMap::new(),
        };
        (module, own_name)
    }

    /// What is wrong with the DWARF, if it has not been said yet.
    pub(crate) fn take_new_damage(&mut self) -> Option<Damage> {
        let damage = self.dwarf.as_ref().and_then(Dwarf::damage)?;
        let is_new = self.told_damage.as_ref().is_none_or(|told| discriminant(told) != discriminant(damage));
        is_new.then(|| self.told_damage.insert(damage.clone()).clone())
    }

    /// An offset in the binary as one in the code section's contents.
    pub(crate) fn code_offset(&self, bytecode_offset: u32) -> Option<u32> {
        bytecode_offset.checked_sub(self.code_start)
    }

    /// The body of a function that the module defines, by its index with imports.
    pub(crate) fn body(&self, function: u32) -> Option<Body> {
        self.bodies.get(function.checked_sub(self.import_count)?)
    }

    /// The function whose body covers an offset in the code section's contents, by its index with imports.
    pub(crate) fn function_at(&self, code_offset: u32) -> Option<(u32, Body)> {
        let (defined, body) = self.bodies.find(code_offset)?;
        Some((defined.checked_add(self.import_count)?, body))
    }

    /// Calls `each` with the shown name and the place of each function that the guest's compiler inlined at an offset in a
    /// body, innermost first. Gives back the place in the function itself, which is known by its index with imports.
    pub(crate) fn inlined_frames(
        &mut self,
        function: u32,
        code_offset: u32,
        each: impl FnMut(Arc<str>, Option<SourceLocation>),
    ) -> Option<SourceLocation> {
        let defined = self.defined(function)?;
        self.dwarf.as_mut()?.frames(defined, code_offset, each)
    }

    /// The line that opens a function that the module defines, by its index with imports.
    pub(crate) fn opening(&mut self, function: u32) -> Option<SourceLocation> {
        let defined = self.defined(function)?;
        self.dwarf.as_mut()?.opening(defined)
    }

    /// The hash of a body that the module defines, by its function's index with imports.
    pub(crate) fn body_hash(&mut self, function: u32) -> Option<u64> {
        let body = self.body(function)?;
        let (binary, code) = self.code.as_ref()?;
        let find = || body_hash(binary.slice(code).get(body.bytes())?);
        *self.body_hashes.entry(function).or_insert_with(find)
    }

    /// The name to show for a function, by its index with imports.
    pub(crate) fn function_name(&mut self, function: u32) -> Arc<str> {
        if let Some(known) = self.shown.get(&function) {
            return known.clone();
        }
        let shown = self.name_to_show(function);
        self.shown.insert(function, shown.clone());
        shown
    }

    fn name_to_show(&mut self, function: u32) -> Arc<str> {
        let defined = self.defined(function);
        let linkage_name = defined.and_then(|defined| self.dwarf.as_mut()?.raw_name(defined));
        let raw = self.names.iter().find_map(|table| table.find(function));
        match (raw, linkage_name.as_deref()) {
            (None, None) => format!("wasm-function[{function}]").into(),
            (None, Some(linkage_name)) => display_name(linkage_name).into(),
            (Some(raw), None) => display_name(raw).into(),
            (Some(raw), Some(linkage_name)) => best_name(raw, linkage_name).into(),
        }
    }

    fn defined(&self, function: u32) -> Option<Defined> {
        Some(Defined { index: function.checked_sub(self.import_count)?, body: self.body(function)? })
    }
}

/// The name section's word counts, but a linker may have demangled it in its own style: then the DWARF's
/// mangled name of the same function gives the name that inlined copies of it have.
fn best_name(raw: &str, linkage_name: &str) -> String {
    if is_cpp_mangled(linkage_name) && !raw.starts_with("_Z") {
        let shown = display_name(linkage_name);
        if shown != linkage_name && is_demangled_form_of(raw, &shown) {
            return shown;
        }
    }
    display_name(raw)
}

fn approximate_bodies(lowest_offsets: impl Iterator<Item = Option<u32>>, code_start: u32) -> Bodies {
    let relative = |offset: Option<u32>| offset.and_then(|offset| offset.checked_sub(code_start));
    Bodies::approximate(&lowest_offsets.map(relative).collect::<Vec<_>>())
}

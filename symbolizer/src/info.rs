//! What Wasmtime itself recorded about the guest in the image: `.wasmtime.info`.
//!
//! Decoded with Wasmtime's own types. The types of one release do not read what another one wrote: of such an image
//! only the functions' names are known (`foreign.rs`), and the rest comes from the guest's binary if that is at hand.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use gimli::SectionId;
use wasmtime_environ::component::{
    ComponentArtifacts, CoreDef, GlobalInitializer, InstantiateModule, LoweredIndex,
};
use wasmtime_environ::{CompiledFunctionsTable, CompiledModuleInfo, EntityIndex, Initializer, ModuleTypes};

use crate::binary::DWARF_SECTIONS;
use crate::image::CodeImage;
use crate::unhinted;

/// Decoded metadata of an image.
#[derive(Default)]
pub(crate) struct ImageInfo {
    /// By Wasmtime's index of the core module; the adapters between components come last.
    pub(crate) modules: Vec<ModuleInfo>,
    /// Module (or interface) and function of each of a component's lowered imports.
    lowerings: HashMap<u32, (Arc<str>, Arc<str>)>,
}

/// Decoded metadata of one core module.
#[derive(Default)]
pub(crate) struct ModuleInfo {
    pub(crate) name: Option<String>,
    /// Sorted by function index; where in the image's names each name is.
    pub(crate) functions: Vec<(u32, Range<usize>)>,
    /// Where the contents of the code section began in the binary, if that is known.
    pub(crate) code_start: Option<u32>,
    /// Where in the image's DWARF each section is.
    pub(crate) dwarf: Vec<(SectionId, Range<usize>)>,
    /// Module and name of each imported function.
    pub(crate) imports: Vec<(Arc<str>, Arc<str>)>,
    /// For a core module of a component, the component's trampoline behind each imported function, unless it
    /// has another kind of function there or differs between instances.
    pub(crate) import_trampolines: Vec<Option<u32>>,
}

impl ImageInfo {
    /// `None` if the image has no metadata that this version of Wasmtime's types can read.
    pub(crate) fn decode(image: &CodeImage) -> Option<ImageInfo> {
        if let Some(foreign) = &image.foreign {
            let module =
                |functions: &Vec<_>| ModuleInfo { functions: functions.clone(), ..ModuleInfo::default() };
            let modules = foreign.modules.iter().map(module).collect();
            return Some(ImageInfo { modules, lowerings: HashMap::new() });
        }
        if image.is_component {
            let artifacts: ComponentArtifacts = unhinted::from_bytes(&image.info).ok()?;
            return Some(Self::of_component(&artifacts));
        }
        type Module = (CompiledModuleInfo, CompiledFunctionsTable, ModuleTypes);
        let (module, _, _): Module = unhinted::from_bytes(&image.info).ok()?;
        Some(ImageInfo { modules: vec![ModuleInfo::of(&module)], lowerings: HashMap::new() })
    }

    /// The import of the component that its `lowering`th lowered function calls.
    pub(crate) fn lowered_import(&self, lowering: u32) -> Option<&(Arc<str>, Arc<str>)> {
        self.lowerings.get(&lowering)
    }

    fn of_component(artifacts: &ComponentArtifacts) -> ImageInfo {
        let component = &artifacts.info.component;
        let mut info = ImageInfo {
            modules: artifacts.static_modules.values().map(ModuleInfo::of).collect(),
            lowerings: HashMap::new(),
        };
        let mut instantiated = vec![false; info.modules.len()];
        for initializer in &component.initializers {
            match initializer {
                GlobalInitializer::LowerImport { index, import } => {
                    let name = component.imports.get(*import).and_then(|(import, path)| {
                        let (name, _) = component.import_types.get(*import)?;
                        Some(import_name(name, path))
                    });
                    info.lowerings.extend(name.map(|name| (LoweredIndex::as_u32(*index), name)));
                }
                GlobalInitializer::InstantiateModule(InstantiateModule::Static(module, arguments), _) => {
                    let index = module.as_u32() as usize;
                    if let Some(compiled) = artifacts.static_modules.get(*module) {
                        let is_first = !std::mem::replace(&mut instantiated[index], true);
                        info.modules[index].link(compiled, arguments, is_first);
                    }
                }
                _ => {}
            }
        }
        info
    }
}

impl ModuleInfo {
    fn of(compiled: &CompiledModuleInfo) -> ModuleInfo {
        let module = &compiled.module;
        let string = |atom| module.strings.get(atom).unwrap_or_default();
        let range = |start: u64, end: u64| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
        let functions = compiled.func_names.iter().filter_map(|name| {
            let (start, length) = (u64::from(name.offset), u64::from(name.len));
            Some((name.idx.as_u32(), range(start, start + length)?))
        });
        let dwarf = compiled.meta.dwarf.iter().filter_map(|(id, section)| {
            let id = DWARF_SECTIONS.into_iter().find(|known| *known as u8 == *id)?;
            Some((id, range(section.start, section.end)?))
        });
        ModuleInfo {
            name: module.name.map(|atom| string(atom).to_string()),
            functions: functions.collect(),
            code_start: u32::try_from(compiled.meta.code_section_offset).ok(),
            dwarf: dwarf.collect(),
            imports: function_imports(compiled)
                .map(|(_, name, field)| (string(name).into(), string(field).into()))
                .collect(),
            import_trampolines: Vec::new(),
        }
    }

    /// Notes what one instance of the module gets for its imported functions.
    fn link(&mut self, compiled: &CompiledModuleInfo, arguments: &[CoreDef], is_first: bool) {
        let trampolines: Vec<Option<u32>> = function_imports(compiled)
            .map(|(position, _, _)| match arguments.get(position) {
                Some(CoreDef::Trampoline(trampoline)) => Some(trampoline.as_u32()),
                _ => None,
            })
            .collect();
        if is_first {
            self.import_trampolines = trampolines;
            return;
        }
        for (known, other) in self.import_trampolines.iter_mut().zip(trampolines) {
            if *known != other {
                *known = None;
            }
        }
    }
}

/// The imported functions: position among all imports, module and name.
fn function_imports(
    compiled: &CompiledModuleInfo,
) -> impl Iterator<Item = (usize, wasmtime_environ::Atom, wasmtime_environ::Atom)> + '_ {
    let imports = compiled.module.initializers.iter().enumerate();
    imports.filter_map(|(position, Initializer::Import { name, field, index })| {
        matches!(index, EntityIndex::Function(_)).then_some((position, *name, *field))
    })
}

/// `wasi:cli/stdout@0.2.0` and `get-stdout`; a function that the component imports by itself has no module.
fn import_name(import: &str, path: &[String]) -> (Arc<str>, Arc<str>) {
    match path.split_last() {
        None => (Arc::default(), import.into()),
        Some((function, instances)) => {
            let module =
                instances.iter().fold(import.to_string(), |module, instance| module + "/" + instance);
            (module.into(), function.as_str().into())
        }
    }
}

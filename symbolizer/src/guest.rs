//! All core modules of one image: which function an instruction's bytecode belongs to.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::bodies::Body;
use crate::dwarf::Damage;
use crate::image::CodeImage;
use crate::info::ImageInfo;
use crate::module::{BinaryModule, ModuleSymbols};
use crate::symbol::Symbol;
use crate::{Error, GuestBinary, Notice};

/// Everything that the sources say about the guest in one image.
pub(crate) struct Guest {
    pub(crate) info: ImageInfo,
    /// By Wasmtime's index of the core module.
    pub(crate) modules: Vec<ModuleSymbols>,
    pub(crate) binary: Option<GuestBinary>,
}

/// What a guest is called.
pub(crate) struct GuestName {
    pub(crate) text: Arc<str>,
    /// Whether it stands only for want of a name that the guest itself says.
    pub(crate) is_makeshift: bool,
}

/// A function of the guest and a place in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the core module.
    pub(crate) module: u32,
    /// Index of the function, imports included.
    pub(crate) function: u32,
    pub(crate) body: Body,
    /// Offset from the start of the code section's contents.
    pub(crate) code_offset: u32,
}

impl Guest {
    /// Reads the metadata and the structure of the binaries. What does not fit is left out, with a notice.
    pub(crate) fn new(
        image: &CodeImage,
        guest_name: &GuestName,
        binary: Option<&GuestBinary>,
        symbols: Option<&GuestBinary>,
        notices: &mut Vec<Notice>,
    ) -> Guest {
        let name = &guest_name.text;
        let mut info = ImageInfo::decode(image);
        if info.is_none() {
            notices.push(Notice::UnreadableMetadata { module: name.clone() });
        }
        let defined = DefinedFunctions::read(image);
        let mut check = |result: Result<(), Error>, refused: fn(Arc<str>, Error) -> Notice| match result {
            Ok(()) => true,
            Err(error) => {
                notices.push(refused(name.clone(), error));
                false
            }
        };
        let binary = binary.filter(|binary| {
            let refused = |module, error| Notice::BinaryRefused { module, error };
            check(defined.check_source(info.as_ref(), binary), refused)
        });
        let symbols = symbols.filter(|symbols| {
            let refused = |module, error| Notice::SymbolsRefused { module, error };
            let result = match binary {
                Some(binary) => symbols.check_same_code(binary),
                None => defined.check_source(info.as_ref(), symbols),
            };
            check(result, refused)
        });

        let of_info = info.as_ref().map_or(0, |info| info.modules.len());
        let count = of_info.max(defined.modules.len());
        let mut own_names = Vec::new();
        let mut modules = Vec::new();
        for index in 0..u32::try_from(count).unwrap_or_default() {
            let module_info =
                info.as_mut().and_then(|info| info.modules.get_mut(index as usize)).map(std::mem::take);
            let (module, own_name) = ModuleSymbols::new(
                &defined,
                index,
                module_info,
                binary_module(binary, index),
                binary_module(symbols, index),
            );
            modules.push(module);
            own_names.push(own_name);
        }
        let shown = shown_names(guest_name, image.is_component, &own_names);
        for (module, shown) in modules.iter_mut().zip(shown) {
            module.name = shown;
            if module.has_corrupt_names {
                notices.push(Notice::CorruptNames { module: module.name.clone() });
            }
        }
        Guest { info: info.unwrap_or_default(), modules, binary: binary.or(symbols).cloned() }
    }

    /// The function that the bytecode at an offset in the binary belongs to, while `function` of `module` runs.
    ///
    /// The running function itself first: it is right unless Wasmtime inlined, and adapters between components
    /// have offsets of their own, which may coincide with those of the component.
    pub(crate) fn find(&self, module: u32, function: u32, bytecode_offset: u32) -> Option<Place> {
        let running = self.modules.get(module as usize)?;
        let code_offset = running.code_offset(bytecode_offset);
        if let Some((code_offset, body)) = code_offset.zip(running.body(function))
            && body.contains(code_offset)
        {
            return Some(Place { module, function, body, code_offset });
        }
        let others = (0_u32..).zip(&self.modules).filter(|(index, _)| *index != module);
        [(module, running)].into_iter().chain(others).find_map(|(module, symbols)| {
            let code_offset = symbols.code_offset(bytecode_offset)?;
            let (function, body) = symbols.function_at(code_offset)?;
            Some(Place { module, function, body, code_offset })
        })
    }

    /// Turns what was found wrong with DWARF since the last time into notices.
    pub(crate) fn take_damage(&mut self, notices: &mut Vec<Notice>) {
        for symbols in &mut self.modules {
            let Some(damage) = symbols.take_new_damage() else { continue };
            let module = symbols.name.clone();
            notices.push(match damage {
                Damage::DescribesOtherCode { all_zero } => Notice::ForeignDwarf { module, all_zero },
                Damage::Malformed { message } => Notice::CorruptDwarf { module, message },
                Damage::TooExpensive => Notice::ExpensiveDwarf { module },
            });
        }
    }
}

fn binary_module(binary: Option<&GuestBinary>, index: u32) -> Option<BinaryModule<'_>> {
    let binary = binary?;
    let module = binary.modules().ok()?.get(index as usize)?;
    Some(BinaryModule { binary, module })
}

/// The functions that each core module defines, according to the image.
pub(crate) struct DefinedFunctions<'image> {
    pub(crate) image: &'image CodeImage,
    modules: Vec<DefinedModule>,
    /// By the image's functions; read for the first module without a binary.
    lowest_offsets: OnceCell<Vec<Option<u32>>>,
}

#[derive(Default)]
pub(crate) struct DefinedModule {
    /// Index of the first function, which is the number of imported ones.
    pub(crate) first: u32,
    /// Where among the image's functions each is.
    pub(crate) functions: Vec<u32>,
}

impl<'image> DefinedFunctions<'image> {
    pub(crate) fn read(image: &'image CodeImage) -> DefinedFunctions<'image> {
        let symbols = (0_u32..).zip(image.symbols());
        let mut functions: Vec<(u32, u32, u32)> = symbols
            .filter_map(|(index, (_, symbol))| match symbol {
                Symbol::Function { module, function } => Some((*module, *function, index)),
                _ => None,
            })
            .collect();
        functions.sort_unstable();
        let mut modules: Vec<DefinedModule> = Vec::new();
        for (module, function, index) in functions {
            // A module without functions has no symbol; an index beyond all reason is damage.
            if module as usize > image.functions().len() {
                break;
            }
            if modules.len() <= module as usize {
                modules.resize_with(module as usize + 1, DefinedModule::default);
                modules[module as usize].first = function;
            }
            let defined = &mut modules[module as usize];
            if (function - defined.first) as usize == defined.functions.len() {
                defined.functions.push(index);
            }
        }
        DefinedFunctions { image, modules, lowest_offsets: OnceCell::new() }
    }

    /// What a core module defines.
    pub(crate) fn of_module(&self, module: u32) -> &DefinedModule {
        static NOTHING: DefinedModule = DefinedModule { first: 0, functions: Vec::new() };
        self.modules.get(module as usize).unwrap_or(&NOTHING)
    }

    /// For each function that a core module defines, the lowest bytecode offset of its instructions.
    pub(crate) fn lowest_offsets(&self, module: u32) -> impl Iterator<Item = Option<u32>> {
        let read = || self.image.address_map.lowest_offsets(self.image.functions());
        let offsets = self.lowest_offsets.get_or_init(read);
        self.of_module(module).functions.iter().map(|index| offsets[*index as usize])
    }

    /// Checks that the image can have been compiled from a binary: the same functions, and first instructions
    /// that come from them.
    pub(crate) fn check_source(&self, info: Option<&ImageInfo>, binary: &GuestBinary) -> Result<(), Error> {
        let refuse = |detail: String| Err(Error::NotTheSource { detail });
        let modules = binary.modules()?;
        if !self.image.is_component && modules.len() != 1 {
            return refuse(format!("it has {} core modules instead of one", modules.len()));
        }
        let first_offsets = self.image.address_map.first_offsets(self.image.functions());
        for (index, module) in (0_u32..).zip(modules) {
            let ours = self.of_module(index);
            let (found, expected) = (module.bodies.len(), ours.functions.len());
            let has_other_imports = expected != 0 && module.imports.len() != ours.first as usize;
            if found != expected || has_other_imports {
                return refuse(format!(
                    "core module {index} defines {found} functions, in the image {expected}"
                ));
            }
            let of_image = info.and_then(|info| info.modules.get(index as usize)?.code_start);
            let code_start = of_image.or(u32::try_from(module.code.start).ok()).unwrap_or_default();
            // A few may come from other functions: a version of Wasmtime that says what it inlined would say so.
            let is_own = |(body, position): &(Body, u32)| {
                position.checked_sub(code_start).is_some_and(|offset| body.contains(offset))
            };
            let positions = ours.functions.iter().map(|function| first_offsets[*function as usize]);
            let positions = module.bodies.iter().zip(positions);
            let (own, foreign): (Vec<_>, Vec<_>) =
                positions.filter_map(|(body, position)| Some((body, position?))).partition(is_own);
            if foreign.len() * 8 > own.len() {
                return refuse(format!("the functions of core module {index} lie at other offsets"));
            }
        }
        Ok(())
    }
}

/// A module is shown by the name that the user knows it by; the core modules of a component by their own names
/// if they have any, and by their numbers otherwise.
fn shown_names(guest: &GuestName, is_component: bool, own_names: &[Option<String>]) -> Vec<Arc<str>> {
    let name = &guest.text;
    if !is_component || own_names.len() == 1 {
        let shown = own_names.iter().map(|own| match own.as_deref() {
            Some(own) if guest.is_makeshift && !own.is_empty() => own.into(),
            _ => name.clone(),
        });
        return shown.collect();
    }
    let is_unique = |own: &str| own_names.iter().filter(|other| other.as_deref() == Some(own)).count() == 1;
    let shown = own_names.iter().enumerate().map(|(index, own)| match own.as_deref() {
        Some(own) if is_unique(own) => own.into(),
        Some(own) if !own.is_empty() => format!("{own}[{index}]").into(),
        _ => format!("{name}[{index}]").into(),
    });
    shown.collect()
}

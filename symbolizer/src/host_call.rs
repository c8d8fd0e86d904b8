//! Which function a call out of the guest went to.
//!
//! A guest leaves its code through a trampoline. Those to builtins and, in components, to lowered imports say
//! what is behind them; the trampoline to a core module's imports is one for each signature. Then the bytecode
//! of the call names the import, unless it is an indirect call.

use std::sync::Arc;

use crate::HostCall;
use crate::guest::{Guest, Place};
use crate::image::CodeImage;
use crate::info::ImageInfo;
use crate::symbol::Symbol;

pub(crate) fn find(
    image: &CodeImage,
    guest: &Guest,
    return_address: u32,
    trampoline: Option<u32>,
) -> HostCall {
    let passed = trampoline.and_then(|offset| image.find(offset)).map(|(_, symbol)| symbol);
    let called = || image.called_trampoline(return_address);
    if let Some(call) = passed.and_then(|symbol| of_trampoline(&guest.info, symbol)) {
        return call;
    }
    if let Some(call) = called().and_then(|symbol| of_trampoline(&guest.info, symbol)) {
        return call;
    }
    of_bytecode(image, guest, return_address).or_else(|| only_import(guest)).unwrap_or(HostCall::Unknown)
}

/// What is behind a trampoline, if it says so itself.
fn of_trampoline(info: &ImageInfo, symbol: &Symbol) -> Option<HostCall> {
    match symbol {
        Symbol::Builtin { name } | Symbol::ComponentBuiltin { name, .. } => {
            Some(HostCall::Builtin { name: Arc::from(&**name) })
        }
        Symbol::ResourceDrop => Some(HostCall::Builtin { name: "resource.drop".into() }),
        Symbol::LoweredImport { lowering, .. } => info.lowered_import(*lowering).map(import),
        _ => None,
    }
}

/// The import that the call's bytecode names.
fn of_bytecode(image: &CodeImage, guest: &Guest, return_address: u32) -> Option<HostCall> {
    let offset = return_address.checked_sub(1)?;
    let (code, symbol) = image.find(offset)?;
    let Symbol::Function { module, function } = symbol else { return None };
    // Exactly: the nearest instruction before could be another call.
    let bytecode_offset = image.address_map.find(code, offset)?;
    let place = guest.find(*module, *function, bytecode_offset)?;
    let symbols = guest.modules.get(place.module as usize)?;
    let import_index = called_function(guest, place)? as usize;
    if let Some(Some(trampoline)) = symbols.import_trampolines.get(import_index) {
        let is_it = |symbol: &&Symbol| symbol.component_trampoline() == Some(*trampoline);
        let symbol = image.symbols().map(|(_, symbol)| symbol).find(is_it);
        if let Some(call) = symbol.and_then(|symbol| of_trampoline(&guest.info, symbol)) {
            return Some(call);
        }
    }
    symbols.imports.get(import_index).map(import)
}

/// The function that the direct call at a place in the bytecode names.
fn called_function(guest: &Guest, place: Place) -> Option<u32> {
    const CALL: u8 = 0x10;
    const RETURN_CALL: u8 = 0x12;
    let binary = guest.binary.as_ref()?;
    let module = binary.modules().ok()?.get(place.module as usize)?;
    let body = binary.slice(&module.code).get(place.body.bytes())?;
    let instruction = body.get((place.code_offset - place.body.start) as usize..)?;
    let mut reader = wasmparser::BinaryReader::new(instruction, 0);
    match reader.read_u8().ok()? {
        CALL | RETURN_CALL => reader.read_var_u32().ok(),
        _ => None,
    }
}

/// The import of a guest that has no other.
fn only_import(guest: &Guest) -> Option<HostCall> {
    let mut imports = guest.modules.iter().flat_map(|module| &module.imports);
    let only = imports.next()?;
    (guest.modules.len() == 1 && imports.next().is_none()).then(|| import(only))
}

fn import((module, name): &(Arc<str>, Arc<str>)) -> HostCall {
    HostCall::Import { module: module.clone(), name: name.clone() }
}

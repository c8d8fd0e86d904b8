//! What an address is turned into.

use std::fmt;
use std::sync::Arc;

/// An address in an image's code, as an offset into `.text`.
///
/// The two kinds differ in what they are looked up as: a return address is that of the instruction after the
/// call, which may already belong to another line, another inlined function or even the next function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeAddress {
    /// The address of an instruction that was about to be executed.
    Instruction(u32),
    /// The address that a call returns to.
    ReturnAddress(u32),
}

impl CodeAddress {
    /// The text offset to look up.
    pub const fn offset_for_lookup(self) -> u32 {
        match self {
            CodeAddress::Instruction(offset) => offset,
            CodeAddress::ReturnAddress(offset) => offset.saturating_sub(1),
        }
    }
}

/// A place in the guest's source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceLocation {
    /// Path of the file, with the directory that it was compiled in if it is relative in the DWARF.
    pub file: Arc<str>,
    /// Line, from 1. Where the compiler says that the code comes from no particular line, that of the nearest code
    /// in the same function, or 0 if there is none.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
}

/// One frame of the guest: a function that runs, or one that was inlined into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SymbolFrame {
    /// The name to show, demangled; `wasm-function[N]` for one without a name.
    pub name: Arc<str>,
    /// The core module that the function belongs to, as shown to a user.
    pub module: Arc<str>,
    /// The core module's index in the image; `None` where `function_index` is.
    pub module_index: Option<u32>,
    /// Where in the source, if the guest's DWARF says so.
    pub location: Option<SourceLocation>,
    /// The function's index in its core module, imports included. `None` for a function that the guest's own
    /// compiler inlined, and for code that Wasmtime adds.
    pub function_index: Option<u32>,
    /// Offset of the instruction in the guest's binary; in the whole component for a component.
    pub bytecode_offset: Option<u32>,
    /// Whether the function was inlined, by the guest's compiler or by Wasmtime's, into the next older frame.
    pub inlined: bool,
}

/// What the guest called when it left its own code.
///
/// Shown as `[host] module.name`, `[builtin] memory.grow` and `[host]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostCall {
    /// A function that the guest imports.
    Import {
        /// The module or interface; empty for a function that a component imports by itself.
        module: Arc<str>,
        /// The function.
        name: Arc<str>,
    },
    /// An operation of the runtime.
    Builtin {
        /// The instruction's name where there is one.
        name: Arc<str>,
    },
    /// A host function that the call site does not name, as in an indirect call.
    Unknown,
}

impl fmt::Display for HostCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostCall::Import { module, name } if module.is_empty() => write!(formatter, "[host] {name}"),
            HostCall::Import { module, name } => write!(formatter, "[host] {module}.{name}"),
            HostCall::Builtin { name } => write!(formatter, "[builtin] {name}"),
            HostCall::Unknown => formatter.write_str("[host]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_addresses_are_looked_up_before_themselves() {
        assert_eq!(CodeAddress::Instruction(5).offset_for_lookup(), 5);
        assert_eq!(CodeAddress::ReturnAddress(5).offset_for_lookup(), 4);
        assert_eq!(CodeAddress::ReturnAddress(0).offset_for_lookup(), 0);
    }

    #[test]
    fn host_calls_as_shown() {
        let import = |module: &str, name: &str| HostCall::Import { module: module.into(), name: name.into() };
        assert_eq!(
            import("wasi:cli/stdout@0.2.0", "get-stdout").to_string(),
            "[host] wasi:cli/stdout@0.2.0.get-stdout"
        );
        assert_eq!(import("", "log").to_string(), "[host] log");
        assert_eq!(HostCall::Builtin { name: "memory.grow".into() }.to_string(), "[builtin] memory.grow");
        assert_eq!(HostCall::Unknown.to_string(), "[host]");
    }
}

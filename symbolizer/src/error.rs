//! What can be wrong with a code image or a guest's binary.

/// Why a code image or a guest's binary cannot be used.
///
/// Damage that leaves something usable (a corrupt name section, DWARF that does not describe the code) is no
/// error but a [`Notice`](crate::Notice).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a readable ELF file.
    #[error("not a compiled image: {0}")]
    NotElf(object::Error),
    /// An ELF file, but not one that Wasmtime wrote.
    #[error("not an image of Wasmtime's: the ELF header's OS/ABI is {os_abi}, expected 200")]
    NotWasmtime {
        /// The OS/ABI byte found in the ELF header.
        os_abi: u8,
    },
    /// The image lacks a section without which no address means anything.
    #[error("the image has no {name} section")]
    MissingSection {
        /// Name of the missing section.
        name: &'static str,
    },
    /// The image has code but no symbols, so that its functions and trampolines cannot be told apart.
    #[error("the image has no symbols: it was compiled with Config::debug_symbols(false), enable it")]
    NoSymbols,
    /// A symbol of a kind that this crate does not know: the image comes from another version of Wasmtime.
    #[error("unknown symbol {name:?} in the image: is it from another version of Wasmtime?")]
    UnknownSymbol {
        /// The symbol's name.
        name: String,
    },
    /// A symbol's range is not inside `.text`.
    #[error("symbol {name:?} covers {start:#x}..{end:#x}, outside the {text_length:#x} bytes of .text")]
    SymbolOutOfRange {
        /// The symbol's name.
        name: String,
        /// Text offset at which the symbol starts.
        start: u64,
        /// Text offset at which the symbol ends.
        end: u64,
        /// Length of `.text` in bytes.
        text_length: u64,
    },
    /// Two functions share code.
    #[error("two symbols cover text offset {offset:#x}")]
    OverlappingSymbols {
        /// Text offset at which the second function starts.
        offset: u32,
    },
    /// The bytes are not a WebAssembly module or component.
    #[error("not a valid WebAssembly binary: {message} (at offset {offset:#x})")]
    NotWasm {
        /// What the parser says.
        message: String,
        /// Where in the binary, in bytes from its start.
        offset: u64,
    },
    /// Larger than the 4 GiB that WebAssembly binaries and images can have.
    #[error("{size} bytes are more than a WebAssembly binary can have")]
    TooLarge {
        /// The size in bytes.
        size: usize,
    },
    /// Two binaries hold different numbers of core modules.
    #[error("{ours} core modules against {theirs}")]
    DifferentModuleCount {
        /// Core modules in this binary.
        ours: usize,
        /// Core modules in the other binary.
        theirs: usize,
    },
    /// Two binaries hold different numbers of functions.
    #[error("core module {module} defines {ours} functions against {theirs}")]
    DifferentFunctionCount {
        /// Index of the core module.
        module: usize,
        /// Functions defined in this binary.
        ours: usize,
        /// Functions defined in the other binary.
        theirs: usize,
    },
    /// Two binaries differ in the code of a function.
    #[error("the code of function {function} in core module {module} differs")]
    DifferentCode {
        /// Index of the core module.
        module: usize,
        /// Index of the first function that differs, imports included.
        function: u32,
    },
    /// The binary is not the one that the image was compiled from.
    #[error("the image was compiled from another binary: {detail}")]
    NotTheSource {
        /// What does not fit.
        detail: String,
    },
}

//! A frame: one function, or what stands for one, at one place in the code.

use std::sync::Arc;

/// What a frame is. Exhaustive, so that each format has to decide how it shows a new kind.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FrameKind {
    /// A function of the guest, possibly inlined into its caller.
    Guest,
    /// A function that the guest imported from the host and called.
    HostCall,
    /// A builtin of the runtime that compiled guest code called, such as `memory.grow`.
    Builtin,
    /// A native function of the host itself.
    Host,
    /// Stands at the root of a stack for the older frames that are missing.
    Truncated,
}

/// A place in the guest's source.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SourceLocation {
    /// Path of the file, as the debug information states it.
    pub file: Arc<str>,
    /// Line, from 1; 0 if the code belongs to no line.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
}

/// One frame of a stack. Frames that differ in any field are different frames; formats that only show names
/// merge them by the name that [`Names`](crate::Names) gives.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Frame {
    /// What the frame is.
    pub kind: FrameKind,
    /// The function's own name, without module: demangled, as found, of any content. Empty for
    /// [`FrameKind::Truncated`].
    pub name: Arc<str>,
    /// The guest module that the function is in; for a host call, the module (or WIT interface) that the guest
    /// imports the function from.
    pub module: Option<Arc<str>>,
    /// Where in the source the sampled or calling instruction comes from.
    pub location: Option<SourceLocation>,
    /// Index of the function in its module's function index space.
    pub function_index: Option<u32>,
    /// Offset of the instruction in the guest's binary, in bytes from its start.
    pub bytecode_offset: Option<u32>,
    /// Offset of the machine instruction in the text of the guest's code image, in bytes.
    pub text_offset: Option<u32>,
    /// A hash of the function's bytecode that does not depend on what a rebuild renumbers, to find the function in
    /// another build by. Its upper 32 bits do not depend on integer constants up to 32 bits either, which may be places in
    /// a table of functions. `None` if the bytecode is not known, and for functions that the guest's compiler inlined.
    pub body_hash: Option<u64>,
    /// Whether the function was inlined into the next older frame, so that it has no machine frame of its own.
    pub inlined: bool,
}

impl Frame {
    /// A frame of which only kind and name are known.
    pub fn new(kind: FrameKind, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self {
            kind,
            name,
            module: None,
            location: None,
            function_index: None,
            bytecode_offset: None,
            text_offset: None,
            body_hash: None,
            inlined: false,
        }
    }

    /// A guest function.
    pub fn guest(name: impl Into<Arc<str>>) -> Self {
        Self::new(FrameKind::Guest, name)
    }

    /// A call of the function that the guest imports as `name` from `module`.
    pub fn host_call(module: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { module: Some(module.into()), ..Self::new(FrameKind::HostCall, name) }
    }

    /// A builtin of the runtime.
    pub fn builtin(name: impl Into<Arc<str>>) -> Self {
        Self::new(FrameKind::Builtin, name)
    }

    /// The root of a stack whose older frames are missing.
    pub fn truncated() -> Self {
        Self::new(FrameKind::Truncated, "")
    }
}

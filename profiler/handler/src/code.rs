//! What each address of compiled guest code is.
//!
//! A [`CodeImage`] describes the `.text` of one module or component: a table of functions sorted by their
//! offset, each with its [`CodeKind`]. A [`CodeTable`] is all images of the process, sorted by address. Both
//! are plain slices: a look-up is two binary searches and touches nothing but these tables.

use core::ops::Range;

/// What a range of compiled code is, as far as walking a stack is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CodeKind {
    /// A function of the guest, a fused adapter between components, or a module's start-up code: a frame.
    Guest,
    /// Enters the guest from the host (`array_to_wasm`). Its saved frame pointer belongs to the host.
    EntryTrampoline,
    /// Leaves the guest for a function of the host (`wasm_to_array`, a component's lowered import).
    ExitTrampoline,
    /// Leaves the guest for the runtime itself (`memory.grow` and the like).
    BuiltinTrampoline,
}

/// One function in an image's `.text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Offset of the first instruction from the start of `.text`, in bytes.
    pub start: u32,
    /// Length of the code, in bytes.
    pub length: u32,
    /// What the code is.
    pub kind: CodeKind,
    /// For exit and builtin trampolines whose prologue has the usual shape, the size in bytes of the frame
    /// below the saved frame pointer; 0 for everything else.
    pub frame_size: u32,
}

impl Function {
    /// The text offset just past the function.
    pub const fn end(&self) -> u32 {
        self.start.saturating_add(self.length)
    }
}

//! Turns addresses in Wasmtime's compiled code into guest functions, inlined functions and source lines; and, for those
//! who ask for them, addresses in the host's own code.
#![forbid(unsafe_code)]

mod address_map;
mod binary;
mod bodies;
mod dwarf;
mod error;
mod frame;
mod guest;
mod host;
mod host_call;
mod image;
mod info;
mod machine;
mod module;
mod name;
mod notice;
pub mod registry;
mod symbol;
mod symbolizer;

pub use binary::GuestBinary;
pub use error::Error;
pub use frame::{CodeAddress, HostCall, SourceLocation, SymbolFrame};
pub use host::{HostAddress, HostObject, HostSymbolizer};
pub use image::CodeImage;
pub use notice::Notice;
pub use symbolizer::Symbolizer;

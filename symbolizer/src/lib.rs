//! Turns addresses in Wasmtime's compiled code into guest functions, inlined functions and source lines; and, for those
//! who ask for them, addresses in the host's own code.
//!
//! ```no_run
//! use flamewalk_symbolizer::{CodeAddress, CodeImage, GuestBinary, Symbolizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let image = CodeImage::parse(&std::fs::read("guest.cwasm")?)?;
//! let binary = GuestBinary::from(std::fs::read("guest.wasm")?);
//! let mut symbolizer = Symbolizer::new(image, "guest", Some(binary), None)?;
//! for frame in symbolizer.frames(CodeAddress::Instruction(0x40)) {
//!     println!("{}!{} {:?}", frame.module, frame.name, frame.location);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Accuracy
//!
//! - The function is exact: it is the one whose symbol covers the address.
//! - Its name is that of the name section; of the DWARF without one. C++ is shown with parameters and without return
//!   types, Rust without hashes, so that a function has one name whether it is inlined or not.
//! - Wasmtime says which bytecode an instruction comes from for most of the code, 70 to 97 % of the bytes in optimized
//!   guests. The rest (prologues, spills, constants, what the optimizer rewrote) is shown as the next instruction in the
//!   machine code that it says it of, which is what the rest is for, or as the nearest one before where none follows.
//! - Code that Wasmtime itself inlined (`Config::compiler_inlining`) has no bytecode in Wasmtime 48: it counts for the
//!   function that runs.
//! - DWARF is used for a function only if its subprogram starts exactly where the function's body starts.
//! - A call out of the guest is named by its trampoline, by the machine code of the call, or by the bytecode of the call,
//!   in this order; an indirect call of a host function is not named, unless the guest has only one import.
//!
//! # Security
//!
//! Binaries, names and DWARF are hostile input: any bytes give a result in bounded time and memory. Damage costs what is
//! damaged and is told as a [`Notice`]. An image is hostile as well, since it can be that of another process. Its metadata is
//! decoded with Wasmtime's types, which make no room for more than there is.
#![forbid(unsafe_code)]

mod address_map;
mod binary;
mod bodies;
mod body_hash;
mod dwarf;
mod error;
mod foreign;
mod frame;
mod guest;
mod host;
mod host_call;
mod image;
mod image_search;
mod info;
mod machine;
mod module;
mod name;
mod notice;
pub mod registry;
mod symbol;
mod symbolizer;
mod unhinted;

pub use binary::{FunctionBody, GuestBinary};
pub use error::Error;
pub use frame::{CodeAddress, HostCall, SourceLocation, SymbolFrame};
pub use host::{HostAddress, HostObject, HostSymbolizer};
pub use image::CodeImage;
pub use image_search::{ImagePlace, find_image, find_image_of_code};
pub use notice::Notice;
pub use symbolizer::Symbolizer;

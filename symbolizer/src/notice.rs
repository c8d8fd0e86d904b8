//! What a user should know about the symbols of a guest.

use std::fmt;
use std::sync::Arc;

use crate::Error;

/// Something about a guest's symbols that makes a profile poorer. Told once for each module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The binary that was given for the image is not usable; the image alone is used.
    BinaryRefused {
        /// The module.
        module: Arc<str>,
        /// Why.
        error: Error,
    },
    /// The separate symbols that were given are not usable; they are ignored.
    SymbolsRefused {
        /// The module.
        module: Arc<str>,
        /// Why.
        error: Error,
    },
    /// The image's metadata cannot be read; the guest's binary is the only source of names.
    UnreadableMetadata {
        /// The module.
        module: Arc<str>,
    },
    /// The name section ends in damage; names before it are used.
    CorruptNames {
        /// The module.
        module: Arc<str>,
    },
    /// The DWARF is that of other code; none of it is used.
    ForeignDwarf {
        /// The module.
        module: Arc<str>,
        /// Whether every address in it is 0, as some tools leave it.
        all_zero: bool,
    },
    /// A part of the DWARF cannot be read; the rest is used.
    CorruptDwarf {
        /// The module.
        module: Arc<str>,
        /// What cannot be read.
        message: String,
    },
    /// Reading the DWARF takes more work than its size can justify; none of the rest is used.
    ExpensiveDwarf {
        /// The module.
        module: Arc<str>,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::BinaryRefused { module, error } => {
                write!(formatter, "the binary given for {module} is not used: {error}")
            }
            Notice::SymbolsRefused { module, error } => {
                write!(formatter, "the symbols given for {module} are not used: {error}")
            }
            Notice::UnreadableMetadata { module } => {
                write!(
                    formatter,
                    "the image of {module} has metadata that cannot be read: names may be missing"
                )
            }
            Notice::CorruptNames { module } => {
                write!(formatter, "the name section of {module} is damaged: names may be missing")
            }
            Notice::ForeignDwarf { module, all_zero } => {
                let why =
                    if *all_zero { "every address is 0" } else { "no address is the start of a function" };
                write!(formatter, "the DWARF of {module} does not describe its code ({why}): no source lines")
            }
            Notice::CorruptDwarf { module, message } => {
                write!(formatter, "the DWARF of {module} is damaged ({message}): source lines may be missing")
            }
            Notice::ExpensiveDwarf { module } => write!(
                formatter,
                "the DWARF of {module} takes too much work to read: source lines may be missing"
            ),
        }
    }
}

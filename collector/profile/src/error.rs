//! What can go wrong while a profile is built, written or read.

use std::{io, path::PathBuf};

use crate::Format;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A stack without frames: no format can hold it. A sample outside the guest belongs into
    /// [`Statistics::outside`](crate::Statistics::outside).
    #[error("a stack needs at least one frame")]
    EmptyStack,
    /// A frame id that this profile never gave out.
    #[error("frame {id} is not one of this profile's {frames} frames")]
    UnknownFrame {
        /// The id, as a number.
        id: usize,
        /// How many frames the profile holds.
        frames: usize,
    },
    /// A thread id that this profile never gave out.
    #[error("thread {id} is not one of this profile's {threads} threads")]
    UnknownThread {
        /// The id, as a number.
        id: usize,
        /// How many threads the profile holds.
        threads: usize,
    },
    /// The id of a set of labels that this profile never gave out.
    #[error("set of labels {id} is not one of this profile's {labels}")]
    UnknownLabels {
        /// The id, as a number.
        id: usize,
        /// How many sets of labels the profile holds.
        labels: usize,
    },
    /// The sum of all samples or weights would exceed 64 bits.
    #[error("adding {added} {what} to {total} overflows 64 bits")]
    Overflow {
        /// `samples` or `weight`.
        what: &'static str,
        /// The sum so far.
        total: u64,
        /// What was to be added.
        added: u64,
    },
    /// A line of a folded file that is not `frame;frame;… count`.
    #[error("line {line} of the folded stacks: {reason}: `{text}`")]
    FoldedLine {
        /// Line number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
        /// The line, cut after 200 characters.
        text: String,
    },
    /// A file name whose ending stands for no format of profiles.
    #[error("`{}` ends like no profile format; the endings are {}", path.display(), Format::known_endings())]
    UnknownEnding {
        /// The path.
        path: PathBuf,
    },
    /// Bytes that are in none of the formats.
    #[error("this is no profile in a known format; it starts with `{start}`")]
    UnknownContent {
        /// The first bytes, escaped.
        start: String,
    },
    /// A gzip stream that is damaged or cut short.
    #[error("the gzip stream is damaged or cut short: {0}")]
    Gzip(#[source] io::Error),
    /// A JSON text that is damaged or cut short.
    #[error("the JSON text is damaged or cut short: {reason}")]
    Json {
        /// What is wrong, and where.
        reason: String,
    },
    /// A file of another version of the native format.
    #[error("the file has version {found} of the format, and this program reads version {read}")]
    Version {
        /// The file's version.
        found: u16,
        /// The version that can be read.
        read: u16,
    },
    /// A file that breaks the rules of its format.
    #[error("malformed {format} file: {reason}")]
    Malformed {
        /// The format.
        format: Format,
        /// What is wrong.
        reason: String,
    },
    /// An entry of a file refers to another one that the file does not have.
    #[error("malformed {format} file: {index} is not one of its {length} {table}")]
    Index {
        /// The format.
        format: Format,
        /// What is referred to, in plural.
        table: &'static str,
        /// The reference.
        index: u64,
        /// How many there are.
        length: usize,
    },
    /// A value that the format cannot hold, or that a file must not have.
    #[error("{value} is no {what} in the {format} format")]
    Value {
        /// The format.
        format: Format,
        /// What the value is for.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// Reading on would take more memory than a profile may.
    #[error("the file holds more than {limit} {what}")]
    TooLarge {
        /// What there is too much of, in plural.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProfileError {
    pub(crate) fn unknown_content(bytes: &[u8]) -> Self {
        Self::UnknownContent { start: bytes[..bytes.len().min(16)].escape_ascii().to_string() }
    }
}

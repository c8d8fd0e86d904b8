//! The native format, `.flamewalk`: everything that a [`Profile`] holds, small.
//!
//! # Layout
//!
//! | bytes | what |
//! |---|---|
//! | 12 | `F5`, `flamewalk`, `CR`, `LF`: not UTF-8, and damaged by whatever converts line ends |
//! | 2 | version, little-endian |
//! | rest | a gzip stream of the tables, with its checksum |
//!
//! The tables are encoded by [postcard](https://postcard.jamesmunns.com/wire-format): numbers take as many bytes as
//! they need. Each column of a table stands by itself, as differences between neighbours where these are small, since
//! that is what compresses. Every text is stored once, and stacks are a tree, so that they share their older frames.
//! An optional reference is 0 if there is none, otherwise the index and 1.
//!
//! # Versions
//! A reader refuses a version that it does not know. Any change of the tables is a new version.

mod description;
mod parts;
mod restore;
mod tables;

use std::io::Write;

use crate::{Format, Profile, ProfileError, gzip};

/// How every file starts.
pub(crate) const MAGIC: &[u8; 12] = b"\xf5flamewalk\r\n";

/// The version that is written, and the only one that is read. In the first one bodies had other hashes, by which no function
/// would be found again.
const VERSION: u16 = 2;

/// Writes `profile`. Equal profiles give equal bytes.
///
/// # Errors
/// [`ProfileError::Io`] if `output` fails; [`ProfileError::Value`] if the start of the profile is more than 2⁶³
/// seconds away from 1970.
pub fn write(profile: &Profile, mut output: impl Write) -> Result<(), ProfileError> {
    output.write_all(MAGIC)?;
    output.write_all(&VERSION.to_le_bytes())?;
    gzip::pack(&mut output, |encoder| tables::write(profile, encoder))?;
    Ok(output.flush()?)
}

/// Reads a file. The result equals the profile that was written, down to the ids.
///
/// # Errors
/// [`ProfileError::UnknownContent`] if the bytes are no such file; [`ProfileError::Version`] if it is of another
/// version; [`ProfileError::Gzip`], [`ProfileError::Malformed`], [`ProfileError::Index`] or
/// [`ProfileError::Overflow`] if it is damaged; [`ProfileError::TooLarge`] if it would take too much memory.
pub fn read(bytes: &[u8]) -> Result<Profile, ProfileError> {
    let versioned = bytes.strip_prefix(MAGIC).ok_or_else(|| ProfileError::unknown_content(bytes))?;
    let Some((version, packed)) = versioned.split_first_chunk() else {
        return Err(malformed(&"the file ends before its version"));
    };
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(ProfileError::Version { found: version, read: VERSION });
    }
    let content = gzip::unpack(packed)?;
    let mut parts = parts::Parts(&content);
    let restored = parts.head()?.restore()?.with_stacks(parts.stacks()?)?.with_samples(parts.samples()?)?;
    match parts.0 {
        [] => Ok(restored),
        rest => Err(malformed(&format_args!("{} bytes after the tables", rest.len()))),
    }
}

fn malformed(reason: &dyn std::fmt::Display) -> ProfileError {
    ProfileError::Malformed { format: Format::Native, reason: reason.to_string() }
}

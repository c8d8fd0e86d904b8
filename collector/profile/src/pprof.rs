//! The format of pprof, `.pb.gz`: for `go tool pprof` and everything else that reads its `profile.proto`.
//!
//! # How a profile is written
//!
//! | in the file | what |
//! |---|---|
//! | sample types | `samples` in `count`, then the event in `nanoseconds` or `count`, which is what tools show first |
//! | function | the shown name ([`Names`](crate::Names)); as system name the function's own name, without module |
//! | location | one machine frame: several lines if functions were inlined into it, the youngest first |
//! | address | the bytecode offset, as an offset into the guest's binary |
//! | mapping | a guest module; it starts at address 0, as no native code does |
//! | labels | those of the sample; `thread` and `thread_id` for its thread |
//! | comments | the notices |
//!
//! An event that is itself called `samples`, as that of a file that has nothing else, is written as `samples_weight`, and
//! read as `samples` again. A sample's own label `thread` or `thread_id` is written with `label.` in front. Slices of time are merged.
//!
//! # What is read
//! Files of any origin, compressed or not. The value that counts is that of the default sample type, or the last;
//! units of time become nanoseconds. Module and own name of a function are believed if together they show as the
//! function's name, for all functions of the file; otherwise the name stays whole. Locations without a function are
//! named by their address. A sample without locations gets a `[truncated]` frame, so that its weight counts.

mod decode;
mod encode;
mod message;
mod parts;

use std::io::Write;

use prost::Message;

use crate::{Format, Profile, ProfileError, bounds, gzip};

const THREAD: &str = "thread";
const THREAD_ID: &str = "thread_id";
/// What an event is called that has the name of the number of samples.
const WEIGHT_OF_SAMPLES: &str = "samples_weight";
/// In front of a label that would otherwise be taken for that of the thread.
const OWN_LABEL: &str = "label.";

/// Whether a key is one of ours, or one with [`OWN_LABEL`] in front.
fn is_reserved(mut key: &str) -> bool {
    while let Some(rest) = key.strip_prefix(OWN_LABEL) {
        key = rest;
    }
    [THREAD, THREAD_ID].contains(&key)
}

/// Writes `profile`, compressed. Equal profiles give equal bytes.
///
/// # Errors
/// [`ProfileError::Value`] for a tally of 2⁶³ or more; [`ProfileError::Io`] if `output` fails.
pub fn write(profile: &Profile, output: impl Write) -> Result<(), ProfileError> {
    let bytes = encode::message(profile)?.encode_to_vec();
    gzip::pack(output, |encoder| Ok(encoder.write_all(&bytes)?))?.flush()?;
    Ok(())
}

/// Reads a file, compressed or not.
///
/// # Errors
/// [`ProfileError::Malformed`], [`ProfileError::Index`], [`ProfileError::Gzip`] or [`ProfileError::Overflow`] if it
/// is damaged, [`ProfileError::Value`] for a negative value, as in the difference of two profiles;
/// [`ProfileError::TooLarge`] if it would take too much memory.
pub fn read(bytes: &[u8]) -> Result<Profile, ProfileError> {
    if bytes.starts_with(gzip::MAGIC) { read_unpacked(&gzip::unpack(bytes)?) } else { read_unpacked(bytes) }
}

pub(crate) fn read_unpacked(content: &[u8]) -> Result<Profile, ProfileError> {
    bounds::within("bytes", content.len(), bounds::PPROF_CONTENT)?;
    decode::profile(parts::Parts::of(content)?)
}

fn malformed(reason: String) -> ProfileError {
    ProfileError::Malformed { format: Format::Pprof, reason }
}

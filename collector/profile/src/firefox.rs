//! The processed profile format of the [Firefox Profiler](https://profiler.firefox.com), `.json.gz`.
//!
//! Written here and not by `fxprof-processed-profile`: version 0.8 of that library knows neither source lines nor
//! inlined functions, and its weights are 32-bit integers.
//!
//! # How a profile is written
//!
//! | in the file | what |
//! |---|---|
//! | threads | those of the samples, once for each set of labels on them, which is in the name (if there are more than a hundred, the lighter ones of a thread are together, as `other labels`); each with tables of its own |
//! | functions | the shown names ([`Names`](crate::Names)) with their files; the library is the guest module |
//! | frames | line, column, how deep they were inlined, and the bytecode offset as address |
//! | categories | `Guest`, `Host call`, `Builtin`, `Host`; `Other` for missing frames |
//! | weights | milliseconds for an event of time, down to the nanosecond, otherwise numbers of events |
//! | times | the samples of a slice evenly over it, since their order in it is not known; without slices evenly over the run |
//! | CPU use | that of the samples, if the event is `cpu` |
//! | markers | `End` with how the run ended, on the first thread; each host call that such a thread was in throughout one or more slices |
//! | profile information | guest, command, event, engine, rates, notices, what became of the ticks |
//!
//! A few things for which the format has no place stand in members called `flamewalk`, and in the column `counts` the
//! number of samples behind each weight.
//!
//! # What is read
//! Files with tables of their own for each thread, as versions 49 to 55 have them, compressed or not, from whatever
//! program. Module and own name of a function are believed if together they show as its name. Samples without a stack
//! are time outside the guest. A thread of another program's file is numbered by its position.

mod file;
mod read;
mod thread;
mod timeline;
mod write;

use std::io::{BufWriter, Write};

use crate::{Format, Profile, ProfileError, gzip, json};

/// Writes `profile`, compressed. Equal profiles give equal bytes.
///
/// # Errors
/// [`ProfileError::Io`] if `output` fails.
pub fn write(profile: &Profile, output: impl Write) -> Result<(), ProfileError> {
    let file = write::file(profile);
    gzip::pack(output, |encoder| {
        // Without it, every number would be a call of the compressor.
        let mut buffer = BufWriter::new(encoder);
        serde_json::to_writer(&mut buffer, &file).map_err(std::io::Error::from)?;
        Ok(buffer.flush()?)
    })?
    .flush()?;
    Ok(())
}

/// Reads a file, compressed or not.
///
/// # Errors
/// [`ProfileError::Malformed`], [`ProfileError::Index`], [`ProfileError::Gzip`] or [`ProfileError::Overflow`] if it is
/// damaged or of another version, [`ProfileError::Value`] for a negative weight, as in the comparison of two profiles;
/// [`ProfileError::TooLarge`] if it would take too much memory.
pub fn read(bytes: &[u8]) -> Result<Profile, ProfileError> {
    if bytes.starts_with(gzip::MAGIC) { read_unpacked(&gzip::unpack(bytes)?) } else { read_unpacked(bytes) }
}

pub(crate) fn read_unpacked(content: &[u8]) -> Result<Profile, ProfileError> {
    json::check_size(content)?;
    let file = serde_json::from_slice(content).map_err(|error| malformed(error.to_string()))?;
    read::profile(file)
}

fn malformed(reason: String) -> ProfileError {
    ProfileError::Malformed { format: Format::Firefox, reason }
}

//! Reading profiles: from a file or standard input, in any format, and the part of it that was asked for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flamewalk::profile::{Format, Profile, ProfileError, format};
use flamewalk_flamegraphs::Filter;

use crate::failure::Failure;
use crate::progress::Progress;

/// More bytes are no profile, and would fill the memory.
const LARGEST: u64 = 1 << 30;

/// Reads a profile and leaves what `filter` keeps. `-` is standard input.
pub(crate) fn read(path: &Path, filter: &Filter) -> Result<Profile, Failure> {
    let doing = format!("reading {}", path.display());
    let _progress = Progress::start(false, move |_| Some(doing.clone()));
    let bytes = bytes(path)?;
    // Nothing is no stacks where stacks are lines. Anywhere else it is what became of a file.
    if bytes.is_empty() && Format::of_path(path).is_ok_and(|format| format != Format::Folded) {
        return Err(Failure::NotProfile { path: path.into(), reason: "it is empty".to_owned() });
    }
    let profile = format::read(&bytes).map_err(|error| match error {
        ProfileError::Io(source) => Failure::Read { path: path.into(), source },
        error => Failure::NotProfile { path: path.into(), reason: error.to_string() },
    })?;
    if filter.is_empty() {
        return Ok(profile);
    }
    let left = filter
        .apply(&profile)
        .map_err(|source| Failure::Filter { path: path.into(), reason: source.to_string() })?;
    if left.is_empty() && !profile.is_empty() {
        return Err(Failure::NothingLeft { path: path.into(), filter: filter.to_string() });
    }
    Ok(left)
}

fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    match path.to_str() {
        Some("-") => std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes),
        _ => File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)),
    }
    .map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        let reason = format!("it has more than {LARGEST} bytes");
        return Err(Failure::NotProfile { path: path.into(), reason });
    }
    Ok(bytes)
}

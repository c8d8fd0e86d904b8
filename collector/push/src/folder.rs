//! A folder of files, of which the last ones are kept.
//!
//! A file is called by the time when its window began and by its process, as `20260218T093000.000Z-4711.pb.gz`: names sort
//! as the times do. Several folders of a process, and several processes, can be one: a name that is taken, as it can be by
//! the process of the same number in another container, is followed by `-2` and so on. A file has its name only once it is
//! whole. Files of an earlier run count, those with other names do not and are left alone. What a process that was killed has not
//! finished is removed after a day.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flamewalk_profile::Format;
use flamewalk_profile::format::write;

use crate::error::PushError;
use crate::sink::{SendError, Sink};
use crate::timestamp::timestamp;
use crate::window::Window;

/// What the name of a file that is not whole yet begins with.
const UNFINISHED: &str = "unfinished-";
/// After which an unfinished file is nobody's any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of profiles.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    format: Format,
    max_files: usize,
    max_bytes: u64,
    max_age: Duration,
}

impl Folder {
    /// A folder, which is made if there is none, of pprof's files. It grows without a bound until it is given one.
    ///
    /// # Errors
    /// [`PushError::Folder`] if it cannot be made.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, PushError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|source| PushError::Folder { path: path.clone(), source })?;
        Ok(Self {
            path,
            format: Format::Pprof,
            max_files: usize::MAX,
            max_bytes: u64::MAX,
            max_age: Duration::MAX,
        })
    }

    /// In another format.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Keeps so many files at most, and at least the last one, as for the other bounds.
    pub fn max_files(mut self, files: usize) -> Self {
        self.max_files = files;
        self
    }

    /// Keeps so many bytes at most.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Keeps files that were written so long ago at most.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    fn write(&self, window: &Window) -> Result<PathBuf, flamewalk_profile::ProfileError> {
        let (unfinished, file) = self.unfinished()?;
        let written = (|| {
            let mut file = io::BufWriter::new(file);
            write(&window.profile, self.format, &mut file)?;
            file.into_inner().map_err(|error| error.into_error())?;
            Ok(self.give_name(&unfinished, window)?)
        })();
        if written.is_err() {
            // What is there of it takes room for nothing.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// A file that nobody else writes to.
    fn unfinished(&self) -> io::Result<(PathBuf, File)> {
        let process = std::process::id();
        let mut paths = (1..).map(|number: u64| self.path.join(format!("{UNFINISHED}{process}-{number}")));
        let made = paths.find_map(|path| match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            made => Some(made.map(|file| (path, file))),
        });
        made.unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
    }

    /// Gives a whole file the first name that is free.
    fn give_name(&self, unfinished: &Path, window: &Window) -> io::Result<PathBuf> {
        let (process, ending) = (std::process::id(), self.format.ending());
        let time = timestamp(window.begin);
        let more = (2..).map(|number: u64| format!("-{number}"));
        for more in std::iter::once(String::new()).chain(more) {
            let path = self.path.join(format!("{time}-{process}{more}{ending}"));
            match fs::hard_link(unfinished, &path) {
                Ok(()) => {
                    let _ = fs::remove_file(unfinished);
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // A file system on which a file has one name only. The other name is free then, and can be somebody else's: it
                // once was that it was removed as above.
                Err(_) if !path.exists() => return fs::rename(unfinished, &path).map(|()| path),
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes the oldest files until the bounds hold, but never `last`, and what was abandoned unfinished.
    fn remove_oldest(&self, last: &Path) -> io::Result<()> {
        let mut files: Vec<(PathBuf, fs::Metadata)> = Vec::new();
        let now = SystemTime::now();
        let age_of = |data: &fs::Metadata| {
            data.modified().ok().and_then(|time| now.duration_since(time).ok()).unwrap_or_default()
        };
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // One that another process has removed meanwhile needs no room.
            let Some(data) = entry.metadata().ok().filter(fs::Metadata::is_file) else { continue };
            let (name, path) = (entry.file_name(), entry.path());
            match name.to_str() {
                Some(name) if is_ours(name, self.format) => files.push((path, data)),
                Some(name) if is_unfinished(name) && age_of(&data) > ABANDONED => remove(&path)?,
                _ => {}
            }
        }
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut bytes: u64 = files.iter().map(|(_, data)| data.len()).sum();
        let mut count = files.len();
        for (path, data) in files {
            if count <= self.max_files && bytes <= self.max_bytes && age_of(&data) <= self.max_age {
                break;
            }
            if path != last {
                remove(&path)?;
                bytes -= data.len();
                count -= 1;
            }
        }
        Ok(())
    }
}

impl Sink for Folder {
    fn name(&self) -> String {
        format!("the folder {}", self.path.display())
    }

    fn send(&mut self, window: &Window) -> Result<(), SendError> {
        use flamewalk_profile::ProfileError;
        let path = self.write(window).map_err(|error| match error {
            // There may be room later, or the folder may be mounted again.
            ProfileError::Io(error) => SendError::temporary(error),
            other => SendError::refused(other),
        })?;
        // The window is kept, whatever becomes of the others.
        if let Err(error) = self.remove_oldest(&path) {
            tracing::warn!(folder = %self.path.display(), %error, "old profiles cannot be removed");
        }
        Ok(())
    }
}

/// Removes a file, if no other process has.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

/// Whether a file is called as this module calls those that are not whole yet.
fn is_unfinished(name: &str) -> bool {
    let numbers = name.strip_prefix(UNFINISHED).and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(process, number)| is_number(process.as_bytes()) && is_number(number.as_bytes()))
}

/// Whether a file is called as this module calls its own.
fn is_ours(name: &str, format: Format) -> bool {
    const PATTERN: &[u8] = b"00000000T000000.000Z-";
    let is_time = |name: &[u8]| {
        name.iter().zip(PATTERN).all(|(c, like)| if *like == b'0' { c.is_ascii_digit() } else { c == like })
    };
    name.strip_suffix(format.ending()).is_some_and(|name| {
        let (time, process) = name.as_bytes().split_at(name.len().min(PATTERN.len()));
        let mut numbers = process.splitn(2, |c| *c == b'-');
        time.len() == PATTERN.len() && is_time(time) && numbers.all(is_number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_not_ours() {
        assert!(is_ours("20260218T093000.000Z-4711.pb.gz", Format::Pprof));
        assert!(is_ours("20260218T093000.000Z-4711-2.pb.gz", Format::Pprof));
        for name in [
            "20260218T093000.000Z-4711-.pb.gz",
            "20260218T093000.000Z-4711-2-3.pb.gz",
            "20260218T093000.000Z-4711.folded",
            "20260218T093000.000Z-.pb.gz",
            "20260218T093000.000Z-4711x.pb.gz",
            "2026-218T093000.000Z-4711.pb.gz",
            "important.pb.gz",
            ".pb.gz",
            "unfinished-4711",
        ] {
            assert!(!is_ours(name, Format::Pprof), "{name}");
        }
    }
}

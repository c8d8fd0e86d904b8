//! Where profiles are written: the format by the file's ending, and the file opened before the guest runs.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use flamewalk::profile::{Profile, ProfileError, folded};
use flamewalk_flamegraphs::{FlamegraphError, Options, svg};

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Folded,
    Svg,
}

/// A file to write the profile to.
pub(crate) struct Output {
    path: PathBuf,
    format: Format,
    file: File,
    /// Whether the file was not there before and holds nothing yet: it goes if it is never written.
    is_blank: AtomicBool,
}

impl Output {
    /// Opens the file; what it holds stays until the profile is written.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let format = match () {
            () if name.ends_with(".folded") => Format::Folded,
            () if name.ends_with(".svg") => Format::Svg,
            () => return Err(Failure::OutputFormat { path: path.into() }),
        };
        let is_blank = AtomicBool::new(!path.exists());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| Failure::Write { path: path.into(), source })?;
        Ok(Self { path: path.into(), format, file, is_blank })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file's content by the profile.
    pub(crate) fn write(&self, profile: &Profile) -> Result<(), Failure> {
        let write = |source| Failure::Write { path: self.path.clone(), source };
        self.is_blank.store(false, Ordering::Relaxed);
        // A device or a pipe has no length.
        if self.file.metadata().map_err(write)?.is_file() {
            self.file.set_len(0).map_err(write)?;
        }
        let mut writer = BufWriter::new(&self.file);
        match self.format {
            Format::Folded => {
                folded::write(profile, folded::Value::Weight, &mut writer).map_err(|error| match error {
                    ProfileError::Io(source) => write(source),
                    other => Failure::Draw { path: self.path.clone(), reason: other.to_string() },
                })?;
            }
            Format::Svg => svg(profile, &Options::default(), &mut writer).map_err(|error| match error {
                FlamegraphError::Io(source) => write(source),
                other => Failure::Draw { path: self.path.clone(), reason: other.to_string() },
            })?,
        }
        writer.flush().map_err(write)
    }

    /// Leaves no empty file behind if the profile was not written.
    pub(crate) fn discard(&self) {
        if self.is_blank.swap(false, Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            eprintln!("flamewalk: cannot remove `{}`: {error}", self.path.display());
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.discard();
    }
}

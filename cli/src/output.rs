//! Where profiles and comparisons are written: the format by the file's ending, and the file opened before the work.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use flamewalk::profile::{Format, Profile, ProfileError, format};
use flamewalk_flamegraphs::report::{ReportOptions, html};
use flamewalk_flamegraphs::{FlamegraphError, Options, Orientation, svg};

use crate::failure::Failure;
use crate::sources::Sources;
use crate::terminal;

/// What stands for standard output, to which folded stacks are written, as what reads them from a pipe wants.
const STANDARD_OUTPUT: &str = "-";

/// What a file is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Profile(Format),
    Svg,
    Html,
}

impl OutputFormat {
    fn of(path: &Path) -> Result<Self, Failure> {
        if path == Path::new(STANDARD_OUTPUT) {
            return Ok(Self::Profile(Format::Folded));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match () {
            () if name.ends_with(".svg") => Ok(Self::Svg),
            () if name.ends_with(".html") => Ok(Self::Html),
            () => Format::of_path(path)
                .map(Self::Profile)
                .map_err(|_| Failure::OutputFormat { path: path.into(), known: endings() }),
        }
    }
}

fn endings() -> String {
    let of_profiles = Format::ALL.iter().flat_map(|format| format.endings().iter().copied());
    of_profiles.chain([".svg"]).collect::<Vec<_>>().join(", ") + " or .html"
}

/// A file to write to.
pub(crate) struct Output {
    path: PathBuf,
    format: OutputFormat,
    file: File,
    is_standard: bool,
    /// Of a flame graph.
    orientation: Orientation,
    /// Whether the file was not there before and holds nothing yet: it goes if it is never written.
    is_blank: AtomicBool,
}

impl Output {
    /// Opens the file; what it holds stays until it is written.
    fn open(path: &Path, orientation: Orientation) -> Result<Self, Failure> {
        let format = OutputFormat::of(path)?;
        let is_standard = path == Path::new(STANDARD_OUTPUT);
        let is_blank = AtomicBool::new(!is_standard && !path.exists());
        let file = match is_standard {
            true => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            false => OpenOptions::new().write(true).create(true).truncate(false).open(path),
        }
        .map_err(|source| Failure::Write { path: path.into(), source })?;
        Ok(Self { path: path.into(), format, file, is_standard, orientation, is_blank })
    }

    /// Refuses standard output where something else belongs there.
    pub(crate) fn not_standard(outputs: &[Self], other: &'static str) -> Result<(), Failure> {
        match outputs.iter().any(Self::is_standard) {
            true => Err(Failure::StandardOutput { other }),
            false => Ok(()),
        }
    }

    /// Whether this is standard output, where nothing else belongs then.
    pub(crate) fn is_standard(&self) -> bool {
        self.is_standard
    }

    /// Opens all of them; the first that cannot be opened is the failure.
    pub(crate) fn open_all(paths: &[PathBuf], orientation: Orientation) -> Result<Vec<Self>, Failure> {
        paths.iter().map(|path| Self::open(path, orientation)).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn format(&self) -> OutputFormat {
        self.format
    }

    /// Replaces the file's content by the profile; a report has the source texts that are at hand.
    pub(crate) fn write(&self, profile: &Profile, sources: &Sources) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Profile(to) => self.replace(|writer| format::write(profile, to, writer)),
            OutputFormat::Svg => {
                let mut options = Options::default();
                options.orientation = self.orientation;
                self.replace(|writer| svg(profile, &options, writer))
            }
            OutputFormat::Html => {
                let mut options = ReportOptions::default();
                options.sources = sources.texts(profile);
                self.replace(|writer| html(profile, &options, writer))
            }
        }
    }

    /// Replaces the file's content by what `write` writes.
    pub(crate) fn replace<E: WriteError>(
        &self,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
    ) -> Result<(), Failure> {
        let failed = |source| Failure::Write { path: self.path.clone(), source };
        self.is_blank.store(false, Ordering::Relaxed);
        // A device or a pipe has no length, and standard output may be the end of a file.
        if !self.is_standard && self.file.metadata().map_err(failed)?.is_file() {
            self.file.set_len(0).map_err(failed)?;
        }
        let mut writer = BufWriter::new(&self.file);
        let written =
            write(&mut writer).map_err(WriteError::into_io).and_then(|()| writer.flush().map_err(Ok));
        match written {
            Ok(()) => Ok(()),
            // A reader that has seen enough, such as `head`, is no failure.
            Err(Ok(source)) if self.is_standard && source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Ok(source)) => Err(failed(source)),
            Err(Err(reason)) => Err(Failure::Draw { path: self.path.clone(), reason }),
        }
    }

    /// Leaves no empty file behind if nothing was written.
    pub(crate) fn discard(&self) {
        if self.is_blank.swap(false, Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            terminal::say(format_args!("cannot remove `{}`: {error}", self.path.display()));
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.discard();
    }
}

/// An error of a function that writes: the system's, or else its reason.
pub(crate) trait WriteError {
    fn into_io(self) -> Result<io::Error, String>;
}

impl WriteError for ProfileError {
    fn into_io(self) -> Result<io::Error, String> {
        match self {
            Self::Io(source) => Ok(source),
            other => Err(other.to_string()),
        }
    }
}

impl WriteError for FlamegraphError {
    fn into_io(self) -> Result<io::Error, String> {
        match self {
            Self::Io(source) => Ok(source),
            other => Err(other.to_string()),
        }
    }
}

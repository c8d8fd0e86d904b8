//! Profiles and comparisons as files: the format by the file's ending. What cannot be written to is found before the work.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use flamewalk::profile::{Format, Profile, ProfileError, format};
use flamewalk_flamegraphs::report::{ReportOptions, html};
use flamewalk_flamegraphs::{FlamegraphError, Options, Orientation, svg};

use crate::destination::Destination;
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
    destination: Destination,
    is_standard: bool,
    /// Of a flame graph.
    orientation: Orientation,
}

impl Output {
    /// Sees that it can be written to; nothing is changed until it is.
    fn open(path: &Path, orientation: Orientation) -> Result<Self, Failure> {
        let format = OutputFormat::of(path)?;
        let is_standard = path == Path::new(STANDARD_OUTPUT);
        let destination = match is_standard {
            true => Destination::standard_output(),
            false => Destination::open(path),
        }
        .map_err(|source| Failure::Write { path: path.into(), source })?;
        Ok(Self { path: path.into(), format, destination, is_standard, orientation })
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

    /// Replaces the file by the profile; a report has the source texts that are at hand.
    fn write(&self, profile: &Profile, sources: &Sources) -> Result<(), Failure> {
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

    /// Replaces the file by one of what `write` writes.
    pub(crate) fn replace<E: WriteError>(
        &self,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
    ) -> Result<(), Failure> {
        match self.destination.write(write).map_err(WriteError::into_io) {
            Ok(()) => Ok(()),
            // A reader that has seen enough, such as `head`, is no failure.
            Err(Ok(source)) if self.is_standard && source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Ok(source)) => Err(Failure::Write { path: self.path.clone(), source }),
            Err(Err(reason)) => Err(Failure::Draw { path: self.path.clone(), reason }),
        }
    }
}

/// What became of the outputs, all of which are tried.
pub(crate) struct Written<'a>(Vec<(&'a Output, Result<(), Failure>)>);

impl<'a> Written<'a> {
    /// Writes the profile to each.
    pub(crate) fn profile(outputs: &'a [Output], profile: &Profile, sources: &Sources) -> Self {
        Self::each(outputs, |output| output.write(profile, sources))
    }

    /// Has `write` write to each.
    pub(crate) fn each(outputs: &'a [Output], write: impl Fn(&Output) -> Result<(), Failure>) -> Self {
        Self(outputs.iter().map(|output| (output, write(output))).collect())
    }

    /// Says which were written.
    pub(crate) fn say(&self) {
        for (output, _) in self.0.iter().filter(|(_, result)| result.is_ok()) {
            terminal::say(format_args!("wrote {}", output.path.display()));
        }
    }

    /// The first failure.
    pub(crate) fn result(self) -> Result<(), Failure> {
        self.0.into_iter().try_for_each(|(_, result)| result)
    }
}

/// An error of a function that writes: the system's, or else its reason.
pub(crate) trait WriteError: From<io::Error> {
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

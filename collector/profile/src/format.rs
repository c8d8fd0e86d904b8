//! The formats by their names: which one a file name asks for, and which one a file is in.

use std::{fmt, fs, io::Write, path::Path};

use crate::{Profile, ProfileError, firefox, folded, gzip, json, native, pprof, speedscope};

/// A file format of profiles.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Format {
    /// Everything the model has: [`native`], `.flamewalk`.
    Native,
    /// [`pprof`], `.pb.gz`.
    Pprof,
    /// Processed profiles of the Firefox Profiler: [`firefox`], `.json.gz`.
    Firefox,
    /// [`speedscope`], `.speedscope.json`.
    Speedscope,
    /// Folded stacks with weights: [`folded`], `.folded`.
    Folded,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Native, Self::Pprof, Self::Firefox, Self::Speedscope, Self::Folded];

    /// How the names of its files end.
    pub fn ending(self) -> &'static str {
        self.endings()[0]
    }

    /// All endings that stand for it, the usual one first: other tools call the same otherwise.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Native => &[".flamewalk"],
            Self::Pprof => &[".pb.gz", ".pprof"],
            Self::Firefox => &[".json.gz"],
            Self::Speedscope => &[".speedscope.json"],
            Self::Folded => &[".folded", ".collapsed"],
        }
    }

    /// The format that a file name asks for. Upper and lower case are the same.
    ///
    /// # Errors
    /// [`ProfileError::UnknownEnding`] if it ends in no way that a format is known by.
    pub fn of_path(path: &Path) -> Result<Self, ProfileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let is_meant = |format: &Self| format.endings().iter().any(|ending| name.ends_with(ending));
        let format = Self::ALL.into_iter().find(is_meant);
        format.ok_or_else(|| ProfileError::UnknownEnding { path: path.to_owned() })
    }

    /// The endings of all formats, for messages.
    pub(crate) fn known_endings() -> String {
        Self::ALL.map(|format| format.endings().join(", ")).join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "flamewalk",
            Self::Pprof => "pprof",
            Self::Firefox => "Firefox Profiler",
            Self::Speedscope => "speedscope",
            Self::Folded => "folded stacks",
        })
    }
}

/// Writes `profile`. Equal profiles give equal bytes.
///
/// # Errors
/// Those of the format's own function; [`ProfileError::Io`] if `output` fails.
pub fn write(profile: &Profile, format: Format, output: &mut impl Write) -> Result<(), ProfileError> {
    match format {
        Format::Native => native::write(profile, output),
        Format::Pprof => pprof::write(profile, output),
        Format::Firefox => firefox::write(profile, output),
        Format::Speedscope => speedscope::write(profile, output),
        Format::Folded => folded::write(profile, folded::Value::default(), output),
    }
}

/// Reads a file, in whatever format its content is.
///
/// # Errors
/// As for [`read`]; [`ProfileError::Io`] if there is no such file or it cannot be read.
pub fn read_file(path: &Path) -> Result<Profile, ProfileError> {
    read(&fs::read(path)?)
}

/// Reads the content of a file. The content tells the format.
///
/// # Errors
/// [`ProfileError::UnknownContent`] if it is in none; otherwise those of the format's own function.
pub fn read(bytes: &[u8]) -> Result<Profile, ProfileError> {
    if bytes.starts_with(native::MAGIC) {
        return native::read(bytes);
    }
    if bytes.starts_with(gzip::MAGIC) {
        return read_unpacked(&gzip::unpack(bytes)?);
    }
    read_unpacked(bytes)
}

fn read_unpacked(content: &[u8]) -> Result<Profile, ProfileError> {
    // Names in folded stacks may look like the start of anything else that is text, so that these are tried as well.
    if json::is_object(content) {
        return match json::format(content) {
            Ok(Format::Firefox) => firefox::read_unpacked(content),
            Ok(Format::Speedscope) => speedscope::read(content),
            Ok(_) => Err(ProfileError::unknown_content(content)),
            Err(error) => folded::read(content).map_err(|_| error),
        };
    }
    if is_text(content) {
        let refused = |error| if is_markup(content) { ProfileError::unknown_content(content) } else { error };
        return folded::read(content).map_err(refused);
    }
    match content.first() {
        // The sample types are the first field of the message.
        Some(b'\n') => pprof::read_unpacked(content),
        _ => Err(ProfileError::unknown_content(content)),
    }
}

/// Whether this is a page or a picture, of which there are many in the folders of profiles.
fn is_markup(content: &[u8]) -> bool {
    let start = content[..content.len().min(100)].trim_ascii_start().to_ascii_lowercase();
    ["<?xml", "<!", "<svg", "<html"].iter().any(|open| start.starts_with(open.as_bytes()))
}

/// Whether this can be folded stacks, which have no control characters.
fn is_text(content: &[u8]) -> bool {
    let start = &content[..content.len().min(4096)];
    !start.iter().any(|byte| byte.is_ascii_control() && !b"\t\r\n".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_asks_for_a_format() {
        for format in Format::ALL {
            for ending in format.endings() {
                let path = format!("some.dir/p.{}{}", "other", ending.to_uppercase());
                assert_eq!(Format::of_path(Path::new(&path)).unwrap(), format);
            }
        }
        for path in ["profile", "profile.svg", "flamewalk", "dir.folded/", ""] {
            match Format::of_path(Path::new(path)) {
                Err(ProfileError::UnknownEnding { path: named }) => assert_eq!(named, Path::new(path)),
                Ok(Format::Folded) if path == "dir.folded/" => {}
                other => panic!("{path} gives {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_profile_is_refused_by_its_start() {
        let refused = |content: &[u8]| match read(content) {
            Err(ProfileError::UnknownContent { start }) => start,
            other => panic!("{} gives {other:?}", content.escape_ascii()),
        };
        assert_eq!(refused(b"\0asm\x01\0\0\0"), "\\x00asm\\x01\\x00\\x00\\x00");
        assert_eq!(refused(b"\n<?xml version=\"1.0\"?><svg>"), "\\n<?xml version=\\\"");
        assert_eq!(refused(b"<!DOCTYPE html>"), "<!DOCTYPE html>");
        // Whatever the oldest frame is called.
        for folded in ["<T as Trait>::run 3\n", "<html;main 3\n", "<!;main 3", "{\"a\": 1};main 3", "{} 3"] {
            assert_eq!(read(folded.as_bytes()).unwrap().total().weight, 3, "{folded}");
        }
    }
}

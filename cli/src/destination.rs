//! Where an output goes: to a file, which is replaced by one that is whole or left as it is where another file can take its
//! place, or to what is no file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use tempfile::NamedTempFile;

pub(crate) enum Destination {
    /// Standard output, a pipe or a device: what is written to it is out of reach.
    Stream(File),
    /// No symbolic link: what it leads to, which may not be there yet.
    File { path: PathBuf, present: Option<File> },
}

impl Destination {
    pub(crate) fn standard_output() -> io::Result<Self> {
        Ok(Self::Stream(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    /// Sees that it can be written to. A file stays as it is until it is, and is not there until then if it is not.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match OpenOptions::new().write(true).open(path) {
            Ok(file) if file.metadata()?.is_file() => {
                Ok(Self::File { path: without_links(path), present: Some(file) })
            }
            Ok(file) => Ok(Self::Stream(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = without_links(path);
                access(folder(&path), AccessFlags::W_OK | AccessFlags::X_OK)?;
                Ok(Self::File { path, present: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes to it what `write` writes. If that fails, a file is as it was. (One that nothing can take the place of is not if
    /// there is no room for what was written.)
    pub(crate) fn write<E: From<io::Error>>(
        &self,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
    ) -> Result<(), E> {
        let write_to = |file: &File| {
            let mut writer = BufWriter::new(file);
            write(&mut writer)?;
            Ok(writer.flush()?)
        };
        match self {
            Self::Stream(file) => write_to(file),
            Self::File { path, present } => {
                let unfinished = unfinished(path, present.is_some())?;
                write_to(unfinished.as_file())?;
                Ok(match present {
                    None => unfinished.persist(path).map(drop).map_err(|failed| failed.error),
                    Some(present) => replace(present, path, unfinished),
                }?)
            }
        }
    }
}

/// A file that goes if it does not get another's name.
fn unfinished(path: &Path, is_present: bool) -> io::Result<NamedTempFile> {
    // What the umask leaves of it, as of every new file.
    let permissions = Permissions::from_mode(0o666);
    match tempfile::Builder::new().prefix(".flamewalk-").permissions(permissions).tempfile_in(folder(path)) {
        // A file can be written to in a folder that cannot.
        Err(_) if is_present => NamedTempFile::new(),
        other => other,
    }
}

/// Puts the new file in the place of the one that is present, with the same owner and permissions.
fn replace(present: &File, path: &Path, new: NamedTempFile) -> io::Result<()> {
    let metadata = present.metadata()?;
    let made_alike = fchown(new.as_file(), Some(metadata.uid()), Some(metadata.gid()))
        .and_then(|()| new.as_file().set_permissions(metadata.permissions()));
    let has_one_name = metadata.nlink() == 1;
    let mut new = match made_alike {
        Ok(()) if has_one_name => match new.persist(path) {
            Ok(_) => return Ok(()),
            Err(failed) => failed.file,
        },
        _ => new,
    };
    // It belongs to somebody else, has other names, is mounted where it is, or is in a folder that cannot be changed: it gets the
    // content.
    present.set_len(0)?;
    new.rewind()?;
    io::copy(&mut new, &mut &*present).map(drop)
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// What the path leads to, if it is one of a symbolic link, also if that is not there.
fn without_links(path: &Path) -> PathBuf {
    // Without a slash at the end, too, with which a file cannot be made.
    let mut path: PathBuf = path.components().collect();
    while let Ok(target) = path.read_link() {
        path = folder(&path).join(target);
    }
    path
}

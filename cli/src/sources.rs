//! The guest's source files on this machine.
//!
//! A guest's debug information can name any path. So a file is looked for below the directories that the user names, by
//! as many of the path's last parts as exist there, and nowhere else: a report never shows other files.

use std::path::{Path, PathBuf};

use flamewalk::profile::Profile;

use crate::failure::Failure;

/// Larger files are not written by people.
const LARGEST: u64 = 4 << 20;

/// Directories to look in, in this order.
pub(crate) struct Sources {
    directories: Vec<PathBuf>,
}

impl Sources {
    pub(crate) fn new(directories: &[PathBuf]) -> Result<Self, Failure> {
        let absolute = |directory: &PathBuf| {
            let read = |source| Failure::Read { path: directory.clone(), source };
            match directory.canonicalize().map_err(read)? {
                found if found.is_dir() => Ok(found),
                _ => Err(read(std::io::ErrorKind::NotADirectory.into())),
            }
        };
        Ok(Self { directories: directories.iter().map(absolute).collect::<Result<_, _>>()? })
    }

    /// The text of the file that the debug information calls `path`, if it is at hand.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        // The longest end of the path first, wherever it is: it says most.
        let ends = (0..parts.len()).map(|start| parts[start..].iter().collect::<PathBuf>());
        ends.flat_map(|end| self.directories.iter().map(move |directory| (directory, directory.join(&end))))
            .find_map(|(directory, file)| read_below(directory, &file))
    }

    /// The texts of all files that a profile's frames are in, by their paths as the frames have them.
    pub(crate) fn texts(&self, profile: &Profile) -> Vec<(String, String)> {
        if self.directories.is_empty() {
            return Vec::new();
        }
        let files = profile.frames().filter_map(|(_, frame)| frame.location.as_ref()).map(|at| &at.file);
        let files: std::collections::BTreeSet<_> = files.collect();
        files.into_iter().filter_map(|file| Some((file.to_string(), self.text(file)?))).collect()
    }
}

/// A text file, if it really is below the directory: links can lead out of it.
fn read_below(directory: &Path, file: &Path) -> Option<String> {
    let file = file.canonicalize().ok().filter(|file| file.starts_with(directory))?;
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && metadata.len() <= LARGEST).then_some(())?;
    Some(String::from_utf8_lossy(&std::fs::read(file).ok()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_the_end_of_its_path_and_only_below_the_directories() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("project");
        std::fs::create_dir_all(inner.join("src/a")).unwrap();
        let write = |path: &str| std::fs::write(outer.path().join(path), path).unwrap();
        ["project/src/a/lib.c", "project/src/lib.c", "project/lib.c", "secret.c"]
            .iter()
            .for_each(|path| write(path));
        std::os::unix::fs::symlink(outer.path().join("secret.c"), inner.join("link.c")).unwrap();
        let sources = Sources::new(&[inner.join("src"), inner.clone()]).unwrap();
        let found = |path: &str| sources.text(path);
        assert_eq!(found("/build/project/src/a/lib.c").as_deref(), Some("project/src/a/lib.c"));
        assert_eq!(found("C:\\work\\a\\lib.c").as_deref(), Some("project/src/a/lib.c"));
        assert_eq!(found("./b/../src/lib.c").as_deref(), Some("project/src/lib.c"));
        assert_eq!(found("/elsewhere/lib.c").as_deref(), Some("project/src/lib.c"));
        for path in ["secret.c", "../secret.c", "/../../secret.c", "link.c", "src", "", "/", "\0"] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(found(outer.path().join("secret.c").to_str().unwrap()), None);
        assert!(matches!(Sources::new(&[outer.path().join("absent")]), Err(Failure::Read { .. })));
        assert!(matches!(Sources::new(&[outer.path().join("secret.c")]), Err(Failure::Read { .. })));
    }
}

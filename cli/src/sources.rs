//! The guest's source files on this machine.
//!
//! A guest's debug information can name any path. So a file is looked for below the directories that the user names, by
//! as many of the path's last parts as exist there, and nowhere else: a report never shows other files.
//!
//! Guests are built elsewhere, so that the first parts of a path say nothing, and names such as `lib.rs` or `src/lib.rs` are
//! those of many files. So at least the file and its directory have to be the same, where names of the given directory
//! itself count: in `project/src`, `/build/src/lib.rs` is `lib.rs`, and `/build/tests/lib.rs` is not there. In paths of the standard library and
//! of dependencies ([`OF_OTHERS`]) the package has to be the same too.

use std::path::{Path, PathBuf};

use flamewalk::profile::Profile;

use crate::failure::Failure;

/// Larger files are not written by people.
const LARGEST: u64 = 4 << 20;

/// What comes before the name of a package that is not the project's own, in the paths of Rust's standard library and of
/// what Cargo fetches. `*` is any name.
const OF_OTHERS: [&[&str]; 6] = [
    &["rustc", "*", "library"],
    &["rustlib", "src", "rust", "library"],
    &["rust", "deps"],
    &["registry", "src", "*"],
    &["git", "checkouts"],
    &["vendor"],
];

/// A source file's text.
#[derive(Debug, PartialEq)]
pub(crate) struct SourceText {
    /// The file that it was read from.
    pub(crate) file: PathBuf,
    pub(crate) text: String,
}

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
    pub(crate) fn text(&self, path: &str) -> Option<SourceText> {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let least = least_parts(&parts);
        // The longest end of the path first, wherever it is: it says most.
        let places =
            (0..parts.len()).flat_map(|start| self.directories.iter().map(move |below| (start, below)));
        places
            .filter(|(start, below)| {
                let (above, end) = parts.split_at(*start);
                let names = below.iter().rev().zip(above.iter().rev());
                end.len() + names.take_while(|(name, part)| *name == **part).count() >= least
            })
            .find_map(|(start, below)| {
                read_below(below, &below.join(parts[start..].iter().collect::<PathBuf>()))
            })
    }

    /// The texts of all files that a profile's frames are in, by their paths as the frames have them.
    pub(crate) fn texts(&self, profile: &Profile) -> Vec<(String, String)> {
        if self.directories.is_empty() {
            return Vec::new();
        }
        let files = profile.frames().filter_map(|(_, frame)| frame.location.as_ref()).map(|at| &at.file);
        let files: std::collections::BTreeSet<_> = files.collect();
        files.into_iter().filter_map(|file| Some((file.to_string(), self.text(file)?.text))).collect()
    }
}

/// How many of a path's last parts have to be the same in a file that it names.
fn least_parts(parts: &[&str]) -> usize {
    let package = OF_OTHERS
        .iter()
        .filter_map(|before| {
            let is_there =
                |window: &[&str]| window.iter().zip(*before).all(|(part, name)| *name == "*" || part == name);
            Some(parts.windows(before.len()).position(is_there)? + before.len())
        })
        .min();
    package.map_or(2, |package| (parts.len() - package).max(2)).min(parts.len())
}

/// A text file, if it really is below the directory: links can lead out of it.
fn read_below(directory: &Path, file: &Path) -> Option<SourceText> {
    let file = file.canonicalize().ok().filter(|file| file.starts_with(directory))?;
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && metadata.len() <= LARGEST).then_some(())?;
    let text = String::from_utf8_lossy(&std::fs::read(&file).ok()?).into_owned();
    Some(SourceText { file, text })
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
        let found = |path: &str| sources.text(path).map(|found| found.text);
        assert_eq!(found("/build/project/src/a/lib.c").as_deref(), Some("project/src/a/lib.c"));
        assert_eq!(found("C:\\work\\a\\lib.c").as_deref(), Some("project/src/a/lib.c"));
        assert_eq!(found("./b/../src/lib.c").as_deref(), Some("project/src/lib.c"));
        assert_eq!(found("lib.c").as_deref(), Some("project/src/lib.c"));
        assert_eq!(found("/elsewhere/lib.c"), None);
        for path in ["secret.c", "../secret.c", "/../../secret.c", "link.c", "src", "", "/", "\0"] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(found(outer.path().join("secret.c").to_str().unwrap()), None);
        assert!(matches!(Sources::new(&[outer.path().join("absent")]), Err(Failure::Read { .. })));
        assert!(matches!(Sources::new(&[outer.path().join("secret.c")]), Err(Failure::Read { .. })));
    }

    /// Every `lib.rs` and `mod.rs` of the standard library and of dependencies was shown as the project's own.
    #[test]
    fn a_file_of_another_package_is_not_taken_for_the_projects_own() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        for path in ["src/lib.rs", "src/parse/mod.rs", "vendor/own/src/lib.rs"] {
            std::fs::create_dir_all(project.join(path).parent().unwrap()).unwrap();
            std::fs::write(project.join(path), path).unwrap();
        }
        let found = |directory: &str, path: &str| {
            let found = Sources::new(&[project.join(directory)]).unwrap().text(path)?;
            assert_eq!(found.file, project.canonicalize().unwrap().join(&found.text));
            Some(found.text)
        };
        for directory in ["src", "."] {
            for root in ["/home/me/project", "/build", "C:\\work"] {
                for path in ["src/lib.rs", "src/parse/mod.rs"] {
                    assert_eq!(found(directory, &format!("{root}/{path}")).as_deref(), Some(path));
                }
            }
            for package in [
                "/rustc/8e1c9a/library/core",
                "/home/me/.rustup/toolchains/stable/lib/rustlib/src/rust/library/std",
                "/rust/deps/hashbrown-0.15.2",
                "/home/me/.cargo/registry/src/index.crates.io-1949cf8c/serde-1.0.0",
                "/home/me/.cargo/git/checkouts/serde-6d/8e1c9a",
                "/build/vendor/serde",
            ] {
                for path in ["src/lib.rs", "src/parse/mod.rs"] {
                    assert_eq!(found(directory, &format!("{package}/{path}")), None, "{package}/{path}");
                }
            }
            for path in ["/usr/include/lib.rs", "/elsewhere/mod.rs"] {
                assert_eq!(found(directory, path), None, "{path}");
            }
        }
        let vendored = "vendor/own/src/lib.rs";
        assert_eq!(found(".", "/build/vendor/own/src/lib.rs").as_deref(), Some(vendored));
        assert_eq!(found("vendor", "/build/vendor/own/src/lib.rs").as_deref(), Some(vendored));
        assert_eq!(found("vendor/own/src", "/build/vendor/own/src/lib.rs").as_deref(), Some(vendored));
    }
}

//! The folder where guests are built and fetched on demand: `guests` in Cargo's target folder.
//!
//! Tests run in parallel, as threads and as processes. Whatever is made here is made once: under a file lock, in a
//! folder of its own that gets its final name only when it is complete.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::Error;

/// The folder of everything that is made on demand.
pub(crate) fn folder() -> PathBuf {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the package lies two folders deep");
    // A relative one is taken from the workspace's root, where Cargo is usually called.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    workspace.join(target).join("guests")
}

/// The folder `name`, with what `make` puts there the first time.
///
/// A name stands for its contents for good; `inputs`, which becomes part of the name, is everything that could change
/// them.
pub(crate) fn once(
    name: &str,
    inputs: impl Hash,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    once_in(&folder(), name, inputs, make)
}

fn once_in(
    folder: &Path,
    name: &str,
    inputs: impl Hash,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    let name = format!("{name}-{:016x}", hasher.finish());
    let complete = folder.join(&name);
    if complete.exists() {
        return Ok(complete);
    }
    fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    let lock_path = folder.join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path).map_err(Error::file("create", &lock_path))?;
    lock.lock().map_err(Error::file("lock", &lock_path))?;
    // Another process may have been making it while we waited.
    if complete.exists() {
        return Ok(complete);
    }
    let partial = folder.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(Error::file("remove", &partial))?;
    }
    fs::create_dir(&partial).map_err(Error::file("create", &partial))?;
    make(&partial)?;
    fs::rename(&partial, &complete).map_err(Error::file("rename", &partial))?;
    Ok(complete)
}

/// An empty folder that is removed when it is dropped.
pub(crate) fn scratch() -> Result<tempfile::TempDir, Error> {
    let folder = folder();
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    tempfile::tempdir_in(&folder).map_err(Error::file("create a folder in", &folder))
}

/// Runs `command` to its end and returns what it wrote.
pub(crate) fn run(command: &mut Command) -> Result<Output, Error> {
    let output = command.output().map_err(|source| Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Command {
        command: described(command),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The program and its arguments, to tell a person.
pub(crate) fn described(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn parallel_callers_make_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let made = AtomicUsize::new(0);
        let callers = 8;
        // All callers wait for each other, so that they ask at the same time.
        let start = std::sync::Barrier::new(callers);
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    start.wait();
                    let made_at = once_in(folder.path(), "thing", 1, |thing| {
                        made.fetch_add(1, Ordering::Relaxed);
                        fs::write(thing.join("file"), "contents").map_err(Error::file("write", thing))
                    });
                    assert_eq!(fs::read_to_string(made_at.unwrap().join("file")).unwrap(), "contents");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn other_inputs_make_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let make = |inputs| once_in(folder.path(), "thing", inputs, |_| Ok(())).unwrap();
        assert_ne!(make(1), make(2));
        assert_eq!(make(1), make(1));
    }

    #[test]
    fn what_has_failed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let failed = once_in(folder.path(), "thing", 1, |thing| {
            fs::write(thing.join("half"), "").unwrap();
            run(&mut Command::new("no-such-program")).map(drop)
        });
        assert!(matches!(failed, Err(Error::Start { program, .. }) if program == "no-such-program"));
        let made = once_in(folder.path(), "thing", 1, |_| Ok(())).unwrap();
        assert_eq!(fs::read_dir(made).unwrap().count(), 0, "nothing is left of the failed attempt");
    }

    #[test]
    fn a_failed_program_says_what_it_wrote() {
        let error = run(Command::new("sh").args(["-c", "echo oh no >&2; exit 3"])).unwrap_err();
        assert!(matches!(&error, Error::Command { status, .. } if status.code() == Some(3)));
        assert!(error.to_string().contains("oh no"), "{error}");
    }
}

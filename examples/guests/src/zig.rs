//! The C and C++ compiler of the guests: clang and wasm-ld as the PyPI package `ziglang` brings them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, on_demand};

/// The one version that the committed binaries come from.
const VERSION: &str = "0.17.0";

/// An installed Zig of the pinned version.
pub(crate) struct Zig {
    folder: PathBuf,
}

impl Zig {
    /// The package `ziglang` if Python has it in the pinned version, otherwise one installed on demand.
    pub(crate) fn pinned() -> Result<Zig, Error> {
        if let Some(folder) = python_package(None)? {
            return Ok(Zig { folder });
        }
        let requirement = format!("ziglang=={VERSION}");
        let packages = on_demand::once("ziglang", &requirement, |packages| {
            let mut install = Command::new("python3");
            install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            install
                .args(["--root-user-action=ignore", "--no-deps", "--target"])
                .arg(packages)
                .arg(&requirement);
            on_demand::run(&mut install).map(drop)
        })?;
        match python_package(Some(&packages))? {
            Some(folder) => Ok(Zig { folder }),
            None => {
                Err(Error::Missing { command: format!("pip install {requirement}"), missing: "zig".into() })
            }
        }
    }

    /// The folder of the compiler and its headers.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command of zig's: `cc`, `c++`, `wasm-ld`.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("zig"));
        let cache = on_demand::folder().join("zig-cache");
        command.arg(name).env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
        command
    }
}

/// Where Python finds `ziglang` in the pinned version, looking in `packages` first.
fn python_package(packages: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    const FIND: &str = "\
import importlib.metadata, os, sys
try:
    import ziglang
    print(importlib.metadata.version('ziglang'), os.path.dirname(ziglang.__file__), end='')
except ImportError:
    pass";
    let mut find = Command::new("python3");
    find.args(["-c", FIND]);
    if let Some(packages) = packages {
        find.env("PYTHONPATH", packages);
    }
    let output = on_demand::run(&mut find)?;
    let answer = String::from_utf8_lossy(&output.stdout);
    Ok(answer.split_once(' ').filter(|(version, _)| *version == VERSION).map(|(_, folder)| folder.into()))
}

/// What `-ffile-prefix-map` is told: `from` shows as `to` in everything that the compiler writes down.
pub(crate) fn prefix_map(from: &Path, to: impl AsRef<OsStr>) -> OsString {
    let mut option = OsString::from("-ffile-prefix-map=");
    option.push(from);
    option.push("=");
    option.push(to);
    option
}

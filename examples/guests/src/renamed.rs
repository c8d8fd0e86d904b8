//! Guests in two builds each, to find the functions of the one in the other.

use std::fs;
use std::path::{Path, PathBuf};

use crate::committed::compile;
use crate::zig::Zig;
use crate::{Error, on_demand};

/// A guest in Rust, built twice, with names: the second time with other crate hashes, and with functions and closures
/// inserted among the others. `mangling` is `legacy` or `v0`.
///
/// Committed, with source and build command, in `sources/renamed`.
pub fn rust_builds(mangling: &str) -> [PathBuf; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sources/renamed");
    [format!("{mangling}.wasm"), format!("{mangling}_inserted.wasm")].map(|name| folder.join(name))
}

/// C++ with templates, lambdas and virtual calls that are not inlined, built twice, with names: the second time with its
/// two units in the other order, so that every function has another index.
///
/// # Errors
///
/// No Python or package registry; a compiler that fails; a target folder that cannot be written.
pub fn cpp_builds() -> Result<[PathBuf; 2], Error> {
    const UNITS: [&str; 2] = ["inlined/main.cpp", "inlined/shapes.cpp"];
    // Without inlining it takes ten times as long: a few pictures are enough.
    const OPTIONS: &[&str] =
        &["-std=c++20", "-fno-exceptions", "-fno-rtti", "-fno-inline", "-DPICTURES_DRAWN=8"];
    let names = ["built.wasm", "reordered.wasm"];
    let folder = on_demand::once("cpp", OPTIONS, |folder| {
        let zig = Zig::pinned()?;
        for (name, units) in names.into_iter().zip([UNITS, [UNITS[1], UNITS[0]]]) {
            let path = folder.join(name);
            let binary = compile(&zig, &units, OPTIONS, Some("_start"))?;
            fs::write(&path, binary).map_err(Error::file("write", &path))?;
        }
        Ok(())
    })?;
    Ok(names.map(|name| folder.join(name)))
}

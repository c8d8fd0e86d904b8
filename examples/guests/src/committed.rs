//! The committed guests: sources in `sources/`, binaries in `wasm/`, and how the ones become the others.

use std::fs;
use std::path::{Path, PathBuf};

use crate::zig::{Zig, prefix_map};
use crate::{Error, on_demand};

/// A guest of our own, whose binary is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guest {
    /// Shares of time fixed by construction ([`KNOWN_ANSWER`](crate::KNOWN_ANSWER)); a WASI command, `--rounds N`, about
    /// five seconds. Its host call is `random_get`.
    KnownAnswer,
    /// The same work as a library without WASI: exports `run(rounds: i32) -> i64` and imports `env.burn(steps: i32)`,
    /// which the embedder implements with [`chain`](crate::chain).
    KnownAnswerHost,
    /// A function whose lines and inlined functions have known shares ([`KNOWN_LINES`](crate::KNOWN_LINES)): exports
    /// `run(rounds: i32) -> i64`, a round takes about 20 microseconds.
    Lines,
    /// C++ in which nearly every function is inlined; a WASI command, about a second.
    Inlined,
    /// A WASI command that ends as it is told: `trap`, `exit STATUS`, `return`, `recurse LEVELS`, `overflow`, `forever`.
    Exits,
    /// A WASI command that writes and reads through the host: `[LINES [FILE PASSES]]`.
    HostCalls,
    /// A WASI command whose time goes to the `memory.grow` builtin, about a second.
    MemoryGrow,
    /// A library without WASI that exports functions with parameters: `fibonacci`, `chain`, `scale_f32`, `scale_f64`,
    /// `no_result`, `divide`.
    Reactor,
    /// A WASI command that is over before any timer can tick.
    Nothing,
    /// A command with an import that no host has: `env.not_there`.
    MissingImport,
}

/// How a guest is made from its sources.
enum Build {
    /// Compiled with these options from these sources, and linked with `entry` as the first function to run.
    Clang { sources: &'static [&'static str], options: &'static [&'static str], entry: Option<&'static str> },
    /// Assembled from the text format.
    Text { source: &'static str },
}

/// For every C and C++ guest. No libc, so no compiler knowledge of its functions either: a loop that copies bytes must
/// not become a call of a `memcpy` that nobody links.
const CLANG_OPTIONS: &[&str] = &[
    "-target",
    "wasm32-wasi",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-parentheses",
    "-ffreestanding",
];
const INLINED_OPTIONS: &[&str] = &["-std=c++20", "-fno-exceptions", "-fno-rtti", "-DPICTURES_DRAWN=150"];
const LINK_OPTIONS: &[&str] = &["-z", "stack-size=65536"];

/// What the sources' folder is called in DWARF, whatever it is called where they are compiled.
pub const SOURCES_IN_DWARF: &str = "/flamewalk/examples/guests/sources";
/// What the compiler's own folder, with its headers, is called in DWARF.
pub const ZIG_IN_DWARF: &str = "/zig";

impl Guest {
    /// All committed guests.
    pub const ALL: [Guest; 10] = [
        Guest::KnownAnswer,
        Guest::KnownAnswerHost,
        Guest::Lines,
        Guest::Inlined,
        Guest::Exits,
        Guest::HostCalls,
        Guest::MemoryGrow,
        Guest::Reactor,
        Guest::Nothing,
        Guest::MissingImport,
    ];

    /// The guest's name: its binary's without the ending.
    pub fn name(self) -> &'static str {
        match self {
            Guest::KnownAnswer => "known_answer",
            Guest::KnownAnswerHost => "known_answer_host",
            Guest::Lines => "lines",
            Guest::Inlined => "inlined",
            Guest::Exits => "exits",
            Guest::HostCalls => "host_calls",
            Guest::MemoryGrow => "memory_grow",
            Guest::Reactor => "reactor",
            Guest::Nothing => "nothing",
            Guest::MissingImport => "missing_import",
        }
    }

    /// The committed binary.
    pub fn path(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm").join(self.name()).with_extension("wasm")
    }

    /// Whether the binary holds DWARF: the guests in C and C++ do, those in the text format do not.
    pub fn has_dwarf(self) -> bool {
        matches!(self.build(), Build::Clang { .. })
    }

    fn build(self) -> Build {
        const COMMAND: Option<&str> = Some("_start");
        const NO_OPTIONS: &[&str] = &[];
        match self {
            Guest::KnownAnswer => {
                Build::Clang { sources: &["known_answer.c"], options: NO_OPTIONS, entry: COMMAND }
            }
            Guest::KnownAnswerHost => {
                Build::Clang { sources: &["known_answer.c"], options: &["-DHOST_BURN"], entry: None }
            }
            Guest::Lines => Build::Clang { sources: &["lines.c"], options: NO_OPTIONS, entry: None },
            Guest::Inlined => Build::Clang {
                sources: &["inlined/main.cpp", "inlined/shapes.cpp"],
                options: INLINED_OPTIONS,
                entry: COMMAND,
            },
            Guest::Exits => Build::Clang { sources: &["exits.c"], options: NO_OPTIONS, entry: COMMAND },
            Guest::HostCalls => {
                Build::Clang { sources: &["host_calls.c"], options: NO_OPTIONS, entry: COMMAND }
            }
            Guest::MemoryGrow => Build::Text { source: "memory_grow.wat" },
            Guest::Reactor => Build::Clang { sources: &["reactor.c"], options: NO_OPTIONS, entry: None },
            Guest::Nothing => Build::Text { source: "nothing.wat" },
            Guest::MissingImport => Build::Text { source: "missing_import.wat" },
        }
    }
}

/// Builds every committed guest anew from its sources; the binaries in the order of [`Guest::ALL`].
///
/// # Errors
///
/// Any but [`Error::Component`]: no Python, no package registry, a source that does not compile.
pub fn rebuild() -> Result<Vec<(Guest, Vec<u8>)>, Error> {
    let zig = Zig::pinned()?;
    Guest::ALL.into_iter().map(|guest| Ok((guest, build(guest, &zig)?))).collect()
}

/// The guests whose committed binary is not what their sources give.
///
/// # Errors
///
/// Those of [`rebuild`].
pub fn stale() -> Result<Vec<Guest>, Error> {
    let rebuilt = rebuild()?;
    Ok(rebuilt
        .into_iter()
        .filter(|(guest, binary)| fs::read(guest.path()).ok().as_ref() != Some(binary))
        .map(|(guest, _)| guest)
        .collect())
}

fn build(guest: Guest, zig: &Zig) -> Result<Vec<u8>, Error> {
    match guest.build() {
        Build::Clang { sources, options, entry } => compile(zig, sources, options, entry),
        Build::Text { source } => {
            let path = sources_folder().join(source);
            wat::parse_file(&path).map_err(|source| Error::Text { path, source })
        }
    }
}

pub(crate) fn compile(
    zig: &Zig,
    sources: &[&str],
    options: &[&str],
    entry: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let folder = sources_folder();
    let scratch = on_demand::scratch()?;
    let mut objects = Vec::new();
    for source in sources {
        let object = scratch.path().join(format!("{}.o", objects.len()));
        let mut command = zig.command(if source.ends_with(".cpp") { "c++" } else { "cc" });
        // The sources are named relative to their folder, and every absolute path is mapped: nothing of this machine
        // may get into the binary.
        command.current_dir(&folder).args(CLANG_OPTIONS).args(options);
        command.arg(prefix_map(&folder, SOURCES_IN_DWARF)).arg(prefix_map(zig.folder(), ZIG_IN_DWARF));
        on_demand::run(command.args(["-c", source, "-o"]).arg(&object))?;
        objects.push(object);
    }
    let binary = scratch.path().join("guest.wasm");
    let mut link = zig.command("wasm-ld");
    link.args(LINK_OPTIONS).args(entry.map_or(vec!["--no-entry"], |entry| vec!["--entry", entry]));
    on_demand::run(link.args(&objects).arg("-o").arg(&binary))?;
    fs::read(&binary).map_err(Error::file("read", &binary))
}

fn sources_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sources")
}

//! Real programs in unmodified embeddings of other versions of Wasmtime, next to `flamewalk run` of the same programs.
//!
//! Both profiles are of one whole run with the same arguments, so that all phases of a program have the same part in them.
//! `FLAMEWALK_ATTACH_ROUNDS` is how many rounds of work a run does (see the guests' sources): more rounds, more samples,
//! and less that chance explains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use flamewalk_guests::{cpython, cpython_script, python_wasmtime, sqlite};
use wasmparser::{KnownCustom, Name, Parser, Payload};

use crate::running::Attached;
use crate::support::{Folded, Folder, Outcome, flamewalk_run};
use crate::{NEWEST, Program};

/// Versions whose C library has unwind information only in part. The machine code of the second one is another: there
/// `sqlite3VdbeExec` has 16 to 18 % of SQLite's time at each rate, and 14 % in later versions, so that shares are not compared.
const OLDER: &str = "36.0.0";
const OLDEST: &str = "25.0.0";
const RATE: f64 = 1999.0;
/// Frames of CPython fill the 32 KiB that are copied otherwise.
const WHOLE_STACK: [&str; 2] = ["--stack-bytes", "64512"];

/// A run of a program: the same in each embedding.
struct Run {
    guest: PathBuf,
    /// What the guest sees as `/guests`.
    folder: Option<PathBuf>,
    arguments: Vec<String>,
}

fn rounds(short: u32) -> String {
    std::env::var("FLAMEWALK_ATTACH_ROUNDS").unwrap_or_else(|_| short.to_string())
}

impl Run {
    fn of_sqlite() -> Self {
        Self { guest: sqlite().unwrap(), folder: None, arguments: vec![rounds(12)] }
    }

    fn of_cpython() -> Self {
        let script = cpython_script();
        let inside = format!("/guests/{}", script.file_name().unwrap().display());
        let folder = script.parent().map(Path::to_owned);
        Self { guest: cpython().unwrap(), folder, arguments: vec![inside, rounds(4)] }
    }

    /// In Python, with Wasmtime of this version. It waits for a line before the guest begins, and ends with it.
    fn in_python(&self, version: &str) -> Program {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach/once.py");
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", python_wasmtime(version).unwrap()).arg(script);
        if let Some(folder) = &self.folder {
            command.arg("--dir").arg(folder);
        }
        Program::start(command.arg(&self.guest).args(&self.arguments))
    }

    /// From outside: the whole run, by two at once. One knows the guest's binary and shows the host's frames; the other is as
    /// one who knows nothing would call it.
    fn profiled_from_outside(&self, version: &str) -> [Folded; 2] {
        let mut program = self.in_python(version);
        let guest = self.guest.to_str().unwrap();
        let rate = RATE.to_string();
        let informed = [&["--freq", &rate, "--symbols", guest, "--host-frames"], &WHOLE_STACK[..]].concat();
        let attached =
            [Attached::start(program.id(), &informed), Attached::start(program.id(), &["--freq", &rate])];
        program.go();
        attached.map(|attached| {
            let (folded, outcome) = attached.end();
            assert!(outcome.stderr.contains("has ended while it was sampled"), "{}", outcome.stderr);
            folded
        })
    }

    fn profiled_by_run(&self) -> Folded {
        let folder = Folder::new();
        let output = folder.path("run.folded");
        let mut command = flamewalk_run();
        command.args(["--freq", &RATE.to_string(), "-o"]).arg(&output);
        if let Some(folder) = &self.folder {
            command.args(["--dir", &format!("{}::/guests", folder.display())]);
        }
        let outcome = Outcome::of(command.arg(&self.guest).args(&self.arguments).output().unwrap());
        assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
        Folded::read(&output)
    }
}

fn is_host_call(frame: &str) -> bool {
    frame.starts_with("[host] ") || frame.starts_with("[builtin] ")
}

/// What the guest itself did: of each function the share of the weight with it as the youngest frame, and with it anywhere
/// in the stack. Samples in host calls are left out: what a call costs is the embedding's own matter.
fn shares(folded: &Folded, is_guests: impl Fn(&str) -> bool) -> BTreeMap<(String, &'static str), f64> {
    let stacks = || folded.0.iter().filter(|(stack, _)| !stack.iter().any(|frame| is_host_call(frame)));
    let total: u64 = stacks().map(|(_, weight)| weight).sum();
    let mut shares = BTreeMap::new();
    for (stack, weight) in stacks() {
        let share = *weight as f64 / total as f64;
        let functions: BTreeSet<&String> = stack.iter().filter(|frame| is_guests(frame)).collect();
        for function in functions {
            *shares.entry((function.clone(), "total")).or_default() += share;
        }
        *shares.entry((stack.last().unwrap().clone(), "self")).or_default() += share;
    }
    shares
}

/// No function's share differs by more than two points, and what chance explains: four standard deviations of the difference of
/// two binomial shares.
fn check_same_shares(outside: &Folded, inside: &Folded, what: &str) {
    let frames: BTreeSet<&str> = inside.0.iter().flat_map(|(stack, _)| stack).map(String::as_str).collect();
    let samples = |folded: &Folded| folded.total() as f64 * 1e-9 * RATE;
    let chance = 1.0 / samples(outside) + 1.0 / samples(inside);
    let (outside, inside) =
        (shares(outside, |frame| frames.contains(frame)), shares(inside, |frame| frames.contains(frame)));
    let functions: BTreeSet<_> = outside.keys().chain(inside.keys()).collect();
    let share = |shares: &BTreeMap<_, f64>, function| shares.get(function).copied().unwrap_or(0.0);
    let mut largest = (0.0, String::new());
    for function in functions {
        let (found, expected) = (share(&outside, function), share(&inside, function));
        let both = f64::midpoint(found, expected).min(1.0);
        let allowed = 0.02 + 4.0 * (both * (1.0 - both) * chance).sqrt();
        let (name, kind) = function;
        let difference = (found - expected).abs();
        assert!(difference < allowed, "{what}: {name} has {found:.4} ({kind}), run says {expected:.4}");
        if difference > largest.0 {
            largest = (difference, format!("{name} ({kind}): {found:.4}, run {expected:.4}"));
        }
    }
    let chance = 100.0 * 4.0 * (0.25 * chance).sqrt();
    println!("{what}: largest difference: {}; chance explains {chance:.1} points at most", largest.1);
}

/// The names that the binary has for its functions, those of all its modules.
pub(crate) fn names(guest: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(guest).unwrap();
    let mut names = BTreeSet::new();
    for payload in Parser::new(0).parse_all(&bytes) {
        let Payload::CustomSection(section) = payload.unwrap() else { continue };
        let KnownCustom::Name(subsections) = section.as_known() else { continue };
        for subsection in subsections {
            if let Name::Function(functions) = subsection.unwrap() {
                names.extend(functions.into_iter().map(|naming| naming.unwrap().name.to_owned()));
            }
        }
    }
    names
}

/// One who knows nothing but the process sees the guest's names, and nothing else but host calls and cut stacks.
fn check_names(folded: &Folded, is_name: impl Fn(&str) -> bool, what: &str) {
    for frame in folded.0.iter().flat_map(|(stack, _)| stack) {
        assert!(is_name(frame) || is_host_call(frame) || frame == "[truncated]", "{what}: {frame}");
    }
}

#[test]
fn sqlite_has_the_shares_that_run_sees() {
    let run = Run::of_sqlite();
    let inside = run.profiled_by_run();
    let names = names(&run.guest);
    assert!(names.len() > 1000, "{}", names.len());
    for version in [NEWEST, OLDER, OLDEST] {
        let [informed, other] = run.profiled_from_outside(version);
        if version != OLDEST {
            check_same_shares(&informed, &inside, &format!("SQLite on {version}"));
        }
        check_names(&other, |frame| names.contains(frame), version);
        assert!(other.share(|stack| stack.iter().any(|frame| frame == "sqlite3VdbeExec")) > 0.2);
    }
}

#[test]
fn cpython_has_the_shares_that_run_sees_and_its_host_calls_are_named() {
    let run = Run::of_cpython();
    let inside = run.profiled_by_run();
    // It has no names; this function has one as an export.
    let is_name = |frame: &str| {
        let index = frame.strip_prefix("wasm-function[").and_then(|rest| rest.strip_suffix(']'));
        frame == "_start" || index.is_some_and(|index| index.parse::<u32>().is_ok())
    };
    for version in [NEWEST, OLDER, OLDEST] {
        let [informed, other] = run.profiled_from_outside(version);
        if version != OLDEST {
            check_same_shares(&informed, &inside, &format!("CPython on {version}"));
        }
        check_names(&other, is_name, version);
        check_host_calls(&informed, version);
    }
}

/// Host calls are of imports by name, and Wasmtime's own functions below them have names, too.
///
/// It once was that a program that had ended when its profile was made had no names for native functions: their files were
/// looked for below a folder that goes with the process.
fn check_host_calls(folded: &Folded, version: &str) {
    let mut below = 0;
    for (stack, _) in &folded.0 {
        for frame in stack {
            assert!(frame != "[host] unknown import", "{version}: {stack:?}");
            assert!(!frame.starts_with("_libwasmtime.so+"), "{version}: {stack:?}");
        }
        let call = stack.iter().position(|frame| frame.starts_with("[host] wasi_snapshot_preview1."));
        let functions = call.map_or(&[][..], |call| &stack[call + 1..]);
        below += usize::from(functions.iter().any(|frame| frame.contains("wasi")));
    }
    assert!(below > 0, "{version}: {folded:?}");
}

//! Images of code that are half written, or damaged: told once, and everything else is profiled.

use std::path::Path;
use std::process::Command;

use flamewalk_guests::python_wasmtime;

use crate::{NEWEST, Program, check_shares, guest, profile, without_modules};

pub(crate) fn program(mode: &str) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach/damaged.py");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python_wasmtime(NEWEST).unwrap());
    Program::start(command.arg(script).arg(mode).arg(guest()))
}

#[test]
fn damaged_images_are_told_once_and_the_others_are_profiled() {
    let (folded, outcome) = profile(&program("beside"), &["-d", "2", "--freq", "1999"]);
    let mut notices: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.contains("code of a guest")).collect();
    let all = notices.len();
    notices.sort_unstable();
    notices.dedup();
    assert_eq!(notices.len(), all, "each is told once: {}", outcome.stderr);
    assert!(notices.iter().any(|line| line.contains("is damaged")), "{}", outcome.stderr);
    // Damaged ones that are understood take a number, as all do.
    check_shares(&without_modules(folded, str::to_owned), 1999.0, "beside damaged images");
}

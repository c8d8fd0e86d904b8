//! The real programs compute what they compute elsewhere.

use std::process::Command;

use flamewalk_guests::{cpython, cpython_script, sqlite};

use crate::host::{End, run_command};

/// The checksum is that of a native build (gcc) of the same driver and the same amalgamation.
#[test]
fn sqlite_answers_as_it_does_natively() {
    let path = sqlite().unwrap();
    assert_eq!(path, sqlite().unwrap(), "the second call finds what the first has built");
    let run = run_command(&std::fs::read(path).unwrap(), &["1"], None);
    assert_eq!(run.end, End::Returned, "{}", run.stderr);
    assert_eq!(run.stdout, "SQLite 3.54.1 checksum 23765dbc478f4aef\n");
}

/// Python is there: the compiler comes through it.
#[test]
fn cpython_answers_as_the_native_one_does() {
    let script = cpython_script();
    let native = Command::new("python3").arg(&script).arg("1").output().unwrap();
    assert!(native.status.success());
    let name = format!("/guests/{}", script.file_name().unwrap().to_str().unwrap());
    let guest = std::fs::read(cpython().unwrap()).unwrap();
    let run = run_command(&guest, &[&name, "1"], script.parent());
    assert_eq!((run.end, run.stderr.as_str()), (End::Returned, ""));
    assert_eq!(run.stdout, String::from_utf8(native.stdout).unwrap());
}

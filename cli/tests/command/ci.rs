//! The recipe in `examples/ci`, as a workflow runs it.

use std::path::Path;
use std::process::{Command, Stdio};

use flamewalk_guests::Guest;

use crate::finish;
use crate::support::Folder;

fn compare() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ci/compare");
    let mut command = Command::new(script);
    command.env("FLAMEWALK", env!("CARGO_BIN_EXE_flamewalk")).env("RUNS", "2").env("FREQ", "4999");
    command.stdin(Stdio::null());
    command
}

/// Chance does not make a difference of 20 points.
#[test]
fn the_same_build_passes_and_another_program_fails() {
    let folder = Folder::new();
    let summary = folder.path("summary.md");
    let base = Guest::KnownAnswer.path();
    for (name, new, status) in [("same", Guest::KnownAnswer, 0), ("other", Guest::MemoryGrow, 1)] {
        let output = folder.path(name);
        let mut command = compare();
        command.arg(&base).arg(new.path()).arg(&output).args(["--rounds", "100"]);
        command.env("FAIL_ABOVE", "20").env("GITHUB_STEP_SUMMARY", &summary);
        let outcome = finish(&mut command);
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
        let read = |file: &str| std::fs::read_to_string(output.join(file)).unwrap();
        assert_eq!(outcome.stdout, read("comparison.md"));
        assert!(read("comparison.md").contains("straight"));
        assert!(read("comparison.svg").contains("</svg>") && read("comparison.html").contains("<html"));
        let json: serde_json::Value = serde_json::from_str(&read("comparison.json")).unwrap();
        assert_eq!((&json["base"]["profiles"], &json["new"]["profiles"]), (&2.into(), &2.into()));
        assert!(std::fs::read_to_string(&summary).unwrap().ends_with(&outcome.stdout));
    }
}

#[test]
fn a_guest_that_fails_is_not_compared() {
    let folder = Folder::new();
    let output = folder.path("comparison");
    let mut command = compare();
    command.arg(Guest::Exits.path()).arg(Guest::Exits.path()).arg(&output).arg("trap");
    let outcome = finish(&mut command);
    assert_eq!(outcome.status, Some(134), "{outcome:?}");
    assert!(!output.join("comparison.md").exists());
    let usage = finish(&mut compare());
    assert_eq!(usage.status, Some(2), "{usage:?}");
    assert!(usage.stderr.contains("compare BASE.wasm NEW.wasm FOLDER"), "{usage:?}");
}

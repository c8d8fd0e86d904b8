//! Programs that nobody here wrote.

use flamewalk_guests::{cpython, cpython_script, sqlite};
use serde_json::Value;

use crate::support::{Folder, flamewalk, flamewalk_run};

/// CPython's DWARF was left over by a tool that rewrote the code: each address in it is 0. Believed, it would give
/// every function the same wrong name and line.
#[test]
fn cpython_has_indices_for_names_and_one_notice() {
    let script = cpython_script();
    let directory = format!("{}::/guests", script.parent().unwrap().display());
    let inside = format!("/guests/{}", script.file_name().unwrap().display());
    let folder = Folder::new();
    let (outcome, profile) =
        crate::profile(&folder, &["--dir", &directory], &cpython().unwrap(), &[&inside, "1"]);

    assert!(profile.total() > 0, "{outcome:?}");
    for (stack, _) in &profile.0 {
        for frame in stack {
            let index = frame.strip_prefix("wasm-function[").and_then(|rest| rest.strip_suffix(']'));
            let is_index = index.is_some_and(|index| index.parse::<u32>().is_ok());
            let of_host =
                frame.starts_with("[host] wasi_snapshot_preview1.") || frame.starts_with("[builtin] ");
            // The one function that has a name, as an export.
            assert!(is_index || of_host || frame == "_start", "{frame} in {stack:?}");
        }
    }
    let notices: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("DWARF")).collect();
    assert_eq!(notices.len(), 1, "{outcome:?}");
    assert!(notices[0].contains("python.wasm") && notices[0].contains("every address is 0"), "{outcome:?}");
    assert!(!outcome.stderr.contains(" lost"), "{outcome:?}");
}

/// A guest of 26 MB without names and lines: its instructions are shown all the same, and what is not known says why.
#[test]
fn cpythons_functions_are_annotated_by_instruction() {
    let guest = cpython().unwrap();
    let script = cpython_script();
    let directory = format!("{}::/guests", script.parent().unwrap().display());
    let inside = format!("/guests/{}", script.file_name().unwrap().display());
    let folder = Folder::new();
    let native = folder.path("a.flamewalk");
    let mut command = flamewalk_run();
    command.args(["-q", "--dir", &directory, "-o"]).arg(&native).arg(&guest).args([&inside, "1"]);
    let outcome = crate::finish(&mut command);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let report = crate::finish(flamewalk("report").arg(&native).args(["--format", "json"]));
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let functions = report["functions"].as_array().unwrap();
    let hottest = functions.iter().find(|function| function["kind"] == "guest").unwrap();
    let name = hottest["name"].as_str().unwrap();
    let annotate =
        |options: &[&str]| crate::finish(flamewalk("annotate").arg(&native).arg(name).args(options));

    let outcome = annotate(&[]);
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    for part in [name, "every address is 0", "--wat"] {
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
    for option in ["--wat", "--machine"] {
        let outcome = annotate(&[option, "--guest", guest.to_str().unwrap(), "--format", "json"]);
        assert_eq!((outcome.status, &*outcome.stderr), (Some(0), ""), "{option}");
        let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(json["self_weight"], hottest["self_weight"], "{option}");
        let lines = json["listings"][0]["lines"].as_array().unwrap();
        let sum: u64 = lines.iter().map(|line| line["self_weight"].as_u64().unwrap()).sum();
        assert_eq!(sum, hottest["self_weight"].as_u64().unwrap(), "{option}");
    }
}

#[test]
fn sqlites_hottest_functions_are_its_own() {
    let folder = Folder::new();
    let (outcome, profile) = crate::profile(&folder, &["--freq", "997"], &sqlite().unwrap(), &["1"]);
    assert!(!outcome.stderr.contains(" lost"), "{outcome:?}");
    let named = profile.share(|stack| {
        stack
            .iter()
            .rev()
            .find(|frame| !frame.starts_with("[host]"))
            .is_some_and(|frame| !frame.starts_with("wasm-function["))
    });
    assert!(named >= 0.999, "{named}");
    // The table on the terminal: a line of headings, then the hottest.
    let five: Vec<_> = outcome.stderr.lines().skip(1).take(5).collect();
    assert!(five.iter().any(|line| line.ends_with(" sqlite3VdbeExec")), "{outcome:?}");
}

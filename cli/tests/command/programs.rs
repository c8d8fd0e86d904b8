//! Programs that nobody here wrote.

use flamewalk_guests::{cpython, cpython_script, sqlite};

use crate::support::Folder;

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

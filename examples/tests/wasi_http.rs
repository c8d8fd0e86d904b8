//! The embedding of a `wasi:http` handler does what it says.

use std::process::Command;

#[test]
fn requests_are_seen_by_their_path_computing_and_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("out.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_wasi_http")).arg(&svg).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for name in ["turn", "search", "render", "[host] wasi:io/poll@0.2.0.[method]pollable.block"] {
        assert!(stdout.lines().any(|line| line.ends_with(name)), "{name}: {stdout}");
    }
    // Each of a hundred searches waits three milliseconds; only they do.
    let time = |path: &str| {
        let line = stdout.lines().find_map(|line| line.strip_prefix(path)).expect("each path has a line");
        line.trim_start_matches(": ").trim_end_matches(" ms").parse::<f64>().unwrap()
    };
    let (search, render) = (time("/search"), time("/render"));
    assert!(search > 280.0 && search > render, "{search} and {render} ms");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("pollable.block"));
}

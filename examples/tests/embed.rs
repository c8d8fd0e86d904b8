//! The embedding to copy does what it says.

use std::process::Command;

#[test]
fn embed_lists_the_hottest_functions_and_leaves_a_flame_graph() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("out.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).arg(&svg).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    // A function that the guest's compiler has inlined nearly everywhere; and, found by few profilers, code without a loop
    // or a call.
    let mut hottest = stdout.lines().skip_while(|line| !line.ends_with("FUNCTION")).skip(1);
    for name in ["steps", "straight"] {
        assert!(hottest.next().is_some_and(|line| line.ends_with(name)), "{name}: {stdout}");
    }
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.contains("<svg") && drawn.contains("[host] wasi_snapshot_preview1.random_get"));
}

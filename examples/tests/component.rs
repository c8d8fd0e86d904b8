//! The component's embedding to copy does what it says.

use std::process::Command;

#[test]
fn component_shows_its_modules_and_the_hosts_interface() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("out.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_component")).arg(&svg).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for name in ["count", "sell", "[host] demo:shop/prices.lookup"] {
        assert!(stdout.lines().any(|line| line.ends_with(name)), "{name}: {stdout}");
    }
    assert!(std::fs::read_to_string(&svg).unwrap().contains("demo:shop/prices.lookup"));
}

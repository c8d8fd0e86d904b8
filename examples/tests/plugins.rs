//! The host of plug-ins to copy does what it says.

use std::process::Command;

#[test]
fn plugins_that_are_gone_keep_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("out.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_plugins")).arg(&svg).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout.contains("loaded and dropped 90 plug-ins"), "{stdout}");
    // By the work that each does.
    let hottest = stdout.lines().skip_while(|line| !line.ends_with("FUNCTION")).skip(1);
    let functions: Vec<&str> = hottest.take(3).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(functions, ["blur!blur_pixels", "sharpen!sharpen_pixels", "rotate!rotate_pixels"], "{stdout}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.contains("<svg") && drawn.contains("rotate_pixels"));
}

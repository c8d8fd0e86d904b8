//! The server to copy does what it says.

use std::process::Command;

#[test]
fn tokio_server_leaves_a_flame_graph_of_each_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tokio_server")).arg(folder.path()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let times: Vec<f64> = ["acme", "globex", "initech"]
        .map(|tenant| {
            let drawn = std::fs::read_to_string(folder.path().join(format!("{tenant}.svg"))).unwrap();
            assert!(drawn.contains("<svg") && drawn.contains("respond"), "{tenant}");
            let line = stdout.lines().find_map(|line| line.strip_prefix(&format!("{tenant}: "))).unwrap();
            line.split_once(' ').unwrap().0.parse().unwrap()
        })
        .into();
    // Their work for a request is in the proportion of 62 : 32 : 12, parsing included; a request has some more.
    assert!(times.is_sorted_by(|more, less| more > less), "{stdout}");
}

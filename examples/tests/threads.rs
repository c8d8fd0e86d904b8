//! The embedding with several threads does what it says.

use std::process::Command;

#[test]
fn threads_have_the_time_that_their_work_takes() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("out.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_threads")).arg(&svg).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lines = stdout.lines().filter_map(|line| line.strip_suffix(" ms"));
    let times: Vec<(&str, f64)> = lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, time)| (name, time.trim().parse().unwrap()))
        .collect();
    assert_eq!(
        times.iter().map(|time| time.0).collect::<Vec<_>>(),
        ["worker-1", "worker-2", "worker-3", "worker-4"]
    );
    // The n-th does n times the work; a third is left for the machine's moods.
    let all: f64 = times.iter().map(|time| time.1).sum();
    for (number, (name, time)) in (1..).zip(&times) {
        let ratio = time / (all * f64::from(number) / 10.0);
        assert!((0.67..1.5).contains(&ratio), "{name}: {ratio}: {stdout}");
    }
    assert!(std::fs::read_to_string(&svg).unwrap().contains("<svg"));
}

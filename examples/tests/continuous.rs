//! The embedding that is profiled all the time does what it says.

use std::process::Command;

use flamewalk::profile::format::read_file;

#[test]
fn continuous_keeps_the_last_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_continuous"))
        .arg(folder.path())
        .args(["1", "2", "3"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let samples = |line: &&str| line.ends_with(" ticks");
    assert_eq!(stdout.lines().filter(samples).count(), 3, "{stdout}");
    // And the one that the stop has taken, in which there may be no time for a sample.
    assert!(
        stdout.contains("given: 4, ") && stdout.contains("dropped: 0, refused: 0, abandoned: 0"),
        "{stdout}"
    );
    let mut files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    let mut last_start = None;
    for file in &files {
        let profile = read_file(file).unwrap();
        assert!(!profile.is_empty(), "{stdout}");
        let (start, duration) = (profile.metadata.start.unwrap(), profile.metadata.duration.unwrap());
        // What was in an earlier one is not in it: no more than the time that it is of, and what the first tick stands for
        // before that: the longest period, or more if the machine was away for a moment.
        let before = 1_650_000_000 / 997 + 10_000_000;
        assert!(profile.total().weight <= duration.as_nanos() as u64 + before, "{}", profile.total());
        // The names of the files are in the order of the times.
        assert!(last_start.is_none_or(|last| last < start), "{files:?}");
        last_start = Some(start);
    }
}

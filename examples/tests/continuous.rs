//! The embedding that is profiled all the time does what it says.

use std::process::Command;

use flamewalk::profile::format::read_file;

#[test]
fn continuous_keeps_the_last_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_continuous"))
        .arg(folder.path())
        .args(["0.3", "2", "5"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout.lines().count(), 5, "{stdout}");
    let mut files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["000004.pb.gz", "000005.pb.gz"]);
    for file in &files {
        let profile = read_file(file).unwrap();
        assert!(!profile.is_empty(), "{stdout}");
        // What was in an earlier one is not in it: no more than the time that it is of, and what the first tick stands for
        // before that, which is at most the longest period.
        let duration = profile.metadata.duration.unwrap().as_nanos() as u64;
        let longest_period = 1_650_000_000 / 997;
        assert!(profile.total().weight <= duration + longest_period, "{} of {duration} ns", profile.total());
    }
}

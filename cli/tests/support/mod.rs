//! Runs the command and reads what it leaves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What has been left by a process that ended. Whatever else a test is about: nothing panics.
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Self { status: output.status.code(), stdout, stderr }
    }
}

/// `flamewalk run`, without standard input.
pub(crate) fn flamewalk_run() -> Command {
    flamewalk("run")
}

/// One of the command's subcommands, without standard input.
pub(crate) fn flamewalk(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamewalk"));
    command.arg(subcommand).stdin(Stdio::null());
    command
}

/// A place for files.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Folded stacks, each with its weight, oldest frame first.
#[derive(Debug)]
pub(crate) struct Folded(pub(crate) Vec<(Vec<String>, u64)>);

impl Folded {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let line = |line: &str| {
            let (stack, weight) = line.rsplit_once(' ').unwrap();
            (stack.split(';').map(str::to_owned).collect(), weight.parse().unwrap())
        };
        Self(text.lines().map(line).collect())
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, weight)| weight).sum()
    }

    /// The share of the weight whose stack is as wanted, from 0 to 1.
    pub(crate) fn share(&self, wanted: impl Fn(&[String]) -> bool) -> f64 {
        let weight: u64 = self.0.iter().filter(|(stack, _)| wanted(stack)).map(|(_, weight)| weight).sum();
        weight as f64 / self.total() as f64
    }
}

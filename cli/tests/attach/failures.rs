//! What cannot be profiled from outside: one sentence each, and nothing left behind.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::support::{Folder, Outcome, flamewalk};
use crate::{NEWEST, Program, embedding, guest};

fn refusal(pid: u32, arguments: &[&str]) -> String {
    let folder = Folder::new();
    let output = folder.path("out.svg");
    let mut command = flamewalk("attach");
    command.arg(pid.to_string()).args(["-d", "1", "-o"]).arg(&output).args(arguments);
    let outcome = Outcome::of(command.output().unwrap());
    assert_eq!(outcome.status, Some(125), "{}", outcome.stderr);
    assert!(!output.exists(), "no empty file is left behind");
    // Beside the way that was taken, if it came so far.
    let said = outcome.stderr.lines().filter(|line| !line.contains(": sampling process "));
    assert_eq!(said.count(), 1, "{}", outcome.stderr);
    outcome.stderr
}

fn sleeper() -> Program {
    Program(Command::new("sleep").arg("1000").spawn().unwrap())
}

#[test]
fn processes_that_cannot_be_profiled() {
    assert!(refusal(i32::MAX as u32, &[]).contains("there is no process 2147483647"));
    let sleeper = sleeper();
    let without = refusal(sleeper.id(), &[]);
    assert!(
        without.contains("has no code that Wasmtime has compiled") && without.contains("--wait"),
        "{without}"
    );
    let waiting = refusal(sleeper.id(), &["--wait"]);
    assert!(waiting.contains("took no CPU time"), "{waiting}");
    assert!(refusal(sleeper.id(), &["--tid", "1"]).contains("has no thread 1"));
    assert!(refusal(sleeper.id(), &["--freq", "0"]).contains("the rate cannot be 0"));
    // It once was that all stacks were nothing but `[truncated]`.
    assert!(refusal(sleeper.id(), &["--frame-limit", "0"]).contains("the frame limit cannot be 0"));
    assert!(refusal(sleeper.id(), &["--stack-bytes", "64513"]).contains("the copied part of the stack"));
    // The thread of the kernel that starts all others; in a container it may be out of sight.
    if std::path::Path::new("/proc/2/exe").symlink_metadata().is_ok() {
        let kernel = refusal(2, &[]);
        assert!(kernel.contains("runs no program") || kernel.contains("belongs to user 0"), "{kernel}");
    }
}

#[test]
fn a_process_that_has_ended_and_a_thread_are_none() {
    let mut child = Command::new("true").spawn().unwrap();
    // Until it has ended; it is not waited for, so that its number stays its own.
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    while !state().contains(") Z ") {
        std::thread::yield_now();
    }
    assert!(refusal(child.id(), &[]).contains("runs no program"));
    child.wait().unwrap();

    let program = embedding(NEWEST, &["threads", "1"]);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
    let threads = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse::<u32>().unwrap());
    let thread = threads.max().unwrap();
    let refused = refusal(thread, &[]);
    assert!(refused.contains(&format!("is a thread of process {}", program.id())), "{refused}");
}

#[test]
fn symbols_that_are_none_are_refused() {
    let folder = Folder::new();
    let path = folder.path("no.wasm");
    std::fs::write(&path, "no binary").unwrap();
    let refused = refusal(embedding(NEWEST, &[]).id(), &["--symbols", path.to_str().unwrap()]);
    assert!(refused.contains("the symbols of `no` cannot be used"), "{refused}");
}

/// As a user without rights, where this test runs as root: on a process of its own and on one of somebody else.
#[test]
fn a_user_without_rights_attaches_to_own_processes_only() {
    if !nix::unistd::geteuid().is_root() {
        // Every other test of this file has then been one without rights.
        return;
    }
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    // The mask of new files does not hold for this.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let command_path = folder.path().join("flamewalk");
    let guest_path = folder.path().join("guest.wasm");
    std::fs::copy(env!("CARGO_BIN_EXE_flamewalk"), &command_path).unwrap();
    std::fs::copy(guest(), &guest_path).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&command_path);
        command.args(arguments).uid(NOBODY).gid(NOBODY).current_dir(folder.path()).stdin(Stdio::null());
        command
    };
    // Any program that embeds Wasmtime will do: this one is sampled from inside at the same time, once a second.
    let mut runs = as_nobody(&["run", "-q", "--freq", "1", "guest.wasm", "--rounds", "100000"]);
    let program = Program(runs.stdout(Stdio::null()).spawn().unwrap());
    let pid = program.id().to_string();
    let out = folder.path().join("out.folded");
    let attach = ["attach", &pid, "--wait", "-d", "3", "-o", out.to_str().unwrap()];
    let outcome = Outcome::of(as_nobody(&attach).output().unwrap());
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    assert!(std::fs::read_to_string(&out).unwrap().contains("straight"));

    let theirs = embedding(NEWEST, &[]);
    let pid = theirs.id().to_string();
    let outcome = Outcome::of(as_nobody(&["attach", &pid, "-d", "1"]).output().unwrap());
    assert_eq!(outcome.status, Some(125), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("belongs to user 0"), "{}", outcome.stderr);
}

//! How a run ends: the guest's status is the command's, and there is a profile in any case.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use flamewalk_guests::Guest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::finish;
use crate::support::{Folded, Folder, Outcome, cpu_ticks, flamewalk_run};

/// A run of `exits`: what it left, the profile and the flame graph.
fn run_exits(arguments: &[&str]) -> (Outcome, Folded, String) {
    let folder = Folder::new();
    let (folded, svg) = (folder.path("a.folded"), folder.path("a.svg"));
    let mut command = flamewalk_run();
    command.arg("-o").arg(&folded).arg("-o").arg(&svg).arg(Guest::Exits.path()).args(arguments);
    let outcome = finish(&mut command);
    (outcome, Folded::read(&folded), std::fs::read_to_string(&svg).unwrap())
}

/// Whether the guest's work, a tenth of a second, is in the profile.
fn check_work(profile: &Folded) {
    assert!(profile.share(|stack| stack.iter().any(|frame| frame == "work")) > 0.8, "{profile:?}");
}

#[test]
fn a_guest_that_returns_gives_0() {
    let (outcome, profile, svg) = run_exits(&["return"]);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    check_work(&profile);
    assert!(!svg.contains("exit status") && !svg.contains("trap:"));
}

#[test]
fn a_guests_exit_status_is_the_commands() {
    for status in [0, 1, 42, 125] {
        let (outcome, profile, svg) = run_exits(&["exit", &status.to_string()]);
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
        check_work(&profile);
        assert_eq!(svg.contains(&format!("exit status {status}")), status != 0);
    }
}

/// WASI in Wasmtime takes no statuses from 126 on, which a shell uses itself.
#[test]
fn a_status_that_is_none_is_a_trap() {
    let (outcome, profile, _) = run_exits(&["exit", "255"]);
    assert_eq!(outcome.status, Some(134), "{outcome:?}");
    let said = outcome.stderr.lines().next().unwrap();
    assert_eq!(said, "flamewalk: the guest trapped: exit with invalid exit status outside of [0..126)");
    check_work(&profile);
}

#[test]
fn a_trap_gives_134_and_its_reason() {
    for (way, reason) in [("trap", "out of bounds memory access"), ("overflow", "call stack exhausted")] {
        let (outcome, profile, svg) = run_exits(&[way]);
        assert_eq!(outcome.status, Some(134), "{outcome:?}");
        let said: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("the guest trapped")).collect();
        assert_eq!(said.len(), 1, "{outcome:?}");
        assert!(said[0].contains(reason), "{outcome:?}");
        assert!(svg.contains("trap: ") && svg.contains(reason));
        check_work(&profile);
    }
}

/// The guest is known to run when the kernel has counted CPU time for its thread, which is the only one that works.
#[test]
fn an_interrupted_run_gives_130_and_a_profile() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = Folder::new();
        let (folded, svg) = (folder.path("a.folded"), folder.path("a.svg"));
        let mut command = flamewalk_run();
        command.arg("-o").arg(&folded).arg("-o").arg(&svg).arg(Guest::Exits.path()).arg("forever");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_working(&mut child);
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let outcome = Outcome::of(child.wait_with_output().unwrap());
        assert_eq!(outcome.status, Some(130), "{outcome:?}");
        let profile = Folded::read(&folded);
        assert!(profile.share(|stack| stack.iter().any(|frame| frame == "forever")) > 0.9, "{profile:?}");
        assert!(std::fs::read_to_string(&svg).unwrap().contains("interrupted"));
    }
}

/// A guest that waits for input is in a system call, which a signal to another thread does not end.
#[test]
fn a_waiting_guest_is_interrupted_as_well() {
    let folder = Folder::new();
    let folded = folder.path("a.folded");
    let guest = folder.path("wait.wat");
    std::fs::write(&guest, WAITS).unwrap();
    let mut command = flamewalk_run();
    command.args(["--event", "wall", "-o"]).arg(&folded).arg(&guest);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Held, so that the guest's input does not end.
    let stdin = child.stdin.take();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert_eq!(first, "ready\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    assert_eq!(outcome.status, Some(130), "{outcome:?}");
    drop(stdin);
    assert!(Folded::read(&folded).total() > 0);
}

/// Works for a while, so that there are samples, writes a line, then reads from standard input.
const WAITS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\n")
  (func (export "_start") (local $i i32)
    (loop (br_if 0 (i32.ne (i32.const 100000000) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64)))))"#;

/// Waits for a second's work more.
pub(crate) fn wait_until_working(child: &mut Child) {
    let before = cpu_ticks(child.id());
    while cpu_ticks(child.id()) < before + 100 {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
}

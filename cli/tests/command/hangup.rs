//! What becomes of the command when the terminal or the pipe goes that it was started on.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use flamewalk_guests::Guest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::comparing::made;
use crate::run_end::wait_until_working;
use crate::support::{Folded, Folder, Outcome, end_of, flamewalk, flamewalk_run, heed_signals, terminal};

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// The write end of a pipe that nobody reads from.
fn unread() -> io::PipeWriter {
    io::pipe().unwrap().1
}

/// The thread that waits for the interrupt died of not being able to say what it had written. All signals stayed blocked, and
/// the guest ran on until it was killed.
#[test]
fn an_interrupt_ends_a_run_that_has_lost_its_terminal() {
    let folder = Folder::new();
    let folded = folder.path("a.folded");
    for (signal, is_terminal) in [(Signal::SIGINT, true), (Signal::SIGHUP, true), (Signal::SIGTERM, false)] {
        let mut command = flamewalk_run();
        command.arg("-o").arg(&folded).arg(Guest::Exits.path()).arg("forever");
        let seen = if is_terminal {
            let (seen, used) = terminal();
            command.stdin(used.try_clone().unwrap()).stdout(used.try_clone().unwrap()).stderr(used);
            Some(seen)
        } else {
            command.stdout(unread()).stderr(unread());
            None
        };
        let mut child = command.spawn().unwrap();
        // With its ends of the terminal, so that they are the child's alone.
        drop(command);
        wait_until_working(&mut child);
        drop(seen);
        send(&child, signal);
        let outcome = end_of(child);
        assert_eq!(outcome.status, Some(130), "{signal}");
        let profile = Folded::read(&folded);
        assert!(profile.share(|stack| stack.iter().any(|frame| frame == "forever")) > 0.9, "{profile:?}");
    }
}

/// It was 101, as of a panic.
#[test]
fn the_status_is_the_same_if_nobody_reads_what_is_said() {
    let folder = Folder::new();
    let (base, slow) = (made(&folder, "base.flamewalk", 2_000), made(&folder, "slow.flamewalk", 3_000));
    let output = folder.path("out.folded");
    let exits = Guest::Exits.path();
    let paths = |paths: &[&Path]| paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    let run = |arguments: &[&str]| {
        let mut all: Vec<String> = paths(&[&exits]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        all
    };
    for (subcommand, arguments, status) in [
        ("run", run(&["return"]), 0),
        ("run", run(&["exit", "42"]), 42),
        ("run", run(&["trap"]), 134),
        ("report", paths(&[&base]), 0),
        ("report", paths(&[&folder.path("absent.flamewalk")]), 125),
        ("merge", paths(&[&base, &slow]), 0),
        ("diff", paths(&[&base, &base]), 0),
        ("diff", [paths(&[&base, &slow]), vec!["--fail-above=5".to_owned()]].concat(), 1),
    ] {
        let mut command = flamewalk(subcommand);
        let is_diff = subcommand == "diff";
        command.arg("-o").arg(if is_diff { folder.path("out.svg") } else { output.clone() });
        command.args(&arguments).stderr(unread());
        // Also where both went to the same pipe, as in `2>&1 | head -1`.
        for both in [false, true] {
            command.stdout(if both { Stdio::from(unread()) } else { Stdio::null() });
            let outcome = Outcome::of(command.output().unwrap());
            assert_eq!(outcome.status, Some(status), "{subcommand} {arguments:?}, both: {both}");
        }
    }
}

/// What an invoked function has returned is printed, or is nobody's concern.
#[test]
fn the_status_is_the_same_if_nobody_reads_what_is_returned() {
    let folder = Folder::new();
    let guest = folder.path("guest.wat");
    std::fs::write(
        &guest,
        "(module (func (export \"spin\") (result i32) (local $i i32)
      (loop (br_if 0 (i32.ne (i32.const 300000000) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))
      (local.get $i)))",
    )
    .unwrap();
    let output = folder.path("out.folded");
    let run = |stdout: Stdio| {
        let mut command = flamewalk_run();
        command.args(["-q", "--invoke", "spin", "-o"]).arg(&output).arg(&guest).stdout(stdout);
        Outcome::of(command.output().unwrap())
    };
    assert_eq!(run(unread().into()).status, Some(0));
    // What cannot be printed for want of room is said, and the profile is written.
    std::fs::remove_file(&output).unwrap();
    let outcome = run(std::fs::File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("cannot write to standard output"), "{outcome:?}");
    assert!(Folded::read(&output).total() > 0);
}

/// As `nohup` ignores SIGHUP, and a shell SIGINT for what it starts in the background.
#[test]
fn a_signal_that_is_ignored_from_the_start_stays_ignored() {
    for (ignored, signal, ends) in
        [("HUP", Signal::SIGHUP, Signal::SIGINT), ("INT", Signal::SIGINT, Signal::SIGTERM)]
    {
        let folder = Folder::new();
        let folded = folder.path("a.folded");
        heed_signals();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' {ignored}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_flamewalk")).args(["run", "-o"]).arg(&folded);
        command.arg(Guest::Exits.path()).arg("forever");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_working(&mut child);
        send(&child, signal);
        // It would end now.
        wait_until_working(&mut child);
        send(&child, ends);
        let outcome = end_of(child);
        assert_eq!(outcome.status, Some(130), "{outcome:?}");
        assert!(Folded::read(&folded).total() > 1_500_000_000);
    }
}

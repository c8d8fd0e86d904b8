//! How the view ends: with whoever looks at it, and never without what was sampled.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::running::wait_until_sampling;
use crate::support::{Folded, Folder, Outcome, end_of, flamewalk, terminal};
use crate::{NEWEST, Program, embedding};

/// A view, shown once at least, and where its profile will be written.
struct View {
    child: Child,
    folder: Folder,
    _program: Program,
}

impl View {
    fn start(set_up: impl FnOnce(&mut Command)) -> Self {
        let (folder, program) = (Folder::new(), embedding(NEWEST, &[]));
        let mut command = flamewalk("attach");
        command.arg(program.id().to_string()).arg("--top").arg("-o").arg(folder.path("out.folded"));
        set_up(command.stderr(Stdio::piped()));
        let mut child = command.spawn().unwrap();
        wait_until_sampling(&mut child).unwrap();
        Self { child, folder, _program: program }
    }

    /// Waits for its end.
    fn end(self) -> (Folded, Outcome) {
        let outcome = end_of(self.child);
        (Folded::read(&self.folder.path("out.folded")), outcome)
    }
}

/// A view on a terminal, and the terminal's other end.
fn on_terminal() -> (View, File) {
    let (mut seen, used) = terminal();
    let view = View::start(|command| {
        command.stdin(used.try_clone().unwrap()).stdout(used);
    });
    wait_for_view(&mut seen);
    (view, seen)
}

/// Reads until the next view begins.
fn wait_for_view(seen: &mut File) {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("samples of guests") {
        let mut bytes = [0; 1024];
        let count = seen.read(&mut bytes).unwrap();
        text.extend_from_slice(&bytes[..count]);
    }
}

/// It read from the terminal for ever, on a whole core, and did not see signals either.
#[test]
fn a_terminal_that_hangs_up_ends_the_view() {
    let (view, seen) = on_terminal();
    drop(seen);
    let (folded, outcome) = view.end();
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    assert!(folded.total() > 0);
}

#[test]
fn keys_end_the_view_and_others_do_not() {
    for (keys, called) in [("q", "q"), ("\x1b", "Escape"), ("\x03", "Ctrl-C")] {
        let (view, mut seen) = on_terminal();
        // An arrow.
        seen.write_all(b"\x1b[A").unwrap();
        wait_for_view(&mut seen);
        seen.write_all(keys.as_bytes()).unwrap();
        let (folded, outcome) = view.end();
        assert_eq!(outcome.status, Some(0), "{called}: {}", outcome.stderr);
        assert!(folded.total() > 0);
    }
}

/// It went on for ever, and nobody saw.
#[test]
fn a_reader_that_has_seen_enough_ends_the_view() {
    let (reader, writer) = io::pipe().unwrap();
    let view = View::start(|command| {
        command.stdin(Stdio::null()).stdout(writer);
    });
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert!(line.contains("samples of guests"), "{line}");
    let (folded, outcome) = view.end();
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    assert!(folded.total() > 0);
}

/// All that was sampled was thrown away.
#[test]
fn a_view_that_cannot_be_shown_leaves_its_profile() {
    let view = View::start(|command| {
        command.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/full").unwrap());
    });
    let (folded, outcome) = view.end();
    assert_eq!(outcome.status, Some(125), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot write to standard output"), "{}", outcome.stderr);
    assert!(folded.total() > 0);
}

#[test]
fn the_status_is_the_same_if_nobody_reads_what_is_said() {
    let (program, folder) = (embedding(NEWEST, &[]), Folder::new());
    let output = folder.path("out.folded");
    let mut command = flamewalk("attach");
    command.arg(program.id().to_string()).args(["-d", "1", "-o"]).arg(&output);
    command.stdout(Stdio::null()).stderr(io::pipe().unwrap().1);
    assert_eq!(Outcome::of(command.output().unwrap()).status, Some(0));
    assert!(Folded::read(&output).total() > 0);
}

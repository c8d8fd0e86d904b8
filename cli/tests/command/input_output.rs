//! What the guest is given, and where its output and the profile go.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use flamewalk_guests::Guest;

use crate::finish;
use crate::support::{Folded, Folder, Outcome, flamewalk_run};

/// Writes its environment, then copies its standard input to standard output.
const CAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $environ (i32.const 1024) (i32.const 4096)))
    (i32.store (i32.const 0) (i32.const 4096))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 0) (i32.const 8192))
    (block $end
      (loop $again
        (i32.store (i32.const 4) (i32.const 1024))
        (br_if $end (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $end (i32.eqz (i32.load (i32.const 8))))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
        (br $again)))))"#;

/// Whether the guest did its work. What is too short to be sampled is refused as a profile, not as a run.
fn has_run(outcome: &Outcome, status: i32) -> bool {
    outcome.status == Some(status)
        || (status == 0
            && outcome.status == Some(125)
            && outcome.stderr.contains("no samples: ")
            && outcome.stderr.lines().count() == 1)
}

fn cat(folder: &Folder) -> std::path::PathBuf {
    let path = folder.path("cat.wat");
    std::fs::write(&path, CAT).unwrap();
    path
}

#[test]
fn standard_input_and_output_are_the_guests() {
    let folder = Folder::new();
    let mut command = flamewalk_run();
    command.arg("-q").arg(cat(&folder)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text = "one line\nand another, without an end".repeat(1000);
    let mut stdin = child.stdin.take().unwrap();
    let written = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(written.as_bytes()).unwrap());
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    writer.join().unwrap();
    assert!(has_run(&outcome, 0), "{outcome:?}");
    assert!(outcome.stdout == text, "{} bytes of {}", outcome.stdout.len(), text.len());
}

#[test]
fn the_guest_has_the_environment_that_it_is_given_and_no_other() {
    let folder = Folder::new();
    let mut command = flamewalk_run();
    command.env("PASSED_ON", "from outside").env("NOT_PASSED_ON", "secret");
    command.args(["-q", "--env", "GIVEN=a=b", "--env", "PASSED_ON"]).arg(cat(&folder));
    let outcome = finish(&mut command);
    assert_eq!(outcome.stdout, "GIVEN=a=b\0PASSED_ON=from outside\0", "{outcome:?}");
}

#[test]
fn the_guest_has_the_directories_that_it_is_given() {
    let folder = Folder::new();
    std::fs::write(folder.path("data"), [7; 1000]).unwrap();
    let directory = folder.path("");
    let directory = directory.to_str().unwrap();
    let read = |options: &[&str]| {
        let mut command = flamewalk_run();
        command.arg("-q").args(options).arg(Guest::HostCalls.path()).args(["0", "data", "3"]);
        finish(&mut command)
    };
    for given in [directory.to_owned(), format!("{directory}::/inside")] {
        let outcome = read(&["--dir", &given]);
        assert!(outcome.stderr.starts_with("bytes read 3000\n"), "{outcome:?}");
    }
    assert!(read(&[]).stderr.starts_with("host_calls: cannot open the file"));
}

#[test]
fn arguments_after_the_guest_are_the_guests() {
    let outcome = finish(flamewalk_run().arg("-q").arg(Guest::KnownAnswer.path()).args(["--rounds", "100"]));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with("chain "), "{outcome:?}");
    let outcome = finish(flamewalk_run().arg("-q").arg(Guest::Exits.path()).args(["--", "exit", "3"]));
    assert_eq!(outcome.status, Some(3), "{outcome:?}");
}

#[test]
fn an_export_is_invoked_with_its_arguments() {
    let invoke = |arguments: &[&str]| {
        let mut command = flamewalk_run();
        command.args(["-q", "--invoke", arguments[0]]).arg(Guest::Reactor.path()).args(&arguments[1..]);
        finish(&mut command)
    };
    for (arguments, printed) in [
        (&["fibonacci", "20"][..], "6765\n"),
        (&["scale_f32", "1.5", "-3"], "-4.5\n"),
        (&["scale_f64", "2.5", "4"], "10\n"),
        (&["no_result", "1000"], ""),
        (&["divide", "-7", "2"], "-3\n"),
    ] {
        let outcome = invoke(arguments);
        assert!(has_run(&outcome, 0) && outcome.stdout == printed, "{arguments:?} {outcome:?}");
    }
    let outcome = invoke(&["divide", "1", "0"]);
    assert!(outcome.stderr.contains("divide by zero"), "{outcome:?}");
    // A command's export that needs no arguments.
    let outcome = finish(
        flamewalk_run().args(["-q", "--invoke", "_start"]).arg(Guest::Exits.path()).stdin(Stdio::null()),
    );
    assert!(outcome.stderr.starts_with("usage: exits"), "{outcome:?}");
}

#[test]
fn several_outputs_hold_the_same_profile() {
    let folder = Folder::new();
    let paths = ["a.folded", "b.folded", "c.svg"].map(|name| folder.path(name));
    let mut command = flamewalk_run();
    for path in &paths {
        command.arg("-o").arg(path);
    }
    let outcome = finish(command.arg(Guest::Exits.path()).arg("return"));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&paths[0]), read(&paths[1]));
    assert!(Folded::read(&paths[0]).total() > 0);
    let svg = read(&paths[2]);
    assert!(svg.contains("<svg") && svg.contains(">work<") | svg.contains("work ("), "{svg}");
    for path in &paths {
        assert!(outcome.stderr.contains(&format!("wrote {}", path.display())), "{outcome:?}");
    }
}

/// A longer file from before leaves nothing behind.
#[test]
fn an_output_that_is_there_is_replaced() {
    let folder = Folder::new();
    let output = folder.path("a.folded");
    std::fs::write(&output, "old;stack 1\n".repeat(100_000)).unwrap();
    let outcome = finish(flamewalk_run().arg("-o").arg(&output).arg(Guest::Exits.path()).arg("return"));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert_eq!(Folded::read(&output).share(|stack| stack[0] == "old"), 0.0);
}

#[test]
fn the_hottest_functions_are_listed_unless_asked_to_be_quiet() {
    let run = |options: &[&str]| finish(flamewalk_run().args(options).arg(Guest::Exits.path()).arg("return"));
    let table = run(&[]);
    let hottest = table.stderr.lines().nth(1).unwrap();
    assert!(table.stderr.lines().next().unwrap().ends_with("FUNCTION"), "{table:?}");
    assert!(hottest.ends_with("work") || hottest.ends_with("steps"), "{table:?}");
    assert_eq!(run(&["--top", "1"]).stderr.lines().count(), 2);
    assert_eq!(run(&["-q"]).stderr, "");
}

#[test]
fn text_is_a_guest() {
    let folder = Folder::new();
    let guest = folder.path("guest.wat");
    std::fs::write(&guest, ";; a comment first\n(module (func $spin (export \"_start\") (local $i i32)
      (loop (br_if 0 (i32.ne (i32.const 300000000) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))))")
    .unwrap();
    let (_, profile) = crate::profile(&folder, &[], &guest, &[]);
    assert_eq!(profile.share(|stack| stack == ["spin"]), 1.0, "{profile:?}");
}

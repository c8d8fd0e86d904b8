//! Bad input: one sentence on standard error that names the thing and says what to do, and a status that is no guest's.

use std::path::{Path, PathBuf};

use flamewalk_guests::Guest;

use crate::finish;
use crate::support::{Folder, flamewalk_run};

/// Runs the command, which has to fail with one line that has all of these parts.
fn refused(options: &[&str], guest: &Path, arguments: &[&str], parts: &[&str]) {
    let outcome = finish(flamewalk_run().args(options).arg(guest).args(arguments));
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    let line = outcome.stderr.strip_prefix("flamewalk: ").unwrap_or_else(|| panic!("{outcome:?}"));
    assert_eq!(line.trim_end().lines().count(), 1, "{outcome:?}");
    for part in parts {
        assert!(line.contains(part), "{part} is not in: {outcome:?}");
    }
}

/// As [`refused`], for what is found on the command line itself.
fn refused_on_the_command_line(options: &[&str], parts: &[&str]) {
    let outcome = finish(flamewalk_run().args(options).arg(Guest::Nothing.path()));
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    let line = outcome.stderr.lines().next().unwrap();
    for part in parts {
        assert!(line.contains(part), "{part} is not in: {outcome:?}");
    }
}

fn file(folder: &Folder, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn binary(guest: Guest) -> Vec<u8> {
    std::fs::read(guest.path()).unwrap()
}

#[test]
fn what_is_no_guest() {
    let folder = Folder::new();
    for (name, content, reason) in [
        ("empty.wasm", &b""[..], "the file is empty"),
        ("text.wasm", b"Hello, world!\n", "`\\0asm`"),
        ("script.wasm", b"#!/bin/sh\n", "script"),
        ("zeros.wasm", &[0; 100], "`\\0asm`"),
        ("bytes.wasm", &[0xff; 100], "`\\0asm`"),
        ("header.wasm", b"\0asm", "ends within the header"),
        ("wrong.wat", b"(module\n  (func (export \"_start\") nope))", "line 2, column 27"),
        ("open.wat", b"(module", "expected"),
    ] {
        let path = file(&folder, name, content);
        refused(&[], &path, &[], &[name, "not a WebAssembly module or component", reason]);
    }
    // A program of the host: this very command.
    refused(&[], Path::new(env!("CARGO_BIN_EXE_flamewalk")), &[], &["program or library of the host"]);
}

#[test]
fn a_guest_that_cannot_be_read() {
    let folder = Folder::new();
    refused(&[], &folder.path("absent.wasm"), &[], &["cannot read", "absent.wasm", "No such file"]);
    refused(&[], &folder.path(""), &[], &["cannot read", "directory"]);
}

/// At each of many places, among them within every section's header.
#[test]
fn a_truncated_guest() {
    let folder = Folder::new();
    let whole = binary(Guest::Exits);
    let cuts = (1..64).chain((64..whole.len()).step_by(whole.len() / 16));
    for cut in cuts {
        let path = file(&folder, "cut.wasm", &whole[..cut]);
        let outcome = finish(flamewalk_run().arg("-q").arg(&path).arg("return"));
        // Custom sections follow the code: without them it is a guest with less to show.
        let code_is_whole = outcome.status == Some(0);
        let names_it = outcome.stderr.contains("cut.wasm") || outcome.stderr.contains("the guest");
        assert!(code_is_whole || (outcome.status == Some(125) && names_it), "cut at {cut}: {outcome:?}");
    }
    refused(
        &[],
        &file(&folder, "half.wasm", &whole[..whole.len() / 8]),
        &[],
        &["half.wasm", "cannot be compiled"],
    );
}

#[test]
fn an_invalid_guest() {
    let folder = Folder::new();
    let path = file(&folder, "invalid.wat", "(module (func (export \"_start\") i32.const 1))");
    refused(&[], &path, &[], &["invalid.wat", "cannot be compiled", "type mismatch"]);
    let mut version = binary(Guest::Exits);
    version[4] = 9;
    refused(&[], &file(&folder, "version.wasm", version), &[], &["version.wasm", "version"]);
}

#[test]
fn an_import_that_nobody_has() {
    refused(&[], &Guest::MissingImport.path(), &[], &["env", "not_there", "WASI"]);
}

#[test]
fn an_export_that_is_not_there() {
    let reactor = Guest::Reactor.path();
    refused(&["--invoke", "nope"], &reactor, &[], &["`nope`", "fibonacci", "divide"]);
    refused(&[], &reactor, &[], &["_start", "--invoke", "fibonacci"]);
    let folder = Folder::new();
    let empty = file(&folder, "empty.wat", "(module)");
    refused(&[], &empty, &[], &["_start", "no function"]);
}

#[test]
fn arguments_that_the_export_does_not_take() {
    let reactor = Guest::Reactor.path();
    let invoke = |name: &str, arguments: &[&str], parts: &[&str]| {
        refused(&["--invoke", name], &reactor, arguments, parts);
    };
    invoke("divide", &["1"], &["`divide`", "i32, i32", "1 argument"]);
    invoke("divide", &["1", "2", "3"], &["`divide`", "i32, i32", "3 arguments"]);
    invoke("divide", &["1", "two"], &["`two`", "i32", "`divide`"]);
    invoke("fibonacci", &["4294967296"], &["`4294967296`", "i32"]);
    invoke("scale_f32", &["x", "1"], &["`x`", "f32"]);
    let folder = Folder::new();
    let reference = file(&folder, "reference.wat", "(module (func (export \"f\") (param externref)))");
    refused(&["--invoke", "f"], &reference, &["x"], &["`f`", "extern"]);
}

#[test]
fn a_component_has_no_exports_to_invoke() {
    let folder = Folder::new();
    let component = flamewalk_guests::as_component(&binary(Guest::Exits)).unwrap();
    let path = file(&folder, "component.wasm", component);
    refused(&["--invoke", "work"], &path, &[], &["component", "wasi:cli/run"]);
    let empty = file(&folder, "empty.wat", "(component)");
    refused(&[], &empty, &[], &["wasi:cli/run"]);
}

/// It is found before the guest runs: this one would run forever.
#[test]
fn an_output_that_cannot_be_written() {
    let forever = Guest::Exits.path();
    let folder = Folder::new();
    let directory = folder.path("folder.svg");
    std::fs::create_dir(&directory).unwrap();
    for (output, parts) in [
        (folder.path("absent/a.svg"), &["cannot write", "absent/a.svg", "No such file"][..]),
        (directory, &["cannot write", "folder.svg", "directory"]),
        (folder.path("profile.png"), &["profile.png", ".svg", ".folded"]),
        (folder.path("profile"), &["no ending", ".svg", ".folded"]),
    ] {
        refused(&["-o", output.to_str().unwrap()], &forever, &["forever"], parts);
    }
}

/// A disk that is full shows only when the profile is written.
#[test]
fn an_output_that_fails_while_it_is_written() {
    let folder = Folder::new();
    let full = folder.path("full.folded");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let outcome =
        finish(flamewalk_run().arg("-q").arg("-o").arg(&full).arg(Guest::Exits.path()).arg("return"));
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains("cannot write") && outcome.stderr.contains("full.folded"), "{outcome:?}");
}

/// No empty file is left for a run that there was not.
#[test]
fn nothing_is_left_of_a_run_that_did_not_start() {
    let folder = Folder::new();
    let (new, old) = (folder.path("new.svg"), folder.path("old.svg"));
    std::fs::write(&old, "kept").unwrap();
    let options = ["-o", new.to_str().unwrap(), "-o", old.to_str().unwrap()];
    refused(&options, &Guest::MissingImport.path(), &[], &["not_there"]);
    assert!(!new.exists());
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "kept");
    // The second output is refused when the first is open already.
    let absent = folder.path("absent/b.svg");
    let options = ["-o", new.to_str().unwrap(), "-o", absent.to_str().unwrap()];
    refused(&options, &Guest::Nothing.path(), &[], &["absent/b.svg"]);
    assert!(!new.exists());
}

#[test]
fn rates_and_limits_out_of_range() {
    let guest = Guest::Nothing.path();
    refused(&["--freq", "0"], &guest, &[], &["0 Hz", "from 1 to 20000 Hz"]);
    refused(&["--freq", "20001"], &guest, &[], &["20001 Hz", "from 1 to 20000 Hz"]);
    refused(&["--freq", "4294967295"], &guest, &[], &["4294967295 Hz"]);
    refused(&["--frame-limit", "0"], &guest, &[], &["frame limit of 0", "1 or more"]);
    for rate in ["-1", "fast", "1e3", "4294967296"] {
        refused_on_the_command_line(&[&format!("--freq={rate}")], &["--freq", rate]);
    }
}

#[test]
fn an_event_that_nobody_knows() {
    refused_on_the_command_line(
        &["--event", "cpuu"],
        &["unknown event `cpuu`", "cpu", "wall", "page-faults"],
    );
}

#[test]
fn what_the_guest_cannot_be_given() {
    let guest = Guest::Nothing.path();
    let folder = Folder::new();
    let absent = folder.path("absent");
    let absent = absent.to_str().unwrap();
    refused(&["--dir", absent], &guest, &[], &["directory", absent, "No such file"]);
    refused(&["--env", "FLAMEWALK_TEST_ABSENT"], &guest, &[], &["`FLAMEWALK_TEST_ABSENT`", "--env"]);
}

#[test]
fn no_samples_at_all() {
    let folder = Folder::new();
    let (folded, svg) = (folder.path("a.folded"), folder.path("a.svg"));
    let options = ["--freq", "1", "-o", folded.to_str().unwrap(), "-o", svg.to_str().unwrap()];
    refused(&options, &Guest::Nothing.path(), &[], &["no samples", "`cpu`", "did not occur", "--freq"]);
    assert!(!folded.exists() && !svg.exists());
    refused(&["-q", "--freq", "1"], &Guest::Nothing.path(), &[], &["no samples"]);
}

/// It once was that a guest that was too quick had failed in vain: the status was that of a missing profile.
#[test]
fn a_guest_that_fails_before_its_first_sample_has_its_own_status() {
    const EXITS: &str = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const 3))))"#;
    const TRAPS: &str = r#"(module (func (export "_start") unreachable))"#;
    let folder = Folder::new();
    for (name, guest, status) in [("exits.wat", EXITS, 3), ("traps.wat", TRAPS, 134)] {
        let outcome = finish(flamewalk_run().args(["--freq", "1"]).arg(file(&folder, name, guest)));
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
        assert!(outcome.stderr.contains("no samples"), "{outcome:?}");
    }
}

/// Damage in names and DWARF costs names and lines, not the profile.
#[test]
fn corrupt_symbols() {
    let folder = Folder::new();
    for section in ["name", ".debug_info", ".debug_line", ".debug_abbrev", ".debug_str", ".debug_ranges"] {
        for fill in [0x00, 0xff, 0x80] {
            let mut damaged = binary(Guest::Exits);
            let Some(range) = custom_section(&damaged, section) else { panic!("no {section}") };
            damaged[range].fill(fill);
            let guest = file(&folder, "damaged.wasm", damaged);
            let (outcome, profile) = crate::profile(&folder, &[], &guest, &["return"]);
            assert!(profile.total() > 50_000_000, "{section} filled with {fill:#x}: {outcome:?}");
            let said = outcome.stderr.lines().filter(|line| line.contains("damaged.wasm")).count();
            assert!(said <= 1, "{section} filled with {fill:#x}: {outcome:?}");
        }
    }
}

/// Where the contents of a custom section lie.
fn custom_section(binary: &[u8], name: &str) -> Option<std::ops::Range<usize>> {
    wasmparser::Parser::new(0).parse_all(binary).find_map(|payload| match payload.unwrap() {
        wasmparser::Payload::CustomSection(section) if section.name() == name => {
            let start = section.data_offset();
            Some(start..start + section.data().len())
        }
        _ => None,
    })
}

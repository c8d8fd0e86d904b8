//! Bad input of the commands that read profiles: one sentence on standard error, and status 125.

use std::path::Path;

use flamewalk::profile::{Event, Format, Frame, Profile, Tally, format};
use flamewalk_guests::Guest;

use crate::finish;
use crate::reading::write_profile;
use crate::support::{Folder, flamewalk};

fn refused(command: &str, arguments: &[&str], parts: &[&str]) {
    let outcome = finish(flamewalk(command).args(arguments));
    assert_eq!(outcome.status, Some(125), "{arguments:?} {outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    let line = outcome.stderr.strip_prefix("flamewalk: ").unwrap_or_else(|| panic!("{outcome:?}"));
    assert_eq!(line.trim_end().lines().count(), 1, "{outcome:?}");
    for part in parts {
        assert!(line.contains(part), "{part} is not in: {outcome:?}");
    }
}

fn refused_on_the_command_line(command: &str, arguments: &[&str], parts: &[&str]) {
    let outcome = finish(flamewalk(command).args(arguments));
    assert_eq!(outcome.status, Some(125), "{arguments:?} {outcome:?}");
    let said = outcome.stderr.split("Usage:").next().unwrap();
    for part in parts {
        assert!(said.contains(part), "{part} is not in: {outcome:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_no_profile() {
    let folder = Folder::new();
    refused("report", &[text(&folder.path("absent"))], &["cannot read", "absent", "No such file"]);
    refused("report", &[text(&folder.path(""))], &["cannot read", "directory"]);
    refused("report", &["/dev/zero"], &["/dev/zero", "cannot be read as a profile", "bytes"]);
    refused("report", &[text(&Guest::Exits.path())], &["exits.wasm", "cannot be read as a profile", "asm"]);
    let whole = folder.path("whole.flamewalk");
    write_profile(&whole);
    let bytes = std::fs::read(&whole).unwrap();
    // None of it was once read as a profile without samples.
    for cut in [0, 1, 8, 20, bytes.len() / 2, bytes.len() - 1] {
        let path = folder.path("cut.flamewalk");
        std::fs::write(&path, &bytes[..cut]).unwrap();
        refused("report", &[text(&path)], &["cut.flamewalk", "cannot be read as a profile"]);
    }
}

#[test]
fn filters_that_the_profile_has_no_answer_for() {
    let folder = Folder::new();
    let path = folder.path("a.flamewalk");
    write_profile(&path);
    let profile = text(&path);
    refused("report", &[profile, "--thread", "third"], &["no thread `third`", "11 (first), 12 (second)"]);
    refused("report", &[profile, "--label", "tenant=c"], &["`tenant=c`", "tenant=a, tenant=b"]);
    refused("report", &[profile, "--from", "3s", "--to", "2s"], &["3.00 s to 2.00 s is empty"]);
    refused(
        "report",
        &[profile, "--focus", "nothing"],
        &["nothing is left", "a.flamewalk", "focus `nothing`"],
    );
    let folded = folder.path("a.folded");
    std::fs::write(&folded, "main 5\n").unwrap();
    refused("report", &[text(&folded), "--from", "1s"], &["does not say when"]);
    for (option, value, parts) in [
        ("--focus", "a(", &["`a(` is not a regular expression"][..]),
        ("--from", "5", &["--from", "ns, us, ms, s or m"]),
        ("--label", "tenant", &["--label", "KEY=VALUE"]),
        ("--by", "colour", &["--by", "label:KEY"]),
    ] {
        refused_on_the_command_line("report", &[profile, option, value], parts);
    }
}

#[test]
fn outputs_that_cannot_be() {
    let folder = Folder::new();
    let path = folder.path("a.flamewalk");
    write_profile(&path);
    let profile = text(&path);
    let out = |name: &str| text(&folder.path(name)).to_owned();
    refused("report", &[profile, "-o", &out("a.png")], &["a.png", ".flamewalk", ".pb.gz", ".html"]);
    refused("report", &[profile, "-o", &out("absent/a.svg")], &["cannot write", "absent/a.svg"]);
    refused("diff", &[profile, profile, "-o", &out("a.folded")], &["a.folded", ".svg or .html"]);
    assert!(!folder.path("a.folded").exists());
    refused("report", &[profile, "--source-dir", &out("absent")], &["cannot read", "absent"]);
    refused_on_the_command_line("merge", &[profile], &["--output"]);
}

#[test]
fn functions_that_cannot_be_annotated() {
    let folder = Folder::new();
    let path = folder.path("a.flamewalk");
    write_profile(&path);
    let profile = text(&path);
    let guest = Guest::Exits.path();
    refused("annotate", &[profile, "nope"], &["no function `nope`"]);
    refused("annotate", &[profile, "a"], &["several functions contain `a`", "`parse`", "`main`"]);
    refused("annotate", &[profile, "[host] env.write"], &["is not a function of the guest"]);
    refused("annotate", &[profile, "parse"], &["no source line of `parse`"]);
    refused(
        "annotate",
        &[profile, "parse", "--wat", "--guest", text(&guest)],
        &["instructions of `parse`", ".flamewalk"],
    );
    refused("annotate", &[profile, "parse", "--wat", "--guest", profile], &["is not a WebAssembly module"]);
    refused_on_the_command_line("annotate", &[profile, "parse", "--wat"], &["--guest"]);
}

#[test]
fn profiles_that_have_nothing_in_common() {
    let folder = Folder::new();
    let path = folder.path("a.flamewalk");
    write_profile(&path);
    let profile = text(&path);
    let faults = folder.path("faults.flamewalk");
    let mut other = Profile::default();
    other.metadata.event = Event::count("page-faults");
    let main = other.intern(Frame::guest("main"));
    other.add(&[main], Tally { samples: 1, weight: 1 }).unwrap();
    format::write(&other, Format::Native, &mut std::fs::File::create(&faults).unwrap()).unwrap();
    let merged = folder.path("merged.flamewalk");
    refused(
        "merge",
        &[profile, text(&faults), "-o", text(&merged)],
        &["profile 2", "`page-faults`", "`cpu`"],
    );
    assert!(!merged.exists());
    refused("diff", &[profile, text(&faults)], &["different events", "`page-faults`", "`cpu`"]);

    let empty = folder.path("empty.folded");
    std::fs::write(&empty, "").unwrap();
    refused("diff", &[profile, text(&empty)], &["no samples"]);
    refused("diff", &[profile, profile, "--work", "1", "--work", "2", "--work", "3"], &["--work", "3 times"]);
    refused("diff", &[profile, profile, "--work", "0"], &["work"]);
    refused_on_the_command_line("diff", &[profile], &["NEW"]);
    refused_on_the_command_line("diff", &["--base", profile], &["--new"]);
    refused_on_the_command_line(
        "diff",
        &[profile, profile, "--fail-above=-5"],
        &["--fail-above", "0 or more"],
    );
}

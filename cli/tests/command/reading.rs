//! The commands that read profiles, on profiles that are made here and so have known figures, and on one of a real run.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flamewalk::profile::{Event, Format, Frame, Headroom, Labels, Origin, Profile, Tally, Thread, format};
use flamewalk_guests::Guest;
use serde_json::Value;

use crate::finish;
use crate::support::{Folder, Outcome, flamewalk, flamewalk_run};

/// A profile of two threads and tenants over four seconds, in native format.
pub(crate) fn write_profile(path: &Path) {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    profile.metadata.slice = Some(Duration::from_secs(1));
    let main = profile.intern(Frame { module: Some("app.wasm".into()), ..Frame::guest("main") });
    let parse = profile.intern(Frame { module: Some("app.wasm".into()), ..Frame::guest("parse") });
    let write = profile.intern(Frame::host_call("env", "write"));
    let thread = |profile: &mut Profile, id, name: &str| {
        Some(profile.intern_thread(Thread { id, name: Some(name.into()) }))
    };
    let (first, second) = (thread(&mut profile, 11, "first"), thread(&mut profile, 12, "second"));
    let labels = |profile: &mut Profile, tenant: &str| {
        let labels: Labels = [("tenant", tenant.to_owned())].into_iter().collect();
        profile.intern_labels(labels)
    };
    let (a, b) = (labels(&mut profile, "a"), labels(&mut profile, "b"));
    for (stack, thread, labels, slice, weight, headroom) in [
        (&[main][..], first, a, 0, 1, (100, 900)),
        (&[main, parse], first, a, 1, 10, (200, 800)),
        (&[main, parse, parse], first, b, 2, 100, (300, 700)),
        (&[main, parse, write], second, b, 3, 1_000, (400, 600)),
    ] {
        let origin = Origin { thread, labels, slice: Some(slice) };
        let stack = profile.add_from(stack, origin, Tally { samples: 1, weight }).unwrap();
        profile.note_headroom(stack, Headroom { deepest_use: headroom.0, least_left: headroom.1 });
    }
    format::write(&profile, Format::Native, &mut std::fs::File::create(path).unwrap()).unwrap();
}

fn made(folder: &Folder) -> PathBuf {
    let path = folder.path("made.flamewalk");
    write_profile(&path);
    path
}

/// Runs a command on a profile; it has to end well.
fn read(command: &str, profile: &Path, options: &[&str]) -> Outcome {
    let outcome = finish(flamewalk(command).arg(profile).args(options));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    outcome
}

fn json(profile: &Path, options: &[&str]) -> Value {
    serde_json::from_str(&read("report", profile, &[&["--format", "json"], options].concat()).stdout).unwrap()
}

/// How far below the top of a graph a function's first frame is drawn.
fn top(svg: &str, function: &str) -> u32 {
    let (_, frame) = svg.split_once(&format!("<title>{function} (")).unwrap();
    let (_, y) = frame.split_once(" y=\"").unwrap();
    y.split_once('"').unwrap().0.parse().unwrap()
}

#[test]
fn graphs_can_be_drawn_as_icicles() {
    let folder = Folder::new();
    let (profile, svg) = (made(&folder), folder.path("a.svg"));
    let commands: [(&str, &[&Path]); 3] =
        [("report", &[&profile]), ("merge", &[&profile, &profile]), ("diff", &[&profile, &profile])];
    for (command, profiles) in commands {
        for (options, is_icicle) in [(&[][..], false), (&["--icicle"], true)] {
            let outcome = finish(flamewalk(command).args(profiles).arg("-o").arg(&svg).args(options));
            assert_eq!(outcome.status, Some(0), "{outcome:?}");
            let drawn = std::fs::read_to_string(&svg).unwrap();
            let is_caller_above = top(&drawn, "main") < top(&drawn, "parse");
            assert_eq!(is_caller_above, is_icicle, "{command} {options:?}");
        }
    }
}

#[test]
fn a_report_lists_what_costs_most() {
    let folder = Folder::new();
    let path = made(&folder);
    let outcome = read("report", &path, &["--top", "2"]);
    let expected = [
        "cpu 1.11 µs · 4 samples",
        "   SELF   SELF%    TOTAL  TOTAL%  FUNCTION",
        "1.00 µs  90.01%  1.00 µs  90.01%  [host] env.write",
        " 110 ns   9.90%  1.11 µs  99.91%  parse",
    ];
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected);
    assert_eq!(outcome.stderr, "");

    let report = json(&path, &["--top", "1"]);
    assert_eq!((&report["format"], &report["weight"]), (&"flamewalk report 1".into(), &1_111.into()));
    let write = &report["functions"][0];
    assert_eq!((&write["name"], &write["kind"]), (&"[host] env.write".into(), &"host call".into()));
    assert_eq!((&write["self_weight"], report["functions"].as_array().unwrap().len()), (&1_000.into(), 1));
}

#[test]
fn a_report_can_be_by_anything_that_samples_have() {
    let folder = Folder::new();
    let path = made(&folder);
    let parts = |by: &str| -> Vec<(Value, u64)> {
        let report = json(&path, &["--by", by]);
        let parts = report["parts"].as_array().unwrap();
        parts.iter().map(|part| (part["name"].clone(), part["weight"].as_u64().unwrap())).collect()
    };
    assert_eq!(parts("thread"), [("12 (second)".into(), 1_000), ("11 (first)".into(), 111)]);
    assert_eq!(parts("label:tenant"), [("b".into(), 1_100), ("a".into(), 11)]);
    assert_eq!(parts("label:user"), [(Value::Null, 1_111)]);
    assert_eq!(parts("module"), [("app.wasm".into(), 1_111)]);
    let stack = &json(&path, &["--stack"])["stack"];
    assert_eq!(
        (&stack[0]["name"], &stack[0]["self"]["least_left"]),
        (&"[host] env.write".into(), &600.into())
    );
    assert_eq!((&stack[1]["name"], &stack[1]["self"]["least_left"]), (&"parse".into(), &700.into()));
    assert!(read("report", &path, &["--stack"]).stdout.contains("SELF LEFT"));
    assert!(read("report", &path, &["--by", "thread"]).stdout.contains("11 (first)"));
}

#[test]
fn every_filter_means_what_it_says() {
    let folder = Folder::new();
    let path = made(&folder);
    for (options, weight) in [
        (&["--thread", "first"][..], 111),
        (&["--thread", "12"], 1_000),
        (&["--thread", "12", "--thread", "first"], 1_111),
        (&["--label", "tenant=a"], 11),
        (&["--from", "1s", "--to", "3000ms"], 110),
        (&["--to", "0.5s"], 1),
        (&["--focus", "pars"], 1_110),
        (&["--focus", "^parse$", "--focus", "write"], 1_000),
        (&["--ignore", "write|nothing"], 111),
        (&["--thread", "first", "--label", "tenant=b", "--from", "2s"], 100),
    ] {
        let report = json(&path, options);
        assert_eq!(report["weight"], weight, "{options:?}");
        let notice = report["notices"][0].as_str().unwrap();
        assert!(notice.starts_with("filtered by "), "{notice}");
    }
    // The same for every command that reads.
    let merged = folder.path("merged.folded");
    let options = ["--collapse-recursion", "--thread", "first", "-o", merged.to_str().unwrap()];
    read("merge", &path, &options);
    assert_eq!(std::fs::read_to_string(&merged).unwrap(), "main 1\nmain;parse 110\n");
}

#[test]
fn merging_adds_up() {
    let folder = Folder::new();
    let path = made(&folder);
    let merged = folder.path("merged.flamewalk");
    let outcome = finish(flamewalk("merge").args([&path, &path, &path]).arg("-o").arg(&merged));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("merged from 3 profiles"), "{outcome:?}");
    let report = json(&merged, &[]);
    assert_eq!((&report["weight"], &report["samples"]), (&3_333.into(), &12.into()));
}

/// What draws folded stacks reads them from a pipe: nothing else may be there.
#[test]
fn folded_stacks_go_to_standard_output() {
    let folder = Folder::new();
    let path = made(&folder);
    let expected = "main 1\nmain;parse 10\nmain;parse;[host] env.write 1000\nmain;parse;parse 100\n";
    let outcome = read("report", &path, &["-o", "-"]);
    assert_eq!(outcome.stdout, expected);
    assert_eq!(read("merge", &path, &["-q", "-o", "-"]).stdout, expected);

    // What is there is not cut off, as it is in files.
    let output = folder.path("all.txt");
    std::fs::write(&output, "before\n").unwrap();
    let appended = std::fs::OpenOptions::new().append(true).open(&output).unwrap();
    let mut command = flamewalk("report");
    let status = command.arg(&path).args(["-q", "-o", "-"]).stdout(appended).status().unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(&output).unwrap(), format!("before\n{expected}"));
    // Nor is a file of that name made.
    assert!(!Path::new("-").exists());
    let other = folder.path("a.collapsed");
    read("report", &path, &["-q", "-o", other.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&other).unwrap(), expected);
    // The guest's own output is there.
    let outcome = finish(flamewalk_run().args(["-o", "-"]).arg(Guest::KnownAnswer.path()));
    assert_eq!((outcome.status, &outcome.stdout[..]), (Some(125), ""));
    assert!(
        outcome.stderr.contains("would mix the profile with what the guest writes"),
        "{}",
        outcome.stderr
    );
}

/// Standard input, and a reader of standard output that has seen enough.
#[test]
fn profiles_go_through_pipes() {
    let folder = Folder::new();
    let path = made(&folder);
    let mut command = flamewalk("report");
    command.arg("-").stdin(std::fs::File::open(&path).unwrap());
    assert!(finish(&mut command).stdout.contains("parse"));

    let mut command = flamewalk("report");
    command.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Closed before the profile is there, so before anything is printed.
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(&std::fs::read(&path).unwrap()).unwrap();
    let outcome = Outcome::of(child.wait_with_output().unwrap());
    assert_eq!((outcome.status, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
}

#[test]
fn a_report_opens_in_a_browser() {
    let folder = Folder::new();
    let path = made(&folder);
    let outcome = finish(
        flamewalk("view").arg(&path).arg("--no-open").env("TMPDIR", folder.path("")).env("BROWSER", "false"),
    );
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let page = PathBuf::from(outcome.stdout.trim_end());
    assert!(page.starts_with(folder.path("")));
    assert!(std::fs::read_to_string(&page).unwrap().contains("<html"));

    // The browser says what it was asked to open.
    let (browser, asked) = (folder.path("browser"), folder.path("asked"));
    nix::unistd::mkfifo(&asked, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(&browser, format!("#!/bin/sh\necho \"$1 $2\" > '{}'\n", asked.display())).unwrap();
    std::fs::set_permissions(&browser, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = flamewalk("view");
    let commands = format!("absent-browser:{} --new", browser.display());
    command.arg(&path).env("TMPDIR", folder.path("")).env("BROWSER", commands);
    let outcome = finish(&mut command);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let mut line = String::new();
    BufReader::new(std::fs::File::open(&asked).unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("--new {}", outcome.stdout));
}

/// All formats of one run have its total, by whatever can be read back, and converting is writing.
#[test]
fn a_run_is_written_in_every_format() {
    let folder = Folder::new();
    let endings = Format::ALL.map(Format::ending);
    let mut command = flamewalk_run();
    for ending in endings.iter().chain(&[".svg", ".html"]) {
        command.arg("-o").arg(folder.path(&format!("a{ending}")));
    }
    let outcome = finish(command.arg(Guest::KnownAnswer.path()).args(["--rounds", "100"]));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let native = folder.path("a.flamewalk");
    let weight = json(&native, &[])["weight"].as_u64().unwrap();
    assert!(weight > 10_000_000);
    let profile = format::read_file(&native).unwrap();
    for (ending, format) in endings.into_iter().zip(Format::ALL) {
        let (written, converted) = (folder.path(&format!("a{ending}")), folder.path(&format!("b{ending}")));
        read("report", &native, &["-q", "-o", converted.to_str().unwrap()]);
        assert!(std::fs::read(&written).unwrap() == std::fs::read(&converted).unwrap(), "{ending}");
        let mut expected = Vec::new();
        format::write(&profile, format, &mut expected).unwrap();
        assert!(std::fs::read(&written).unwrap() == expected, "{ending}");
        assert_eq!(json(&written, &[])["weight"], weight, "{ending}");
    }
    for (ending, start) in [(".svg", "<?xml"), (".html", "<!")] {
        let mut text = String::new();
        let file = std::fs::File::open(folder.path(&format!("a{ending}"))).unwrap();
        file.take(100).read_to_string(&mut text).unwrap();
        assert!(text.to_lowercase().starts_with(start), "{text}");
    }
}

#[test]
fn every_command_has_examples() {
    for command in ["run", "attach", "report", "annotate", "diff", "merge", "view"] {
        let outcome = finish(flamewalk(command).arg("--help"));
        assert_eq!(outcome.status, Some(0));
        let example = format!("  flamewalk {command} ");
        assert!(outcome.stdout.contains("Examples:\n") && outcome.stdout.contains(&example), "{outcome:?}");
        assert!(outcome.stdout.contains("Exit status: "), "{outcome:?}");
    }
}

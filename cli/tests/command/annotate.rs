//! `flamewalk annotate` on real runs: the lines and instructions of a function have its share, and only of the guest that
//! ran.

use std::path::{Path, PathBuf};

use flamewalk_guests::{Guest, as_component};
use serde_json::Value;

use crate::finish;
use crate::support::{Folded, Folder, Outcome, flamewalk, flamewalk_run};

/// Profiles the guest, natively and as folded stacks.
fn profile(folder: &Folder, guest: &Path, arguments: &[&str]) -> (PathBuf, Folded) {
    let (native, folded) = (folder.path("a.flamewalk"), folder.path("a.folded"));
    let mut command = flamewalk_run();
    command.args(["-q", "--freq", "4999", "-o"]).arg(&native).arg("-o").arg(&folded).arg(guest);
    let outcome = finish(command.args(arguments));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    (native, Folded::read(&folded))
}

fn annotate(profile: &Path, function: &str, options: &[&str]) -> Outcome {
    finish(flamewalk("annotate").arg(profile).arg(function).args(options))
}

/// The sums of SELF% and TOTAL% over a listing, and how many lines have any.
fn sums(listing: &str) -> (f64, f64, usize) {
    let percents = |line: &str| -> Vec<f64> {
        let figures = line.split('|').next().unwrap();
        figures.split_whitespace().filter_map(|word| word.strip_suffix('%')?.parse().ok()).collect()
    };
    let lines: Vec<Vec<f64>> =
        listing.lines().skip(2).map(percents).filter(|percents| !percents.is_empty()).collect();
    // A line without self has the percentage of its total alone.
    let own = lines.iter().filter(|percents| percents.len() == 2).map(|percents| percents[0]).sum();
    let total = lines.iter().map(|percents| percents[percents.len() - 1]).sum();
    (own, total, lines.len())
}

fn is_close(sum: f64, share: f64, lines: usize) -> bool {
    // Each line is rounded to a hundredth.
    (sum - 100.0 * share).abs() <= 0.005 * (lines + 1) as f64
}

#[test]
fn lines_and_instructions_have_the_functions_share() {
    let folder = Folder::new();
    let guest = Guest::KnownAnswer.path();
    let (native, folded) = profile(&folder, &guest, &["--rounds", "300"]);
    let guest = guest.to_str().unwrap();
    // `steps` is inlined into it: its lines are not those of `loopy`, its instructions are.
    let is_loopy = |stack: &[String]| stack.last().unwrap() == "loopy";
    let in_loopy = |stack: &[String]| {
        stack.iter().rev().find(|frame| *frame != "steps").is_some_and(|frame| frame == "loopy")
    };
    let sources = Path::new(guest).parent().unwrap().parent().unwrap().join("sources");
    let listing = annotate(&native, "loopy", &["--source-dir", sources.to_str().unwrap()]).stdout;
    assert!(listing.contains("static uint64_t loopy(uint64_t x) { return steps(x, 20000); }"), "{listing}");
    let (own, _, lines) = sums(&listing);
    assert!(lines > 0 && is_close(own, folded.share(is_loopy), lines), "{listing}");
    // Without the sources the figures are the same.
    let bare = annotate(&native, "loopy", &[]).stdout;
    assert_eq!(sums(&bare), sums(&listing));
    has_the_same_as_json(&native, "loopy", &[]);
    has_the_same_as_json(&native, "loopy", &["--source-dir", sources.to_str().unwrap()]);

    for (option, text) in [("--wat", "br_if 0"), ("--machine", "imul ")] {
        let outcome = annotate(&native, "loopy", &[option, "--guest", guest]);
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains(text), "{outcome:?}");
        let (own, _, lines) = sums(&outcome.stdout);
        // A loop that waits for one instruction has all samples there.
        assert!(lines > 0 && is_close(own, folded.share(in_loopy), lines), "{own} {outcome:?}");
        has_the_same_as_json(&native, "loopy", &[option, "--guest", guest]);
    }
    // One that only calls: the total is that of its calls.
    let outcome = annotate(&native, "_start", &["--wat", "--guest", guest]);
    let (_, total, lines) = sums(&outcome.stdout);
    let has = folded.share(|stack| stack.iter().any(|frame| frame == "_start"));
    assert!(is_close(total, has, lines), "{total} {has} {outcome:?}");
    let call = outcome.stdout.lines().find(|line| line.contains("call $loopy"));
    assert!(call.is_some_and(|line| line.contains('%')), "{outcome:?}");
}

/// The JSON has the lines of the text, each with the same figures; and the function's own, which the lines add up to.
fn has_the_same_as_json(profile: &Path, function: &str, options: &[&str]) {
    let text = annotate(profile, function, options).stdout;
    let outcome = annotate(profile, function, &[options, &["--format", "json"]].concat());
    assert_eq!((outcome.status, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&json["format"], &json["function"]), (&"flamewalk annotation 1".into(), &function.into()));
    let whole = json["weight"].as_u64().unwrap();
    let percent = |of: &Value, which: &str| {
        let weight = of[format!("{which}_weight")].as_u64().unwrap();
        let share = of[format!("{which}_share")].as_f64().unwrap();
        assert!((share - weight as f64 / whole as f64).abs() < 1e-12, "{of}");
        format!("{:.2}%", 100.0 * share)
    };
    let head = format!("{function}: self {}, total {}", percent(&json, "self"), percent(&json, "total"));
    assert_eq!(text.lines().next(), Some(&*head));

    let mut lines = text.lines().skip(1).filter(|line| line.contains("  |") && !line.contains("…  |"));
    let mut own = 0;
    for listing in json["listings"].as_array().unwrap() {
        let is_source = listing["file"].is_string();
        assert!(is_source || listing["function_index"].is_u64(), "{listing}");
        for line in listing["lines"].as_array().unwrap() {
            let shown = lines.next().unwrap_or_else(|| panic!("{line} is not in {text}"));
            let (figures, source) = shown.split_once('|').unwrap();
            let position = match is_source {
                true => line["line"].to_string(),
                false => format!("{:#x}", line["offset"].as_u64().unwrap()),
            };
            assert!(figures.trim_end().ends_with(&position), "{line} is not {shown}");
            assert_eq!(line["text"].as_str().unwrap().replace('\t', "    "), source);
            own += line["self_weight"].as_u64().unwrap();
            for which in ["self", "total"] {
                let percent = percent(line, which);
                assert!(line[format!("{which}_weight")] == 0 || figures.contains(&percent), "{shown}");
            }
        }
    }
    assert_eq!(lines.next(), None, "all lines are in {json}");
    if options.contains(&"--wat") || options.contains(&"--machine") {
        assert!(own >= json["self_weight"].as_u64().unwrap() && json.get("no_line").is_none(), "{json}");
    } else {
        let no_line = json["no_line"]["self_weight"].as_u64().unwrap();
        assert_eq!(own + no_line, json["self_weight"].as_u64().unwrap(), "{json}");
    }
}

#[test]
fn components_and_code_compiled_ahead_of_time() {
    let folder = Folder::new();
    let binary = std::fs::read(Guest::Exits.path()).unwrap();
    let component = folder.path("component.wasm");
    std::fs::write(&component, as_component(&binary).unwrap()).unwrap();
    let (native, _) = profile(&folder, &component, &["return"]);
    let guest = component.to_str().unwrap();
    for option in ["--wat", "--machine"] {
        let outcome = annotate(&native, "work", &[option, "--guest", guest]);
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        assert!(sums(&outcome.stdout).0 > 1.0, "{outcome:?}");
    }
    let compiled = folder.path("component.cwasm");
    let engine = wasmtime::Engine::default();
    std::fs::write(&compiled, engine.precompile_component(&std::fs::read(&component).unwrap()).unwrap())
        .unwrap();
    let machine = |guest: &str| annotate(&native, "work", &["--machine", "--guest", guest]).stdout;
    assert_eq!(machine(compiled.to_str().unwrap()), machine(guest));
    let outcome = annotate(&native, "work", &["--wat", "--guest", compiled.to_str().unwrap()]);
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("ahead of time"), "{outcome:?}");
}

const LOOP: &str = "(module (func $work (export \"_start\") (local $i i64)
  (loop (br_if 0 (i64.ne (i64.const 300000000) (local.tee $i (i64.add (i64.const 1) (local.get $i))))))))";

#[test]
fn another_guest_is_refused() {
    let folder = Folder::new();
    let guest = folder.path("loop.wat");
    std::fs::write(&guest, LOOP).unwrap();
    let (native, _) = profile(&folder, &guest, &[]);
    let outcome = annotate(&native, "work", &["--wat", "--guest", guest.to_str().unwrap()]);
    assert!(outcome.stdout.contains("i64.add"), "{outcome:?}");
    let (own, _, _) = sums(&outcome.stdout);
    assert!(own > 99.0, "{outcome:?}");

    let others = [
        // The same size, another instruction; and the same instructions elsewhere.
        LOOP.replace("i64.add", "i64.sub"),
        LOOP.replace("(func $work", "(func) (func $work"),
        LOOP.replace("(local.get $i)", "(local.get $i) (nop)"),
        "(module (func (export \"_start\")))".to_owned(),
    ];
    for other in others {
        let path = folder.path("other.wat");
        std::fs::write(&path, &other).unwrap();
        for option in ["--wat", "--machine"] {
            let outcome = annotate(&native, "work", &[option, "--guest", path.to_str().unwrap()]);
            assert_eq!(outcome.status, Some(125), "{other}: {outcome:?}");
            assert!(outcome.stderr.contains("is not the guest that was profiled"), "{other}: {outcome:?}");
        }
    }
    // Compiled with other settings: the same bytecode, other machine code.
    let mut config = wasmtime::Config::new();
    config.cranelift_opt_level(wasmtime::OptLevel::None);
    let engine = wasmtime::Engine::new(&config).unwrap();
    let compiled = folder.path("slow.cwasm");
    std::fs::write(&compiled, engine.precompile_module(LOOP.as_bytes()).unwrap()).unwrap();
    let outcome = annotate(&native, "work", &["--machine", "--guest", compiled.to_str().unwrap()]);
    assert!(outcome.stderr.contains("is not the guest that was profiled"), "{outcome:?}");
}

//! `flamewalk diff`, on profiles that are made here and on some of real runs.

use std::path::{Path, PathBuf};

use flamewalk::profile::{Event, Format, Frame, Profile, Tally, format};
use flamewalk_guests::Guest;
use serde_json::Value;

use crate::finish;
use crate::support::{Folder, Outcome, flamewalk, flamewalk_run};

/// A profile in which `parse` has this many samples of 10,000.
pub(crate) fn made(folder: &Folder, name: &str, parse: u64) -> PathBuf {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    profile.metadata.period = Some(1_000_000);
    let main = profile.intern(Frame::guest("main"));
    for (function, samples) in [("parse", parse), ("draw", 10_000 - parse)] {
        let function = profile.intern(Frame::guest(function));
        let tally = Tally { samples, weight: samples * 1_000_000 };
        profile.add(&[main, function], tally).unwrap();
    }
    let path = folder.path(name);
    format::write(&profile, Format::Native, &mut std::fs::File::create(&path).unwrap()).unwrap();
    path
}

pub(crate) fn diff(base: &Path, new: &Path, options: &[&str]) -> Outcome {
    finish(flamewalk("diff").arg(base).arg(new).args(options))
}

#[test]
fn a_rise_fails_a_build_and_noise_does_not() {
    let folder = Folder::new();
    let base = made(&folder, "base.flamewalk", 2_000);
    let (slow, noise) = (made(&folder, "slow.flamewalk", 3_000), made(&folder, "noise.flamewalk", 2_050));
    let failed = diff(&base, &slow, &["--fail-above", "5"]);
    assert_eq!(failed.status, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("parse") && failed.stderr.contains("more than 5.00"), "{failed:?}");
    for (new, threshold) in [(&slow, "11%"), (&noise, "0"), (&base, "0")] {
        let passed = diff(&base, new, &["--fail-above", threshold]);
        assert_eq!(passed.status, Some(0), "{passed:?}");
        assert!(passed.stderr.contains("nothing rose"), "{passed:?}");
    }
    assert_eq!(diff(&base, &slow, &[]).status, Some(0), "without a threshold nothing fails");
    // Only what fails it is said if quiet is asked for, as in `report` and `merge`.
    let svg = folder.path("quiet.svg");
    let quiet = |new| diff(&base, new, &["-q", "--fail-above", "5", "-o", svg.to_str().unwrap()]);
    let said = quiet(&slow);
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.stderr.lines().all(|line| line.contains("rose by")) && !said.stderr.is_empty(), "{said:?}");
    let said = quiet(&noise);
    assert_eq!((said.status, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""));
    assert!(svg.exists());
    // The share of `draw` falls; its cost per unit of work does not, if there was less of it.
    let work = ["--work", "1000", "--work", "500", "--fail-above", "50"];
    let costlier = diff(&base, &slow, &work);
    assert_eq!(costlier.status, Some(1), "{costlier:?}");
    assert!(costlier.stderr.contains("draw"), "{costlier:?}");
}

/// Folded stacks do not say how many samples they are of. A gate on them let everything pass, from 0.01 % to 50 %.
#[test]
fn a_gate_that_cannot_tell_fails() {
    let folder = Folder::new();
    let folded = |name: &str, a: u64| {
        let path = folder.path(name);
        std::fs::write(&path, format!("a {a}\nb {}\n", 10_000 - a)).unwrap();
        path
    };
    let (base, new) = (folded("base.folded", 1), folded("new.folded", 5_000));
    let (again, rise) = (folded("again.folded", 1), ["--fail-above", "3"]);
    let refused = |outcome: Outcome| {
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        let expected =
            "base.folded` holds neither the number of its samples nor their period; compare .flamewalk";
        assert!(outcome.stderr.contains(expected) && outcome.stderr.contains("--period"), "{outcome:?}");
        assert!(outcome.stdout.contains("0.01 → 50.00"), "{outcome:?}");
        assert!(
            outcome.stdout.contains("base: weight ") && !outcome.stdout.contains("samples, "),
            "{outcome:?}"
        );
    };
    refused(diff(&base, &new, &rise));
    let mut several = flamewalk("diff");
    for (side, path) in [("--base", &base), ("--base", &again), ("--new", &new), ("--new", &new)] {
        several.arg(side).arg(path);
    }
    refused(finish(several.args(rise)));
    assert_eq!(diff(&base, &new, &[]).status, Some(0), "without a threshold there is nothing to decide");

    let period = |new: &Path, period| diff(&base, new, &[&rise[..], &["--period", period]].concat());
    let failed = period(&new, "1");
    assert_eq!(failed.status, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("a: self rose by 49.99 percentage points"), "{failed:?}");
    assert_eq!(period(&again, "1").status, Some(0));
    // Two samples a side tell nothing, and say so.
    let passed = period(&new, "5000");
    assert_eq!(passed.status, Some(0), "{passed:?}");
    assert!(passed.stderr.contains("may be missed"), "{passed:?}");
    assert_eq!(period(&new, "0").status, Some(125));
}

#[test]
fn a_comparison_is_printed_and_drawn() {
    let folder = Folder::new();
    let (base, new) = (made(&folder, "base.flamewalk", 2_000), made(&folder, "new.flamewalk", 3_000));
    let (svg, html) = (folder.path("a.svg"), folder.path("a.html"));
    let outputs = ["-o", svg.to_str().unwrap(), "-o", html.to_str().unwrap()];
    let text = diff(&base, &new, &outputs).stdout;
    assert!(text.contains("parse") && text.contains("20.00 → 30.00"), "{text}");
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<?xml"));
    assert!(std::fs::read_to_string(&html).unwrap().contains("<html"));
    let markdown = diff(&base, &new, &["--format", "markdown"]).stdout;
    assert!(markdown.contains("| ") && markdown.contains("parse"), "{markdown}");
    let json: Value = serde_json::from_str(&diff(&base, &new, &["--format", "json"]).stdout).unwrap();
    assert_eq!(json["format"], "flamewalk comparison 1");
    let vanished = diff(&base, &new, &["--shape", "vanished", "-o", svg.to_str().unwrap()]);
    assert_eq!(vanished.status, Some(125), "{vanished:?}");
    assert!(vanished.stderr.contains("a.svg"), "{vanished:?}");

    // Several profiles a side.
    let mut command = flamewalk("diff");
    command
        .arg("--base")
        .arg(&base)
        .arg("--base")
        .arg(&base)
        .arg("--new")
        .arg(&new)
        .args(["--format", "json"]);
    let json: Value = serde_json::from_str(&finish(&mut command).stdout).unwrap();
    assert_eq!((&json["base"]["profiles"], &json["new"]["profiles"]), (&2.into(), &1.into()));
}

fn record(folder: &Folder, name: &str, guest: &Path, arguments: &[&str]) -> PathBuf {
    let path = folder.path(name);
    let mut command = flamewalk_run();
    let outcome = finish(command.args(["-q", "--freq", "4999", "-o"]).arg(&path).arg(guest).args(arguments));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    path
}

/// Three chances in a hundred thousand for each of three pairs: chance fails this test once in 10,000 times at most.
#[test]
fn runs_of_the_same_build_differ_by_chance_only() {
    let folder = Folder::new();
    for pair in 0..3 {
        let run = |side: &str| {
            record(
                &folder,
                &format!("{side}{pair}.flamewalk"),
                &Guest::KnownAnswer.path(),
                &["--rounds", "200"],
            )
        };
        let (base, new) = (run("base"), run("new"));
        let options = ["--error-rate", "0.003", "--fail-above", "0"];
        let outcome = diff(&base, &new, &options);
        assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.stderr, outcome.stdout);
    }
}

/// Functions that each take as long as their count says, in an endless dependency of one operation on the last.
pub(crate) fn guest(folder: &Folder, name: &str, counts: &[u32], rounds: u32) -> PathBuf {
    let function = |(index, count): (usize, &u32)| {
        format!(
            "(func $work_{index} (param $x i64) (result i64) (local $i i32)
               (loop
                 (local.set $x (i64.xor (i64.mul (local.get $x) (i64.const 109)) (i64.const 91)))
                 (br_if 0 (i32.ne (i32.const {count}) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))
               (local.get $x))"
        )
    };
    let functions: String = counts.iter().enumerate().map(function).collect();
    let calls = (0..counts.len()).fold("(global.get $result)".to_owned(), |argument, index| {
        format!("(call $work_{index} {argument})")
    });
    let text = format!(
        "(module {functions} (global $result (mut i64) (i64.const 1))
           (func (export \"_start\") (local $i i32)
             (loop
               (global.set $result {calls})
               (br_if 0 (i32.ne (i32.const {rounds}) (local.tee $i (i32.add (i32.const 1) (local.get $i))))))))"
    );
    let path = folder.path(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn added_work_is_found_in_the_function_that_has_it() {
    let folder = Folder::new();
    let base = guest(&folder, "base.wat", &[30_000, 20_000, 20_000, 10_000], 16_000);
    // Half as much again in one function, whose share rises from 20/80 to 30/90.
    let new = guest(&folder, "new.wat", &[30_000, 30_000, 20_000, 10_000], 16_000);
    let (base, new) = (record(&folder, "a.flamewalk", &base, &[]), record(&folder, "b.flamewalk", &new, &[]));
    let outcome = diff(&base, &new, &["--error-rate", "0.003", "--fail-above", "1"]);
    assert_eq!(outcome.status, Some(1), "{}\n{}", outcome.stderr, outcome.stdout);
    let causes: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("rose by")).collect();
    assert!(!causes.is_empty() && causes.iter().all(|line| line.contains("work_1:")), "{}", outcome.stderr);
    let json: Value =
        serde_json::from_str(&diff(&base, &new, &["--error-rate", "0.003", "--format", "json"]).stdout)
            .unwrap();
    let functions = json["functions"].as_array().unwrap();
    let changed = functions.iter().find(|function| function["name"] == "work_1").unwrap();
    let interval = &changed["self"]["share"];
    let truth = 30.0 / 90.0 - 20.0 / 80.0;
    let (low, high) = (interval["interval"][0].as_f64().unwrap(), interval["interval"][1].as_f64().unwrap());
    assert!(low <= truth && truth <= high, "{truth} is not in {interval}");
}

/// What cannot be compared is said in one sentence, in the words of the command line.
#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = Folder::new();
    let base = made(&folder, "base.flamewalk", 2_000);
    let with_event = |name: &str, event: Option<Event>| {
        let mut profile = Profile::default();
        profile.metadata.event = event.clone().unwrap_or(Event::time("cpu"));
        if event.is_some() {
            let main = profile.intern(Frame::guest("main"));
            profile.add(&[main], Tally { samples: 10, weight: 10 }).unwrap();
        }
        let path = folder.path(name);
        format::write(&profile, Format::Native, &mut std::fs::File::create(&path).unwrap()).unwrap();
        path
    };
    let counted = with_event("faults.flamewalk", Some(Event::count("page-faults")));
    let empty = with_event("empty.flamewalk", None);
    for (new, options, expected) in [
        (
            &counted,
            &[][..],
            "profiles of different events cannot be compared: `cpu` (in nanoseconds) and `page-faults`",
        ),
        (&empty, &[], "the new build has no samples: nothing can be compared with it"),
        (&base, &["--error-rate", "100"], "an error rate is more than 0 % and less than 100 %"),
    ] {
        let refused = diff(&base, new, options);
        assert_ne!(refused.status, Some(0), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
}

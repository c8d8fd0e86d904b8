//! What a comparison says, as text, Markdown, JSON and verdict.

use std::slice::from_ref;

use flamewalk_flamegraphs::comparison::{CauseOf, Comparison, ComparisonOptions};
use flamewalk_profile::{Event, Frame, Profile, Tally};
use unicode_width::UnicodeWidthStr;

fn side(stacks: &[(&[Frame], u64)]) -> [Profile; 1] {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    for (frames, samples) in stacks {
        let frames: Vec<_> = frames.iter().map(|frame| profile.intern(frame.clone())).collect();
        profile.add(&frames, Tally { samples: *samples, weight: 1_000_000 * samples }).unwrap();
    }
    [profile]
}

fn comparison(work: Option<(f64, f64)>) -> Comparison {
    let [main, parse, draw] = ["main", "parse", "draw"].map(Frame::guest);
    let [read, read_again] = ["read::h0123456789abcdef", "read::hfedcba9876543210"].map(Frame::guest);
    let base = side(&[
        (from_ref(&main), 500),
        (&[main.clone(), parse.clone()], 1_000),
        (&[main.clone(), parse.clone(), read], 2_000),
        (&[main.clone(), draw.clone()], 6_000),
        (&[main.clone(), Frame::guest("old")], 500),
    ]);
    let new = side(&[
        (from_ref(&main), 510),
        (&[main.clone(), parse.clone()], 1_010),
        (&[main.clone(), parse, read_again], 3_000),
        (&[main.clone(), draw], 5_980),
    ]);
    let mut options = ComparisonOptions::default();
    options.work = work;
    Comparison::new(&base, &new, &options).unwrap()
}

#[test]
fn the_table_is_aligned() {
    let expected = "\
base: cpu 10.0 s, 10,000 samples
new:  cpu 10.5 s, 10,500 samples
* is beyond noise: together false with a probability of at most 5 %; 6 tests, of what takes at least 0.5 %
a change of self by 2.81 points is found in 95 % of cases, in whichever function; a smaller one may be missed

        SELF%  CHANGE        INTERVAL           TOTAL%  CHANGE        INTERVAL   MATCHED BY  FUNCTION
20.00 → 28.57  +8.57*  +7.06 … +10.07    20.00 → 28.57  +8.57*  +7.06 … +10.07  stable name  \
read::hfedcba9876543210 (was read::h0123456789abcdef)
  5.00 → 0.00  -5.00*   -5.74 … -4.34      5.00 → 0.00  -5.00*   -5.74 … -4.34    only base  old
60.00 → 56.95  -3.05*   -4.72 … -1.37    60.00 → 56.95  -3.05*   -4.72 … -1.37         name  draw
 10.00 → 9.62   -0.38   -1.54 … +0.77    30.00 → 38.19  +8.19*   +6.56 … +9.81         name  parse
  5.00 → 4.86   -0.14   -1.05 … +0.76  100.00 → 100.00   +0.00               –         name  main

        SELF%  CHANGE        INTERVAL         TOTAL%  CHANGE        INTERVAL  CALL PATH
20.00 → 28.57  +8.57*  +7.06 … +10.07  20.00 → 28.57  +8.57*  +7.06 … +10.07  main → parse → \
read::hfedcba9876543210
  5.00 → 0.00  -5.00*   -5.74 … -4.34    5.00 → 0.00  -5.00*   -5.74 … -4.34  main → old
60.00 → 56.95  -3.05*   -4.72 … -1.37  60.00 → 56.95  -3.05*   -4.72 … -1.37  main → draw

only sampled in the base: old 5.00 %

note: one profile a side does not show how runs differ by themselves: several, given for either side, do
";
    assert_eq!(comparison(None).table().to_string(), expected);
}

#[test]
fn lines_fit_the_terminal() {
    for work in [None, Some((1_000.0, 1_050.0))] {
        let comparison = comparison(work);
        let mut table = comparison.table();
        let whole = table.to_string();
        table.columns = Some(112);
        let text = table.to_string();
        let rows = text.lines().skip(4).filter(|line| !line.starts_with("note"));
        assert!(rows.clone().count() > 5);
        for line in rows {
            assert!(line.width() <= 112, "{line}");
        }
        assert_eq!(whole.lines().count(), text.lines().count());
    }
    let comparison = comparison(None);
    let mut table = comparison.table();
    table.rows = 1;
    assert!(table.to_string().contains("… and 4 more functions\n"), "{table}");
}

/// A recursion of 28 steps was a row of 28 names.
#[test]
fn a_recursion_is_one_name_in_markdown() {
    let mut frames = vec![Frame::guest("recurse"); 28];
    frames.insert(0, Frame::guest("main"));
    let other = Frame::guest("other");
    let [base, new] = [1_000, 2_000].map(|samples| side(&[(&frames, samples), (from_ref(&other), 5_000)]));
    let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
    let text = comparison.markdown().to_string();
    assert!(text.contains("| <code>main</code> → <code>recurse</code> × 28 |"), "{text}");
}

#[test]
fn a_path_keeps_its_end() {
    let names: Vec<Frame> = (0..30).map(|depth| Frame::guest(format!("function{depth}"))).collect();
    let other = Frame::guest("other");
    let [base, new] = [1_000, 2_000].map(|samples| side(&[(&names, samples), (from_ref(&other), 5_000)]));
    let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
    // The most specific one, and that of what takes a smaller share now.
    let mut lengths: Vec<_> = comparison.paths.iter().map(|path| path.functions.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 30]);
    let mut table = comparison.table();
    table.columns = Some(120);
    let text = table.to_string();
    assert!(
        text.lines()
            .any(|line| line.contains("  … → function") && line.ends_with(" → function28 → function29")),
        "{text}"
    );
}

#[test]
fn the_verdict_wants_a_significant_rise_beyond_the_threshold() {
    let comparison = comparison(None);
    let verdict = comparison.fail_above(0.05).unwrap();
    assert!(verdict.failed());
    assert!(verdict.causes.iter().all(|cause| cause.rise > 0.05 && cause.difference.significant));
    let names: Vec<_> = verdict.causes.iter().map(|cause| (cause.function.as_deref(), cause.of)).collect();
    assert!(names.contains(&(Some("read::hfedcba9876543210"), CauseOf::Own)), "{names:?}");
    assert!(!comparison.fail_above(0.2).unwrap().failed());
    assert_eq!(
        comparison.fail_above(0.2).unwrap().to_string(),
        "nothing rose significantly by more than 20.00 percentage points\n"
    );
    // What fell is no reason, and what did not change significantly neither.
    let all = comparison.fail_above(0.0).unwrap();
    assert!(all.causes.iter().all(|cause| cause.function.as_deref() != Some("old")));
    let noise = comparison.functions.iter().filter(|function| !function.is_significant());
    assert!(noise.clone().count() > 0);
    for function in noise {
        assert!(all.causes.iter().all(|cause| cause.function.as_ref() != Some(&function.name)));
    }
}

/// A function that was not recognized is not a new cost.
#[test]
fn a_function_that_may_have_been_renamed_does_not_fail_a_build() {
    let main = Frame::guest("main");
    let build = |name: &str, samples| {
        let function = Frame::guest(name);
        side(&[(&[main.clone(), function], samples), (from_ref(&main), 5_000)])
    };
    let compare =
        |new: [Profile; 1]| Comparison::new(&build("old", 2_000), &new, &ComparisonOptions::default());
    let renamed = compare(build("new", 2_000)).unwrap();
    assert!(renamed.is_significant(), "it is shown");
    assert!(!renamed.fail_above(0.01).unwrap().failed());
    let slower = compare(build("new", 3_000)).unwrap();
    assert!(slower.fail_above(0.01).unwrap().failed());
    assert!(!slower.fail_above(0.15).unwrap().failed());
}

#[test]
fn markdown_shows_hostile_names_as_they_are() {
    let hostile = Frame::guest("a|b`c</code><img src=x>*@team* [x](http://y) #1");
    let [base, new] = [100, 3_000].map(|samples| {
        side(&[(&[Frame::guest("main"), hostile.clone()], samples), (&[Frame::guest("main")], 5_000)])
    });
    let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
    let text = comparison.markdown().to_string();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 5, "{text}");
    for row in rows.iter().filter(|row| row.contains("<code>a")) {
        assert!(
            row.contains("<code>a&#124;b&#96;c&lt;/code&gt;&lt;img src=x&gt;&#42;&#64;team&#42;"),
            "{row}"
        );
        assert!(!row.contains('@') && !row.contains('[') && !row.contains("<img"), "{row}");
    }
    assert!(text.contains("**2 functions changed beyond noise.**"), "{text}");
    let same = Comparison::new(&base, &base, &ComparisonOptions::default()).unwrap();
    assert!(
        same.markdown().to_string().starts_with("**Nothing changed beyond noise.** A change of self by ")
    );
}

#[test]
fn json_keeps_its_names() {
    let comparison = comparison(Some((1_000.0, 1_050.0)));
    let mut output = Vec::new();
    comparison.write_json(&mut output).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(json["format"], "flamewalk comparison 1");
    assert_eq!(json["event"]["name"], "cpu");
    assert_eq!(json["event"]["unit"], "nanoseconds");
    assert_eq!(json["new"]["samples"], 10_500);
    assert_eq!(json["base"]["work"], 1_000.0);
    assert_eq!(json["whole"]["base"]["per_work"], 1e7);
    let functions = json["functions"].as_array().unwrap();
    assert_eq!(functions.len(), comparison.functions.len());
    let read = functions.iter().find(|function| function["matched_by"] == "stable_name").unwrap();
    assert_eq!(read["name"], "read::hfedcba9876543210");
    assert_eq!(read["base_name"], "read::h0123456789abcdef");
    assert_eq!(read["kind"], "guest");
    let change = &read["self"]["per_work"];
    assert_eq!(change["significant"], true);
    let [low, high] = [0, 1].map(|end| change["interval"][end].as_f64().unwrap());
    assert!(low < change["estimate"].as_f64().unwrap() && change["estimate"].as_f64().unwrap() < high);
    assert!(change["p_value"].as_f64().unwrap() < 0.05);
    assert!(
        json["paths"][0]["functions"][0].is_u64() && json["paths"][0]["total"]["share"]["estimate"].is_f64()
    );
    assert!(json["notices"].is_array() && json["tests"].is_u64());
}

/// Of two runs of one build, what has few samples is on one side only by chance: a list of dozens of such functions hid what
/// had really gone.
#[test]
fn what_is_rare_is_counted_instead_of_listed() {
    let main = Frame::guest("main");
    let rare: Vec<Frame> = (0..30).map(|number| Frame::guest(format!("rare{number}"))).collect();
    let mut stacks: Vec<(&[Frame], u64)> = rare.iter().map(|frame| (from_ref(frame), 1)).collect();
    stacks.push((from_ref(&main), 9_000));
    let new = side(&[(from_ref(&main), 9_000)]);
    let text = |stacks: &[(&[Frame], u64)]| {
        let comparison = Comparison::new(&side(stacks), &new, &ComparisonOptions::default()).unwrap();
        (comparison.table().to_string(), comparison.markdown().to_string())
    };
    let (table, markdown) = text(&stacks);
    assert!(table.contains("\nonly sampled in the base: 30 functions of less than 0.5 %\n"), "{table}");
    assert!(markdown.contains("<summary>Within noise: 31 functions</summary>"), "{markdown}");
    assert!(markdown.contains("\n… and 11 functions more\n"), "{markdown}");
    let old = Frame::guest("old");
    stacks.push((from_ref(&old), 970));
    let (table, _) = text(&stacks);
    let line = "\nonly sampled in the base: old 9.70 %, and 30 functions of less than 0.5 %\n";
    assert!(table.contains(line), "{table}");
}

//! speedscope's own importer reads what is written, with the same figures; and its files are read.

use std::{collections::BTreeMap, fs, io::Write, path::Path, process::Command};

use flamewalk_profile::{
    Event, Format, Frame, Origin, Profile, SourceLocation, Tally, Thread, format, speedscope,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::{
    npm,
    profiles::{self, Figures, example, figures, of_track, tracks, weights, written},
};

/// What the importer makes of a file.
fn import(content: &[u8]) -> Value {
    let mut file = tempfile::Builder::new().suffix(".speedscope.json").tempfile().unwrap();
    file.write_all(content).unwrap();
    let release = npm::modules().join("speedscope/dist/release");
    let names = fs::read_dir(release).unwrap().map(|entry| entry.unwrap().path());
    let is_bundle = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("speedscope-") && name.ends_with(".js")
    };
    let bundle = names.into_iter().find(|path| is_bundle(path)).expect("the package has its bundle");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/speedscope.mjs");
    let output = npm::run(Command::new("node").arg(script).arg(bundle).arg(file.path()));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn imported_figures(profile: &Value) -> Figures {
    let frames = profile["frames"].as_array().unwrap().iter();
    let row = |frame: &Value| {
        let figure = |key: &str| frame[key].as_u64().unwrap();
        (frame["name"].as_str().unwrap().to_owned(), (figure("self"), figure("total")))
    };
    frames.map(row).filter(|(_, row)| *row != (0, 0)).collect()
}

#[test]
fn the_importer_shows_our_figures() {
    let mut profile = example(1);
    profile.metadata.guest = Some("größe.wasm".into());
    let group = import(&written(&profile, Format::Speedscope));
    assert_eq!(group["name"], "größe.wasm");
    let parts = group["profiles"].as_array().unwrap();
    let tracks = tracks(&profile);
    assert_eq!(parts.len(), tracks.len());
    for (part, track) in parts.iter().zip(tracks) {
        let expected = of_track(&profile, track);
        assert_eq!(imported_figures(part), figures(&expected, |tally| tally.weight));
        assert_eq!(part["total"], expected.total().weight);
        assert_eq!(part["unit"], "nanoseconds");
    }
    let names: Vec<_> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
    let (tenant, other) = ("[tenant=größe, thread=mine]", "[tenant=b]");
    let expected =
        ["größe.wasm", &format!("w1 {tenant}"), &format!("w1 {other}"), "w2", &format!("w2 {tenant}")];
    assert_eq!(names, expected);
    let frames = parts[1]["frames"].as_array().unwrap();
    let parse = frames.iter().find(|frame| frame["name"] == "app!parse<a; b>").unwrap();
    assert_eq!(parse["file"], "src/app.rs");
}

#[test]
fn the_importer_draws_slices_in_the_order_of_time() {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    let [early, late] = ["early", "late"].map(|name| profile.intern(Frame::guest(name)));
    for (frame, slice) in [(late, 5), (early, 2), (late, 7)] {
        let origin = Origin { slice: Some(slice), ..Origin::default() };
        profile.add_from(&[frame], origin, Tally { samples: 1, weight: u64::from(slice) }).unwrap();
    }
    let group = import(&written(&profile, Format::Speedscope));
    let calls = &group["profiles"][0]["calls"];
    let expected = json!([
        { "name": "early", "depth": 0, "from": 0, "to": 2 },
        { "name": "late", "depth": 0, "from": 2, "to": 14 },
    ]);
    assert_eq!(*calls, expected);
}

#[test]
fn the_importer_reads_whatever_is_written() {
    let mut runner = TestRunner::deterministic();
    let mut all = vec![Profile::default()];
    all.extend((0..8).map(|_| profiles::profile(1 << 30).new_tree(&mut runner).unwrap().current()));
    for profile in all {
        let group = import(&written(&profile, Format::Speedscope));
        let totals = group["profiles"].as_array().unwrap().iter().map(|part| part["total"].as_u64().unwrap());
        assert_eq!(totals.sum::<u64>(), profile.total().weight);
    }
}

proptest! {
    #[test]
    fn threads_labels_and_counts_survive(profile in profiles::profile(1 << 40)) {
        let back = format::read(&written(&profile, Format::Speedscope))?;
        let by_track = |profile: &Profile| {
            let mut tallies: BTreeMap<String, (u64, u64)> = BTreeMap::new();
            for sample in profile.samples() {
                let thread = sample.origin.thread.map(|thread| profile.thread(thread));
                let key = format!("{thread:?} {:?}", profile.labels(sample.origin.labels));
                let row = tallies.entry(key).or_default();
                *row = (row.0 + sample.tally.samples, row.1 + sample.tally.weight);
            }
            tallies
        };
        prop_assert_eq!(by_track(&back), by_track(&profile));
        prop_assert_eq!(&back.metadata.event, &profile.metadata.event);
        prop_assert_eq!(&back.metadata.guest, &profile.metadata.guest);
    }
}

#[test]
fn a_name_has_a_file_only_if_it_has_one() {
    let mut profile = Profile::default();
    for (name, file, line) in
        [("a", "x.c", 1), ("b", "x.c", 1), ("a", "x.c", 2), ("b", "y.c", 1), ("b", "x.c", 2)]
    {
        let location = Some(SourceLocation { file: file.into(), line, column: 0 });
        let frame = profile.intern(Frame { location, ..Frame::guest(name) });
        profile.add(&[frame], Tally { samples: 1, weight: 1 }).unwrap();
    }
    let file: Value = serde_json::from_slice(&written(&profile, Format::Speedscope)).unwrap();
    assert_eq!(file["shared"]["frames"], json!([{ "name": "a", "file": "x.c" }, { "name": "b" }]));
}

/// A file of another program, with profiles of both kinds.
fn foreign() -> Value {
    json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "activeProfileIndex": 1,
        "shared": { "frames": [{ "name": "a", "file": "a.c", "line": 3, "col": 7 }, { "name": "[host] x" }] },
        "profiles": [
            { "type": "evented", "name": "one", "unit": "milliseconds", "startValue": 0, "endValue": 9, "events": [
                { "type": "O", "frame": 0, "at": 1 },
                { "type": "O", "frame": 1, "at": 2.5 },
                { "type": "C", "frame": 1, "at": 4 },
                { "type": "C", "frame": 0, "at": 4.000001 },
                { "type": "O", "frame": 1, "at": 8 },
                { "type": "C", "frame": 1, "at": 9 },
            ]},
            { "type": "sampled", "name": "two", "unit": "seconds", "startValue": 0, "endValue": 3,
              "samples": [[0, 1], [], [0]], "weights": [1, 2, 0.5] },
        ],
    })
}

#[test]
fn files_of_other_programs_are_read() {
    let text = foreign().to_string();
    let profile = format::read(text.as_bytes()).unwrap();
    let stack = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected: BTreeMap<_, _> = [
        (stack(&["a"]), 1_500_000 + 1 + 500_000_000),
        (stack(&["a", "[host] x"]), 1_500_000 + 1_000_000_000),
        (stack(&["[host] x"]), 1_000_000),
    ]
    .into();
    assert_eq!(weights(&profile), expected);
    assert_eq!(profile.metadata.event, Event::time("time"));
    assert_eq!(profile.metadata.statistics.outside.weight, 2_000_000_000 + 3_999_999);
    let threads: Vec<_> = profile.threads().map(|(_, thread)| thread.clone()).collect();
    assert_eq!(threads, [(0, "one"), (1, "two")].map(|(id, name)| Thread { id, name: Some(name.into()) }));
    let (_, frame) = profile.frames().next().unwrap();
    let location = frame.location.as_ref().unwrap();
    assert_eq!((&*location.file, location.line, location.column), ("a.c", 3, 7));

    // What was not left is left at the end.
    let mut open = foreign();
    open["profiles"][0]["events"].as_array_mut().unwrap().pop();
    assert_eq!(weights(&format::read(open.to_string().as_bytes()).unwrap()), expected);

    // The same figures as the importer's own.
    let group = import(text.as_bytes());
    let total: f64 = group["profiles"][0]["frames"][0]["total"].as_f64().unwrap();
    assert_eq!((total * 1e6).round(), 3_000_001.0);
}

#[test]
fn damaged_files_are_refused_by_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut file = foreign();
        change(&mut file);
        speedscope::read(file.to_string().as_bytes()).unwrap_err().to_string()
    };
    let malformed = |rest: &str| format!("malformed speedscope file: {rest}");
    assert_eq!(
        refused(&|f| f["profiles"][1]["samples"][0][0] = 2.into()),
        malformed("2 is not one of its 2 frames")
    );
    assert_eq!(
        refused(&|f| f["profiles"][0]["events"][0]["frame"] = 9.into()),
        malformed("9 is not one of its 2 frames")
    );
    assert_eq!(
        refused(&|f| f["profiles"][1]["weights"][0] = (-1).into()),
        "-1 is no weight in the speedscope format"
    );
    assert_eq!(
        refused(&|f| f["profiles"][1]["weights"][0] = 1e30.into()),
        "1e+30 is no weight in the speedscope format"
    );
    assert_eq!(
        refused(&|f| f["profiles"][1]["unit"] = "eons".into()),
        "eons is no unit in the speedscope format"
    );
    let counts = malformed("3 samples with 1 weights and 3 counts");
    assert_eq!(refused(&|f| f["profiles"][1]["weights"] = json!([1])), counts);
    let order = malformed("frame 0 is left and was not the youngest");
    assert_eq!(refused(&|f| f["profiles"][0]["events"][2]["frame"] = 0.into()), order);
    let backwards = malformed("an event at 500000 after one at 1000000");
    assert_eq!(refused(&|f| f["profiles"][0]["events"][1]["at"] = 0.5.into()), backwards);
    assert_eq!(refused(&|f| f["profiles"][1]["type"] = "odd".into()), malformed("a profile of type `odd`"));
    let units = malformed("it has a profile of time and one of something else");
    assert_eq!(refused(&|f| f["profiles"][1]["unit"] = "bytes".into()), units);
    let cut = foreign().to_string();
    let error = format::read(&cut.as_bytes()[..cut.len() - 9]).unwrap_err().to_string();
    assert!(error.starts_with("the JSON text is damaged or cut short: EOF"), "{error}");
}

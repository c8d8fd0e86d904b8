//! pprof's own tool reads what is written, with the same figures; and its format keeps what the table says.

use std::{collections::BTreeMap, io::Write, path::Path, process::Command};

use flamewalk_profile::{
    Event, Format, Frame, FrameKind, Labels, Origin, Profile, ProfileError, Tally, Thread, ThreadId, format,
    pprof,
};
use flate2::{Compression, write::GzEncoder};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tempfile::NamedTempFile;

use crate::profiles::{self, Figures, example, figures, written};

fn file(profile: &Profile) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".pb.gz").tempfile().unwrap();
    file.write_all(&written(profile, Format::Pprof)).unwrap();
    file
}

/// What `go tool pprof` says to these arguments.
fn go_tool_pprof(arguments: &[&str], profile: &Path) -> String {
    let output = Command::new("go")
        .args(["tool", "pprof"])
        .args(arguments)
        .arg(profile)
        // Nothing is to be found there, and nothing else is to be looked for.
        .env("PPROF_BINARY_PATH", "/nonexistent")
        .env("PPROF_TMPDIR", std::env::temp_dir())
        .output()
        .expect("go starts: install it (Debian's package golang-go), this test compares with its pprof");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The rows of `-top`: `flat flat% sum% cum cum% name`, all in one unit.
fn top(sample_type: &str, unit: &str, more: &[&str], profile: &Path) -> Figures {
    let (index, unit_argument) = (format!("-sample_index={sample_type}"), format!("-unit={unit}"));
    let everything =
        ["-top", "-nodecount=1000000", "-nodefraction=0", "-edgefraction=0", &index, &unit_argument];
    let text = go_tool_pprof(&[&everything, more].concat(), profile);
    let rows = text.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1);
    let number = |text: &str| text.strip_suffix(unit).unwrap_or(text).parse::<i64>().unwrap();
    let mut figures = Figures::new();
    for row in rows {
        let mut rest = row.trim_start();
        let mut columns = [""; 5];
        for column in &mut columns {
            let (text, after) = rest.split_once(' ').unwrap_or((rest, ""));
            (*column, rest) = (text, after.trim_start());
        }
        let name = rest.strip_suffix(" (inline)").or(rest.strip_suffix(" (partial-inline)")).unwrap_or(rest);
        let row = figures.entry(name.to_owned()).or_default();
        row.0 += number(columns[0]).unsigned_abs();
        row.1 += number(columns[3]).unsigned_abs();
    }
    figures
}

#[test]
fn go_tool_pprof_shows_our_figures() {
    let profile = example(1);
    let file = file(&profile);
    assert_eq!(top("cpu", "ns", &[], file.path()), figures(&profile, |tally| tally.weight));
    assert_eq!(top("samples", "", &[], file.path()), figures(&profile, |tally| tally.samples));
    // The event is what is shown if nothing is said.
    let text = go_tool_pprof(&["-top", "-unit=ns"], file.path());
    assert!(text.contains("Type: cpu\n"), "{text}");
    assert!(text.contains(&format!("of {}ns total", profile.total().weight)), "{text}");
    let raw = go_tool_pprof(&["-raw"], file.path());
    for line in ["PeriodType: cpu nanoseconds", "Period: 1003009", "samples/count cpu/nanoseconds[dflt]"] {
        assert!(raw.lines().any(|found| found == line), "{line} is not in {raw}");
    }
    let comments = go_tool_pprof(&["-comments"], file.path());
    assert!(comments.contains("Rate below what was asked for."), "{comments}");
}

#[test]
fn go_tool_pprof_subtracts_our_profiles() {
    let (base, new) = (example(1), example(3));
    let (base_file, new_file) = (file(&base), file(&new));
    let base_argument = format!("-diff_base={}", base_file.path().display());
    let difference = top("cpu", "ns", &[&base_argument], new_file.path());
    let of = |profile| figures(profile, |tally| tally.weight);
    let mut expected = of(&new);
    for (name, base) in of(&base) {
        let row = expected.get_mut(&name).unwrap();
        *row = (row.0 - base.0, row.1 - base.1);
    }
    assert_eq!(difference, expected);
}

#[test]
fn go_tool_pprof_sees_threads_labels_lines_and_inlining() {
    let profile = example(1);
    let file = file(&profile);
    let of_thread = top("cpu", "ns", &["-tagfocus=thread=w1"], file.path());
    let weight = |is_meant: &dyn Fn(Origin) -> bool| -> u64 {
        profile.samples().filter(|of| is_meant(of.origin)).map(|of| of.tally.weight).sum()
    };
    let is_first = |id: ThreadId| profile.thread(id).name.as_deref() == Some("w1");
    let expected = weight(&|origin| origin.thread.is_some_and(is_first));
    assert_eq!(of_thread.values().map(|row| row.0).sum::<u64>(), expected);
    let of_tenant = top("cpu", "ns", &["-tagfocus=label.thread=mine"], file.path());
    let expected = weight(&|origin| profile.labels(origin.labels).get("thread") == Some("mine"));
    assert_eq!(of_tenant.values().map(|row| row.0).sum::<u64>(), expected);

    let lines = go_tool_pprof(&["-top", "-lines", "-nodefraction=0"], file.path());
    assert!(lines.contains("parse<a; b> src/app.rs:28"), "{lines}");
    assert!(lines.contains("Iterator::next \"x\" src/app.rs:7 (inline)"), "{lines}");
    let traces = go_tool_pprof(&["-traces"], file.path());
    assert!(traces.contains("tenant:  größe"), "{traces}");
}

/// Names of any content, and whatever else there may be, is read by the tool, and gives the same total.
#[test]
fn go_tool_pprof_reads_whatever_is_written() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..12 {
        let mut profile = profiles::profile(1 << 30).new_tree(&mut runner).unwrap().current();
        profile.metadata.event = Event::count("page-faults");
        let file = file(&profile);
        let total = |sample_type: &str| {
            let text = go_tool_pprof(&["-top", &format!("-sample_index={sample_type}")], file.path());
            let total = text.lines().find_map(|line| line.strip_suffix(" total")?.rsplit_once(" of "));
            total.map(|(_, total)| total.parse::<u64>().unwrap())
        };
        let Tally { samples, weight } = profile.total();
        assert_eq!((total("samples"), total("page-faults")), (Some(samples), Some(weight)));
    }
}

fn round_trip(profile: &Profile) -> Profile {
    format::read(&written(profile, Format::Pprof)).unwrap()
}

#[test]
fn what_the_format_keeps_is_read_back() {
    let profile = example(1);
    let back = round_trip(&profile);
    let frames = |profile: &Profile| {
        let mut frames: Vec<_> = profile.frames().map(|(_, frame)| frame.clone()).collect();
        frames.sort_by_key(|frame| format!("{frame:?}"));
        frames
    };
    let mut expected = frames(&profile);
    // A native function of the host reads as a guest function.
    for frame in &mut expected {
        if frame.kind == FrameKind::Host {
            frame.kind = FrameKind::Guest;
        }
    }
    expected.sort_by_key(|frame| format!("{frame:?}"));
    assert_eq!(frames(&back), expected);
    assert_eq!(back.total(), profile.total());
    let threads: Vec<_> = back.threads().map(|(_, thread)| thread.clone()).collect();
    assert_eq!(threads, [1, 2].map(|id| Thread { id, name: Some(format!("w{id}").into()) }));
    let expected: Labels = [("tenant", "größe\n"), ("thread", "mine")].into_iter().collect();
    assert!(back.label_sets().any(|(_, labels)| *labels == expected));
    let (before, after) = (&profile.metadata, &back.metadata);
    assert_eq!((&after.event, after.period, &after.notices), (&before.event, before.period, &before.notices));
}

/// It once was that such an event came back as one of unknown unit, and that profiles of both were not merged.
#[test]
fn an_event_with_the_name_of_the_number_of_samples_is_read_back() {
    let mut profile = example(1);
    for event in [Event::count("samples"), Event::time("samples"), Event::count("weight")] {
        profile.metadata.event = event.clone();
        let back = round_trip(&profile);
        assert_eq!((&back.metadata.event, back.total()), (&event, profile.total()));
    }
}

proptest! {
    #[test]
    fn threads_labels_and_times_survive(profile in profiles::profile(1 << 40)) {
        let back = round_trip(&profile);
        let by_origin = |profile: &Profile| {
            let mut tallies: BTreeMap<String, (u64, u64)> = BTreeMap::new();
            for sample in profile.samples() {
                let thread = sample.origin.thread.map(|thread| profile.thread(thread));
                let key = format!("{thread:?} {:?}", profile.labels(sample.origin.labels));
                let row = tallies.entry(key).or_default();
                row.0 += sample.tally.samples;
                row.1 += sample.tally.weight;
            }
            tallies
        };
        prop_assert_eq!(by_origin(&back), by_origin(&profile));
        prop_assert_eq!(&back.metadata.notices, &profile.metadata.notices);
        if let Some(start) = profile.metadata.start.filter(|_| back.metadata.start.is_some()) {
            prop_assert_eq!(back.metadata.start, Some(start));
        }
    }
}

/// A protocol buffer, field by field, as other programs write it.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, of: impl FnOnce(Self) -> Self) -> Self {
        self.bytes(field, &of(Self::default()).0)
    }

    fn strings(self, texts: &[&str]) -> Self {
        texts.iter().fold(self, |fields, text| fields.bytes(6, text.as_bytes()))
    }
}

/// A sample type in milliseconds, then a type that is not the default, and native code without a mapping at 0.
fn foreign(values: [i64; 2]) -> Vec<u8> {
    Fields::default()
        .message(1, |of| of.number(1, 1).number(2, 2))
        .message(1, |of| of.number(1, 3).number(2, 4))
        .message(2, |of| of.number(1, 2).number(1, 1).number(2, values[0]).number(2, values[1]))
        .message(2, |of| of.number(2, 1).number(2, 1).message(3, |of| of.number(1, 6).number(3, 4096)))
        .message(3, |of| of.number(1, 1).number(2, 0x40_0000).number(5, 5))
        .message(4, |of| of.number(1, 1).number(2, 1).number(3, 0x40_1000).message(4, |of| of.number(1, 1)))
        .message(4, |of| of.number(1, 2).number(2, 1).number(3, 0x40_2000))
        .message(5, |of| of.number(1, 1).number(2, 7).number(3, 8))
        .strings(&["", "delay", "milliseconds", "contentions", "count", "/bin/x", "bytes", "main", "_main"])
        .number(14, 1)
        .0
}

#[test]
fn files_of_other_programs_are_read() {
    let plain = foreign([7, 2]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).unwrap();
    for bytes in [plain, encoder.finish().unwrap()] {
        let profile = format::read(&bytes).unwrap();
        assert_eq!(profile.metadata.event, Event::time("delay"));
        let expected: BTreeMap<_, _> = [
            (vec!["main".to_owned(), "0x402000".to_owned()], 7_000_000),
            (vec!["[truncated]".to_owned()], 1_000_000),
        ]
        .into();
        assert_eq!(profiles::weights(&profile), expected);
        assert!(profile.label_sets().any(|(_, labels)| labels.get("bytes") == Some("4096")));
    }
}

#[test]
fn what_a_profile_cannot_hold_is_refused_by_value() {
    let refused = |bytes: &[u8]| pprof::read(bytes).unwrap_err().to_string();
    assert_eq!(refused(&foreign([-7, 2])), "-7 is no weight in the pprof format");
    assert_eq!(refused(&foreign([i64::MAX, 2])), format!("{} is no weight in the pprof format", i64::MAX));
    let sample = |bytes: Vec<u8>| Fields(bytes).message(2, |of| of.number(1, 9).number(2, 1).number(2, 1)).0;
    assert_eq!(refused(&sample(foreign([7, 2]))), "malformed pprof file: 9 is not one of its 2 locations");
    let values = Fields(foreign([7, 2])).message(2, |of| of.number(2, 1)).0;
    assert_eq!(refused(&values), "malformed pprof file: a sample with 1 values for 2 sample types");
    let location =
        Fields(foreign([7, 2])).message(4, |of| of.number(1, 3).message(4, |of| of.number(1, 5))).0;
    assert_eq!(refused(&location), "malformed pprof file: 5 is not one of its 1 functions");
    let comment = Fields(foreign([7, 2])).number(13, 77).0;
    assert_eq!(refused(&comment), "malformed pprof file: 77 is not one of its 9 strings");
    assert_eq!(refused(b""), "malformed pprof file: it has no sample type");

    let mut large = Profile::default();
    let main = large.intern(Frame::guest("main"));
    large.add(&[main], Tally { samples: 1, weight: 1 << 63 }).unwrap();
    let error = pprof::write(&large, Vec::new()).unwrap_err();
    assert!(matches!(error, ProfileError::Value { what: "weight", .. }), "{error}");
}

/// A location of many lines in a sample of many locations.
#[test]
fn stacks_that_multiply_are_refused() {
    let location =
        |of: Fields| (0..10_000).fold(of.number(1, 3), |of, _| of.message(4, |of| of.number(1, 1)));
    let bytes = Fields(foreign([7, 2])).message(4, location);
    let sample = |of: Fields| (0..10_000).fold(of.number(2, 1).number(2, 1), |of, _| of.number(1, 3));
    let bytes = bytes.message(2, sample).0;
    assert!(bytes.len() < 200_000);
    let refused = pprof::read(&bytes);
    assert!(matches!(refused, Err(ProfileError::TooLarge { what: "frames on a stack", .. })), "{refused:?}");
}

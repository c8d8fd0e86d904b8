//! The Firefox Profiler's own command reads what is written, with the same figures; and its files are read.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use flamewalk_profile::{
    EndReason, Event, Format, Frame, FrameKind, Origin, Profile, Tally, Thread, firefox, format,
};
use flate2::read::GzDecoder;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    npm,
    profiles::{self, Figures, example, figures, of_track, tracks, weights, written},
};

/// The profiler's command with a profile loaded, which means upgraded to its newest version and processed. A process in
/// the background keeps it; it is ours, since `load` starts one and gives up if that takes more than half a second.
struct Session {
    folder: TempDir,
    server: Child,
}

impl Session {
    /// A question that comes too early makes the command forget the session, so that it is started once more.
    fn load(profile: &Profile) -> Self {
        let sessions = (0..20).map(|_| Self::start(profile));
        let mut ready = sessions.filter(|session| {
            // Each question starts a program, which is wait enough.
            (0..10).any(|_| session.question(&["thread", "list"]).output().unwrap().status.success())
        });
        ready.next().expect("the profiler loads the profile, in one of many attempts")
    }

    fn start(profile: &Profile) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.json.gz");
        fs::write(&path, written(profile, Format::Firefox)).unwrap();
        let mut command = Self::command(folder.path());
        command.arg("--daemon").arg(path).args(["--session", "test"]);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { folder, server: server.expect("node starts: install it (Debian's package npm)") }
    }

    fn command(folder: &Path) -> Command {
        let mut command = Command::new("node");
        command.arg(npm::modules().join("@firefox-devtools/profiler-cli/dist/profiler-cli.js"));
        command.env("PROFILER_CLI_SESSION_DIR", folder).env("PROFILER_CLI_NO_SYMBOLICATE", "1");
        command
    }

    fn question(&self, arguments: &[&str]) -> Command {
        let mut command = Self::command(self.folder.path());
        command.args(arguments).args(["--session", "test"]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        npm::run(&mut self.question(arguments)).stdout
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.run(&[arguments, &["--json"]].concat())).unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Milliseconds in fractions as whole nanoseconds: sums of them are off by far less than half of one.
fn nanoseconds(milliseconds: &Value) -> u64 {
    (milliseconds.as_f64().unwrap() * 1e6).round() as u64
}

fn shown_figures(functions: &Value, of: fn(&Value) -> u64) -> Figures {
    let functions = functions["functions"].as_array().unwrap().iter();
    let row = |function: &Value| {
        let name = function["name"].as_str().unwrap().to_owned();
        (name, (of(&function["selfSamples"]), of(&function["totalSamples"])))
    };
    functions.map(row).filter(|(_, row)| *row != (0, 0)).collect()
}

fn functions(session: &Session, thread: usize) -> Value {
    session.ask(&["thread", "functions", "--include-idle", "--limit=0", "--thread", &format!("t-{thread}")])
}

#[test]
fn the_profiler_shows_our_figures() {
    let profile = example(1);
    let session = Session::load(&profile);
    for (index, track) in tracks(&profile).into_iter().enumerate() {
        let expected = of_track(&profile, track);
        let shown = functions(&session, index);
        assert_eq!(shown["weightType"], "tracing-ms");
        assert_eq!(shown_figures(&shown, nanoseconds), figures(&expected, |tally| tally.weight));

        let samples =
            session.ask(&["thread", "samples", "--include-idle", "--thread", &format!("t-{index}")]);
        let of_kind = |category: &str| {
            let categories = samples["categoryBreakdown"]["categories"].as_array().unwrap();
            let found = categories.iter().find(|of| of["name"] == category);
            found.map_or(0, |of| nanoseconds(&of["samples"]))
        };
        let youngest_is = |kind: FrameKind| {
            let of_kind = expected
                .stacks()
                .filter(|stack| stack.frames.last().is_some_and(|&frame| expected.frame(frame).kind == kind));
            of_kind.map(|stack| stack.tally.weight).sum::<u64>()
        };
        for (category, kind) in [
            ("Guest", FrameKind::Guest),
            ("Host call", FrameKind::HostCall),
            ("Builtin", FrameKind::Builtin),
            ("Host", FrameKind::Host),
        ] {
            assert_eq!(of_kind(category), youngest_is(kind), "{category}");
        }
    }
    let threads = session.ask(&["thread", "list", "--sort=index"]);
    let mut threads: Vec<_> = threads["threads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| (of["tid"].as_str().unwrap(), of["name"].as_str().unwrap()))
        .collect();
    threads.sort();
    let (tenant, other) = ("[tenant=größe, thread=mine]", "[tenant=b]");
    let expected = [
        ("0", "all threads"),
        ("1", &format!("w1 {tenant}")),
        ("1.1", &format!("w1 {other}")),
        ("2", "w2"),
        ("2.1", &format!("w2 {tenant}")),
    ];
    assert_eq!(threads, expected);
}

#[test]
fn the_profiler_shows_counts_of_events() {
    let mut profile = example(1);
    profile.metadata.event = Event::count("page-faults");
    let shown = functions(&Session::load(&profile), 0);
    assert_eq!(shown["weightType"], "samples");
    let expected = figures(&of_track(&profile, Default::default()), |tally| tally.weight);
    assert_eq!(shown_figures(&shown, |count| count.as_u64().unwrap()), expected);
}

#[test]
fn the_profiler_sees_inlining_and_lines() {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    let location =
        |line| Some(flamewalk_profile::SourceLocation { file: "src/a.rs".into(), line, column: 2 });
    let code = |line, inlined, name| Frame {
        location: location(line),
        module: Some("app".into()),
        bytecode_offset: Some(70),
        inlined,
        ..Frame::guest(name)
    };
    let main = profile.intern(code(3, false, "main"));
    let next = profile.intern(code(9, true, "next"));
    profile.add(&[main, next], Tally { samples: 1, weight: 2_000_000 }).unwrap();
    let session = Session::load(&profile);
    let samples = session.ask(&["thread", "samples", "--include-idle"]);
    assert_eq!(samples["heaviestStack"]["hasInlinedFrames"], true, "{samples}");
    let text = String::from_utf8(session.run(&["function", "annotate", "f-1"])).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with("9 "));
    assert!(line.is_some_and(|line| line.contains("2ms")), "{text}");
}

#[test]
fn the_profiler_shows_the_end_and_host_calls_as_markers() {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("wall");
    profile.metadata.slice = Some(Duration::from_millis(10));
    profile.metadata.end = Some(EndReason::Trap("unreachable".into()));
    let main = profile.intern(Frame::guest("main"));
    let write = profile.intern(Frame::host_call("env", "write"));
    let read = profile.intern(Frame::host_call("env", "read"));
    let native = profile.intern(Frame::new(FrameKind::Host, "memcpy"));
    let threads = [1, 2].map(|id| profile.intern_thread(Thread { id, name: None }));
    let mut add = |thread: usize, slice: u32, stack: &[_]| {
        let origin = Origin { thread: Some(threads[thread]), slice: Some(slice), ..Origin::default() };
        profile.add_from(stack, origin, Tally { samples: 1, weight: 1_000_000 }).unwrap();
    };
    // Two slices in one call, the second also in the host below it; then one with guest code besides the call.
    add(0, 3, &[main, write]);
    add(0, 4, &[main, write]);
    add(0, 4, &[main, write, native]);
    add(0, 5, &[main, write]);
    add(0, 5, &[main]);
    // Another call, then the first again, and once more after a pause.
    add(0, 6, &[main, read]);
    add(0, 7, &[main, write]);
    add(0, 9, &[main, write]);
    add(1, 4, &[main, read]);
    let session = Session::load(&profile);
    let markers = |thread: &str| {
        let answer = session.ask(&["thread", "markers", "--list", "--limit=0", "--thread", thread]);
        let markers = answer["flatMarkers"].as_array().unwrap().iter();
        let row = |marker: &Value| {
            let text = |key: &str| marker[key].as_str().unwrap().to_owned();
            let number = |key: &str| marker[key].as_f64();
            (text("name"), text("label"), text("category"), number("start").unwrap(), number("duration"))
        };
        let mut markers: Vec<_> = markers.map(row).collect();
        markers.sort_by(|a, b| a.3.total_cmp(&b.3));
        markers
    };
    let call = |name: &str, start: f64, duration: f64| {
        (name.to_owned(), name.to_owned(), "Host call".to_owned(), start, Some(duration))
    };
    let (read, write) = ("[host] env.read", "[host] env.write");
    let end = ("End".to_owned(), "trap: unreachable".to_owned(), "Guest".to_owned(), 100.0, None);
    let expected = [
        call(write, 30.0, 20.0),
        call(read, 60.0, 10.0),
        call(write, 70.0, 10.0),
        call(write, 90.0, 10.0),
        end,
    ];
    assert_eq!(markers("t-0"), expected);
    assert_eq!(markers("t-1"), [call(read, 40.0, 10.0)]);
}

#[test]
fn the_profiler_reads_whatever_is_written() {
    let mut runner = TestRunner::deterministic();
    let mut all = vec![Profile::default()];
    all.extend((0..4).map(|_| profiles::profile(1 << 30).new_tree(&mut runner).unwrap().current()));
    for mut profile in all {
        profile.metadata.event = Event::count("page-faults");
        let session = Session::load(&profile);
        let threads = session.ask(&["thread", "list", "--limit=0"])["threads"].as_array().unwrap().len();
        let totals = (0..threads).map(|thread| {
            let shown = functions(&session, thread);
            let own = shown["functions"].as_array().unwrap().iter();
            own.map(|function| function["selfSamples"].as_u64().unwrap()).sum::<u64>()
        });
        assert_eq!(totals.sum::<u64>(), profile.total().weight);
    }
}

fn json(profile: &Profile) -> Value {
    let bytes = written(profile, Format::Firefox);
    let mut text = String::new();
    GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn column<'v>(table: &'v Value, name: &str) -> &'v Vec<Value> {
    table[name].as_array().unwrap_or_else(|| panic!("no column {name} in {table}"))
}

/// Every index of a column is -1, null or in bounds.
fn indices_are_in_bounds(table: &Value, columns: &[(&str, usize)]) {
    for (name, length) in columns {
        for index in column(table, name) {
            let is_none = index.is_null() || index.as_i64() == Some(-1);
            assert!(
                is_none || index.as_u64().is_some_and(|index| index < *length as u64),
                "{index} in {name}"
            );
        }
    }
}

proptest! {
    /// What the profiler takes for granted about its tables.
    #[test]
    fn tables_hold_together(profile in profiles::profile(1 << 40)) {
        let file = json(&profile);
        let (categories, libs) = (column(&file["meta"], "categories").len(), column(&file, "libs").len());
        for thread in column(&file, "threads") {
            let tables = ["samples", "stackTable", "frameTable", "funcTable", "resourceTable", "nativeSymbols", "markers"];
            let lengths = tables.map(|name| {
                let table = thread[name].as_object().unwrap();
                let length = table["length"].as_u64().unwrap() as usize;
                for (column, entries) in table {
                    if let Some(entries) = entries.as_array() {
                        prop_assert_eq!(entries.len(), length, "{}.{}", name, column);
                    }
                }
                Ok(length)
            });
            let [_, stacks, frames, functions, resources, symbols, _] = lengths.map(Result::unwrap);
            let strings = column(thread, "stringArray").len();
            indices_are_in_bounds(&thread["samples"], &[("stack", stacks)]);
            indices_are_in_bounds(&thread["stackTable"], &[("prefix", stacks), ("frame", frames)]);
            let columns = [("category", categories), ("func", functions), ("nativeSymbol", symbols)];
            indices_are_in_bounds(&thread["frameTable"], &columns);
            let columns = [("name", strings), ("fileName", strings), ("resource", resources)];
            indices_are_in_bounds(&thread["funcTable"], &columns);
            indices_are_in_bounds(&thread["resourceTable"], &[("lib", libs), ("name", strings)]);
            indices_are_in_bounds(&thread["nativeSymbols"], &[("libIndex", libs), ("name", strings)]);
            indices_are_in_bounds(&thread["markers"], &[("name", strings), ("category", categories)]);
            for (stack, caller) in column(&thread["stackTable"], "prefix").iter().enumerate() {
                prop_assert!(caller.is_null() || caller.as_u64().is_some_and(|caller| caller < stack as u64));
            }
            let times: Vec<_> = column(&thread["samples"], "time").iter().map(|time| time.as_f64().unwrap()).collect();
            prop_assert!(times.is_sorted());
            let end = file["meta"]["profilingEndTime"].as_f64().unwrap();
            prop_assert!(times.iter().all(|time| (0.0..=end).contains(time)), "{:?} of {}", times, end);
        }
    }

    #[test]
    fn threads_labels_slices_and_counts_survive(mut profile in profiles::profile(1 << 40)) {
        profile.metadata.slice = Some(Duration::from_millis(7));
        let back = format::read(&written(&profile, Format::Firefox))?;
        let by_origin = |profile: &Profile, with_slice: bool| {
            let mut tallies = std::collections::BTreeMap::<_, (u64, u64)>::new();
            for sample in profile.samples() {
                let thread = format!("{:?}", sample.origin.thread.map(|thread| profile.thread(thread)));
                let labels = profile.labels(sample.origin.labels).clone();
                let row = tallies.entry((thread, labels, sample.origin.slice.filter(|_| with_slice))).or_default();
                *row = (row.0 + sample.tally.samples, row.1 + sample.tally.weight);
            }
            tallies
        };
        prop_assert_eq!(by_origin(&back, false), by_origin(&profile, false));
        if profile.samples().all(|sample| sample.origin.slice.is_some()) {
            prop_assert_eq!(by_origin(&back, true), by_origin(&profile, true));
        }
        let (before, after) = (&profile.metadata, &back.metadata);
        prop_assert_eq!((&after.event, &after.guest), (&before.event, &before.guest));
        prop_assert_eq!((&after.notices, after.slice), (&before.notices, before.slice));
    }
}

#[test]
fn what_the_format_keeps_is_read_back() {
    let mut profile = example(1);
    profile.metadata.slice = Some(Duration::from_millis(10));
    profile.metadata.start = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
    profile.metadata.duration = Some(Duration::from_millis(1_500));
    let back = format::read(&written(&profile, Format::Firefox)).unwrap();
    let frames = |profile: &Profile, with_call_parts: bool| {
        let shown = |frame: &Frame| match frame.kind {
            FrameKind::HostCall if !with_call_parts => {
                Frame { module: None, name: "".into(), ..frame.clone() }
            }
            _ => frame.clone(),
        };
        let mut frames: Vec<_> = profile.frames().map(|(_, frame)| format!("{:?}", shown(frame))).collect();
        frames.sort();
        frames
    };
    // The module of a host call is part of its name.
    assert_eq!(frames(&back, false), frames(&profile, false));
    let (before, after) = (&profile.metadata, &back.metadata);
    assert_eq!((after.start, after.duration), (before.start, before.duration));
}

/// A file of another program: times as differences, weights as numbers of samples, a sample without a stack.
fn foreign() -> Value {
    let thread = json!({
        "name": "GeckoMain", "tid": "7", "processType": "default",
        "samples": { "length": 3, "weightType": "samples", "weight": null, "stack": [1, null, 0], "timeDeltas": [1.5, 1, 1] },
        "stackTable": { "length": 2, "prefix": [null, 0], "frame": [1, 0] },
        "frameTable": { "length": 2, "address": [-1, 4096], "inlineDepth": [0, 0], "category": [0, null], "func": [0, 1],
                        "line": [12, null], "column": [null, null] },
        "funcTable": { "length": 2, "name": [0, 1], "resource": [-1, 0], "fileName": [2, null] },
        "resourceTable": { "length": 1, "lib": [0], "name": [3], "host": [null], "type": [1] },
        "stringArray": ["draw", "main", "a.cpp", "libxul"],
    });
    json!({
        "meta": { "interval": 1, "startTime": 0, "preprocessedProfileVersion": 50, "product": "Firefox",
                  "categories": [{ "name": "Other", "color": "grey", "subcategories": ["Other"] }] },
        "libs": [{ "name": "libxul" }],
        "threads": [thread],
    })
}

#[test]
fn files_of_other_programs_are_read() {
    let profile = format::read(foreign().to_string().as_bytes()).unwrap();
    let stack = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(weights(&profile), [(stack(&["main"]), 1), (stack(&["main", "draw"]), 1)].into());
    assert_eq!(profile.total(), Tally { samples: 2, weight: 2 });
    assert_eq!(profile.metadata.statistics.outside, Tally { samples: 1, weight: 1 });
    assert_eq!(profile.metadata.guest.as_deref(), Some("Firefox"));
    let draw = profile.frames().find(|(_, frame)| &*frame.name == "draw").unwrap().1;
    assert_eq!(draw.location.as_ref().map(|location| (&*location.file, location.line)), Some(("a.cpp", 12)));
    let main = profile.frames().find(|(_, frame)| &*frame.name == "main").unwrap().1;
    assert_eq!((main.module.as_deref(), main.bytecode_offset), (Some("libxul"), None));
}

#[test]
fn damaged_files_are_refused_by_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut file = foreign();
        change(&mut file);
        firefox::read(file.to_string().as_bytes()).unwrap_err().to_string()
    };
    let thread = |path: &'static str, value: Value| {
        refused(&|file| *file["threads"][0].pointer_mut(path).unwrap() = value.clone())
    };
    let malformed = |rest: &str| format!("malformed Firefox Profiler file: {rest}");
    assert_eq!(thread("/samples/stack/0", json!(2)), malformed("2 is not one of its 2 stack nodes"));
    assert_eq!(
        thread("/stackTable/prefix/1", json!(1)),
        malformed("1 is not one of its 1 earlier stack nodes")
    );
    assert_eq!(thread("/stackTable/frame/1", json!(2)), malformed("2 is not one of its 2 frames"));
    assert_eq!(thread("/frameTable/func/1", json!(2)), malformed("2 is not one of its 2 functions"));
    assert_eq!(thread("/funcTable/name/0", json!(4)), malformed("4 is not one of its 4 strings"));
    assert_eq!(thread("/funcTable/resource/1", json!(1)), malformed("1 is not one of its 1 resources"));
    assert_eq!(thread("/resourceTable/lib/0", json!(1)), malformed("1 is not one of its 1 libraries"));
    assert_eq!(thread("/frameTable/line", json!([1])), malformed("2 frames with a column of 1 entries"));
    assert_eq!(thread("/samples/timeDeltas", json!([1])), malformed("3 samples with a column of 1 entries"));
    assert_eq!(
        thread("/samples/weight", json!([1, 1, -1])),
        "-1 is no weight in the Firefox Profiler format"
    );
    assert_eq!(
        thread("/samples/weightType", json!("calories")),
        "calories is no type of weights in the Firefox Profiler format"
    );
    let newer = refused(&|file| drop(file["threads"][0].as_object_mut().unwrap().remove("stringArray")));
    assert!(newer.contains("missing field `stringArray`"), "{newer}");
}

//! Profiles to write and read: random ones with everything in them, and the comparison of two.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use flamewalk_profile::{
    EndReason, Event, Format, Frame, FrameKind, Headroom, Labels, LabelsId, Metadata, Names, Origin, Profile,
    SourceLocation, Tally, Thread, ThreadId, format,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};

/// Names of any content, and more often than chance would what some format treats specially.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ab;# 0-9.!\"\\\\\n\t\\[\\]-]{0,6}",
        Just("[host] x".to_owned()),
        Just("größe<[ü; 4]> \u{1f525}".to_owned()),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![
        4 => Just(FrameKind::Guest),
        1 => Just(FrameKind::HostCall),
        1 => Just(FrameKind::Builtin),
        1 => Just(FrameKind::Host),
        1 => Just(FrameKind::Truncated),
    ];
    let location = (name(), any::<u32>(), any::<u32>()).prop_map(|(file, line, column)| SourceLocation {
        file: file.into(),
        line,
        column,
    });
    let module = prop_oneof!["app", "plugin", name()];
    let code = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u64>>());
    (kind, name(), option::of(module), option::of(location), code, any::<bool>()).prop_map(
        |(kind, name, module, location, code, inlined)| Frame {
            module: module.map(Into::into),
            location,
            function_index: code.0,
            bytecode_offset: code.1,
            text_offset: code.2,
            body_hash: code.3,
            inlined,
            ..Frame::new(kind, name)
        },
    )
}

fn tally(largest: u64) -> impl Strategy<Value = Tally> {
    (0..1_000_u64, 0..=largest).prop_map(|(samples, weight)| Tally { samples, weight })
}

fn rate() -> impl Strategy<Value = Option<f64>> {
    option::of(prop_oneof![Just(997.0), 0.0..1e9])
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let event = prop_oneof![
        Just(Event::time("cpu")),
        Just(Event::count("page-faults")),
        name().prop_map(Event::count),
        name().prop_map(Event::time),
    ];
    let end = prop_oneof![
        Just(EndReason::Finished),
        any::<i32>().prop_map(EndReason::ExitStatus),
        name().prop_map(EndReason::Trap),
        Just(EndReason::Interrupted),
    ];
    let span = (0..1_u64 << 40, 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos));
    let start = prop_oneof![
        span.clone().prop_map(|after| SystemTime::UNIX_EPOCH + after),
        span.clone().prop_map(|before| SystemTime::UNIX_EPOCH - before),
    ];
    let texts = (option::of(name()), option::of(name()), vec(name(), 0..4), vec(name(), 0..4));
    let times =
        (option::of(start), option::of(span.clone()), option::of(span.clone()), option::of(span.clone()));
    let counts = (
        vec(tally(u64::MAX), 3),
        btree_map(name(), tally(u64::MAX), 0..3),
        btree_map(name(), tally(u64::MAX), 0..3),
        (span, any::<[u64; 8]>()),
    );
    (event, texts, rate(), rate(), any::<Option<u64>>(), times, option::of(end), counts).prop_map(
        |(event, texts, asked_rate, real_rate, period, times, end, counts)| {
            let mut metadata = Metadata::default();
            metadata.event = event;
            (metadata.engine, metadata.guest, metadata.command, metadata.notices) = texts;
            (metadata.asked_rate, metadata.real_rate, metadata.period) = (asked_rate, real_rate, period);
            (metadata.start, metadata.slice, metadata.duration, metadata.paused) = times;
            metadata.end = end;
            let statistics = &mut metadata.statistics;
            [statistics.ticks, statistics.delivered, statistics.outside] = counts.0.try_into().unwrap();
            statistics.lost = counts.1.into_iter().map(|(cause, tally)| (cause.into(), tally)).collect();
            statistics.walk_ends = counts.2.into_iter().map(|(end, tally)| (end.into(), tally)).collect();
            let resources = &mut statistics.resources;
            resources.handler_time = counts.3.0;
            [resources.ring_high_water, resources.ring_size, resources.threads, ..] = counts.3.1;
            [.., resources.stores, resources.images, _, _, _] = counts.3.1;
            [.., resources.memory.rings, resources.memory.stacks, resources.memory.tables] = counts.3.1;
            metadata
        },
    )
}

/// A profile with everything in it. Each sample weighs at most `largest`.
pub(crate) fn profile(largest: u64) -> impl Strategy<Value = Profile> {
    let thread = (0..1_u64 << 50, option::of(name()));
    let labels = btree_map(prop_oneof![name(), Just("thread".to_owned())], name(), 0..3);
    let sample = (
        vec(any::<prop::sample::Index>(), 1..8),
        any::<Option<prop::sample::Index>>(),
        any::<prop::sample::Index>(),
        option::of(0..50_u32),
        tally(largest),
        option::weighted(0.2, (any::<u64>(), any::<u64>())),
    );
    let parts = (metadata(), vec(frame(), 1..12), vec(thread, 0..4), vec(labels, 0..4), vec(sample, 0..40));
    parts.prop_map(|(metadata, frames, threads, labels, samples)| {
        let mut profile = Profile::new(metadata);
        let frames: Vec<_> = frames.into_iter().map(|frame| profile.intern(frame)).collect();
        let threads: Vec<_> = threads
            .into_iter()
            .map(|(id, name)| profile.intern_thread(Thread { id, name: name.map(Into::into) }))
            .collect();
        let mut sets = vec![Default::default()];
        sets.extend(labels.into_iter().map(|set| profile.intern_labels(set.into_iter().collect::<Labels>())));
        for (stack, thread, labels, slice, tally, room) in samples {
            let stack: Vec<_> = stack.iter().map(|index| *index.get(&frames)).collect();
            let thread = thread.filter(|_| !threads.is_empty()).map(|index| *index.get(&threads));
            let origin = Origin { thread, labels: *labels.get(&sets), slice };
            let id = profile.add_from(&stack, origin, tally).unwrap();
            if let Some((deepest_use, least_left)) = room {
                profile.note_headroom(id, Headroom { deepest_use, least_left });
            }
        }
        profile
    })
}

/// The file of a profile in a format.
pub(crate) fn written(profile: &Profile, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    format::write(profile, format, &mut bytes).unwrap();
    bytes
}

/// Everything of a profile, in the order of its ids. Slices of frames are borrowed, since they have no other name.
pub(crate) fn everything(profile: &Profile) -> impl PartialEq + std::fmt::Debug {
    (
        profile.metadata.clone(),
        profile.frames().map(|(_, frame)| frame.clone()).collect::<Vec<_>>(),
        profile
            .stacks()
            .map(|stack| (stack.frames.to_vec(), stack.tally, stack.headroom))
            .collect::<Vec<_>>(),
        profile.threads().map(|(_, thread)| thread.clone()).collect::<Vec<_>>(),
        profile.label_sets().map(|(_, labels)| labels.clone()).collect::<Vec<_>>(),
        profile.samples().collect::<Vec<_>>(),
        profile.total(),
    )
}

/// What every format keeps: the weight of each stack of shown names. Stacks without weight are left out.
pub(crate) fn weights(profile: &Profile) -> BTreeMap<Vec<String>, u64> {
    let names = Names::new(profile);
    let mut weights = BTreeMap::new();
    for stack in profile.stacks().filter(|stack| stack.tally.weight > 0) {
        let shown = stack.frames.iter().map(|&frame| names.of(frame).to_owned()).collect();
        *weights.entry(shown).or_default() += stack.tally.weight;
    }
    weights
}

/// Self and total of each function by its name.
pub(crate) type Figures = BTreeMap<String, (u64, u64)>;

/// Functions of different kinds with one name are one for other tools.
pub(crate) fn figures(profile: &Profile, of: fn(Tally) -> u64) -> Figures {
    let names = Names::new(profile);
    let mut figures = Figures::new();
    for function in profile.functions(&names) {
        let row = figures.entry(names.text(function.name).to_owned()).or_default();
        row.0 += of(function.self_tally);
        row.1 += of(function.total_tally);
    }
    figures.retain(|_, row| *row != (0, 0));
    figures
}

/// A thread, or none, and a set of labels.
pub(crate) type Track = (Option<ThreadId>, LabelsId);

/// The threads with each set of labels on them, in the order of both.
pub(crate) fn tracks(profile: &Profile) -> BTreeSet<Track> {
    profile.samples().map(|sample| (sample.origin.thread, sample.origin.labels)).collect()
}

/// The samples of one thread with one set of labels. The frames are the same, and so are their names.
pub(crate) fn of_track(profile: &Profile, track: Track) -> Profile {
    let mut part = Profile::new(profile.metadata.clone());
    for (_, frame) in profile.frames() {
        part.intern(frame.clone());
    }
    for sample in profile.samples().filter(|sample| (sample.origin.thread, sample.origin.labels) == track) {
        part.add(profile.stack(sample.stack).frames, sample.tally).unwrap();
    }
    part
}

/// A few hundred samples on stacks with inlining, recursion, host calls and two modules.
pub(crate) fn example(scale: u64) -> Profile {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    profile.metadata.period = Some(1_003_009);
    profile.metadata.notices = vec!["Rate below what was asked for.".into()];
    let guest = |module: &str, name: &str, offset: u32, line: u32| Frame {
        module: Some(module.into()),
        location: Some(SourceLocation { file: format!("src/{module}.rs").into(), line, column: 5 }),
        bytecode_offset: Some(offset),
        ..Frame::guest(name)
    };
    let main = profile.intern(guest("app", "main", 100, 1));
    let parse = profile.intern(guest("app", "parse<a; b>", 120, 20));
    let parse_later = profile.intern(guest("app", "parse<a; b>", 160, 28));
    let next = profile.intern(Frame { inlined: true, ..guest("app", "Iterator::next \"x\"", 160, 7) });
    let plugin = profile.intern(guest("plugin", "main", 100, 3));
    let write = profile.intern(Frame::host_call("env", "write out"));
    let grow = profile.intern(Frame::builtin("memory.grow"));
    let cut = profile.intern(Frame::truncated());
    let native = profile.intern(Frame::new(FrameKind::Host, "tokio::park"));
    let threads = [1, 2].map(|id| profile.intern_thread(Thread { id, name: Some(format!("w{id}").into()) }));
    let tenant = profile.intern_labels([("tenant", "größe\n"), ("thread", "mine")].into_iter().collect());
    let other = profile.intern_labels([("tenant", "b")].into_iter().collect());
    let stacks: [&[_]; 8] = [
        &[main],
        &[main, parse],
        &[main, parse_later, next],
        &[main, parse, parse_later, next],
        &[main, plugin, write],
        &[main, plugin, grow],
        &[cut, parse, parse],
        &[native, main, write, native],
    ];
    for (number, stack) in (1..).zip(stacks) {
        for (slice, thread) in (0..).zip(threads) {
            let origin = Origin { thread: Some(thread), labels: tenant, slice: Some(slice) };
            let tally = Tally { samples: number, weight: number * 1_000_003 * scale };
            profile.add_from(stack, origin, tally).unwrap();
        }
        // The first thread also works for another tenant, the second without labels.
        let origin = Origin { thread: Some(threads[0]), labels: other, slice: Some(0) };
        profile.add_from(stack, origin, Tally { samples: 1, weight: number * scale }).unwrap();
        let origin = Origin { thread: Some(threads[1]), ..Origin::default() };
        profile.add_from(stack, origin, Tally { samples: 2, weight: number }).unwrap();
        profile.add(stack, Tally { samples: 1, weight: 1 }).unwrap();
    }
    profile
}

//! From a profile to the processed profile format.

use std::{collections::BTreeMap, time::SystemTime};

use indexmap::IndexSet;
use serde_json::{Number, Value, json};

use super::{
    file::{
        Category, Constant, File, FileThread, Lib, LibConstant, Markers, Meta, Own, OwnThread, Samples,
        ThreadConstant,
    },
    thread::{CATEGORIES, Tables, category},
    timeline::{Timeline, milliseconds},
};
use crate::{
    FrameKind, Names, Profile, Sample, Unit,
    track::{self, Track},
};

/// Types of markers, as the schema and the markers have it.
const END: &str = "flamewalk-end";
const HOST_CALL: &str = "flamewalk-host-call";

pub(super) fn file(profile: &Profile) -> File {
    let names = Names::new(profile);
    let guests = profile.frames().filter(|(_, frame)| frame.kind == FrameKind::Guest);
    let modules: IndexSet<&str> = guests.filter_map(|(_, frame)| frame.module.as_deref()).collect();
    let writer = Writer { profile, names: &names, modules: &modules, timeline: Timeline::of(profile) };
    let threads =
        track::tracks(profile).into_iter().zip(0..).map(|(track, index)| writer.thread(track, index == 0));
    File {
        threads: threads.collect(),
        meta: writer.meta(),
        libs: modules.iter().map(|module| lib(module)).collect(),
        pages: [],
    }
}

fn lib(module: &str) -> Lib {
    let constant = LibConstant {
        arch: "wasm32",
        path: module.to_owned(),
        debug_name: module.to_owned(),
        debug_path: module.to_owned(),
        // No debug information to look up: everything has its name.
        breakpad_id: "0".repeat(33),
        code_id: None,
    };
    Lib { name: module.to_owned(), constant: Some(Box::new(constant)) }
}

struct Writer<'p> {
    profile: &'p Profile,
    names: &'p Names,
    modules: &'p IndexSet<&'p str>,
    timeline: Timeline,
}

impl<'p> Writer<'p> {
    fn meta(&self) -> Meta {
        let metadata = &self.profile.metadata;
        let start = metadata.start.and_then(|start| start.duration_since(SystemTime::UNIX_EPOCH).ok());
        let categories = CATEGORIES.map(|(_, name, color)| Category {
            name: name.to_owned(),
            color: color.to_owned(),
            subcategories: vec!["Other".to_owned()],
        });
        Meta {
            interval: self.timeline.interval,
            start_time: start.map_or(0.0, milliseconds),
            profiling_start_time: Some(0.0),
            profiling_end_time: Some(self.timeline.end),
            preprocessed_profile_version: 55,
            product: metadata.guest.clone().unwrap_or_else(|| "flamewalk".to_owned()),
            categories: categories.into(),
            flamewalk: Some(Own {
                event: metadata.event.name.clone(),
                guest: metadata.guest.clone(),
                slice: metadata.slice.and_then(|slice| u64::try_from(slice.as_nanos()).ok()),
                notices: metadata.notices.clone(),
            }),
            constant: Some(Constant {
                debug: false,
                extensions: json!({ "length": 0, "baseURL": [], "id": [], "name": [] }),
                process_type: 0,
                sample_units: json!({ "time": "ms", "eventDelay": "ms", "threadCPUDelta": "ns" }),
                symbolicated: true,
                paused_ranges: [],
                version: 24,
                uses_only_one_stack_type: true,
                source_code_is_not_on_searchfox: true,
                marker_schema: marker_schema(),
                extra: self.extra(),
            }),
        }
    }

    /// What the profiler shows about a profile as a whole.
    fn extra(&self) -> Value {
        let metadata = &self.profile.metadata;
        let statistics = &metadata.statistics;
        let mut entries = Vec::new();
        let mut entry = |label: &str, value: String| {
            entries.push(json!({ "label": label, "format": "string", "value": value }));
        };
        entry("Event", metadata.event.name.clone());
        let rate = |rate: Option<f64>| rate.map(|rate| format!("{rate} per second"));
        for (label, value) in [
            ("Guest", metadata.guest.clone()),
            ("Command", (!metadata.command.is_empty()).then(|| metadata.command.join(" "))),
            ("Engine", metadata.engine.clone()),
            ("Rate asked for", rate(metadata.asked_rate)),
            ("Rate", rate(metadata.real_rate)),
            ("End", metadata.end.as_ref().map(ToString::to_string)),
        ] {
            value.into_iter().for_each(|value| entry(label, value));
        }
        entry("Ticks", statistics.ticks.to_string());
        entry("Delivered", statistics.delivered.to_string());
        entry("Outside the guest", statistics.outside.to_string());
        for (cause, tally) in &statistics.lost {
            entry(&format!("Lost: {cause}"), tally.to_string());
        }
        for notice in &metadata.notices {
            entry("Notice", notice.clone());
        }
        json!([{ "label": "flamewalk", "entries": entries }])
    }

    fn thread(&self, track: Track<'p>, is_first: bool) -> FileThread {
        let Track { thread, labels, number, mut samples, name } = track;
        let times = self.timeline.order(&mut samples);
        let mut tables = Tables::new(self.profile, self.names, self.modules);
        let samples_table = self.samples(&samples, times, &mut tables);
        let mut markers = self.host_calls(&samples, &mut tables);
        if is_first {
            self.end(&mut markers, &mut tables);
        }
        let guest = self.profile.metadata.guest.as_deref();
        let id = thread.map(|thread| thread.id);
        let stack_table = tables.stack_table();
        let frame_table = tables.frame_table();
        let func_table = tables.func_table();
        let resource_table = tables.resource_table();
        let native_symbols = tables.native_symbols();
        FileThread {
            name,
            tid: if number == 0 {
                id.unwrap_or(0).to_string()
            } else {
                format!("{}.{number}", id.unwrap_or(0))
            },
            flamewalk: (thread.is_some() || !labels.is_empty()).then(|| OwnThread {
                id,
                name: thread.and_then(|thread| thread.name.as_deref()).map(Into::into),
                labels: track::to_member(labels),
            }),
            samples: samples_table,
            stack_table,
            frame_table,
            func_table,
            resource_table,
            string_array: tables.string_array(),
            constant: Some(ThreadConstant {
                is_main_thread: is_first,
                pid: "0",
                process_name: guest.unwrap_or_default().to_owned(),
                process_type: "default",
                process_startup_time: 0.0,
                process_shutdown_time: None,
                register_time: 0.0,
                unregister_time: None,
                paused_ranges: [],
                show_markers_in_timeline: true,
                native_symbols,
                markers,
            }),
        }
    }

    fn samples(&self, samples: &[Sample], times: Vec<f64>, tables: &mut Tables) -> Samples {
        let event = &self.profile.metadata.event;
        let is_time = event.unit == Unit::Nanoseconds;
        let weight = |weight: u64| match Number::from_f64(weight as f64 / 1e6) {
            Some(milliseconds) if is_time => milliseconds,
            _ => weight.into(),
        };
        let weights = || samples.iter().map(|sample| sample.tally.weight);
        Samples {
            length: samples.len(),
            weight_type: Some(if is_time { "tracing-ms" } else { "samples" }.to_owned()),
            stack: samples.iter().map(|sample| tables.stack(sample.stack)).collect(),
            time: Some(times),
            time_deltas: None,
            weight: Some(weights().map(weight).collect()),
            thread_cpu_delta: (event.name == "cpu" && is_time).then(|| weights().collect()),
            counts: Some(samples.iter().map(|sample| sample.tally.samples).collect()),
        }
    }

    /// The name of the host call that a sample fell into, whatever the host itself was doing.
    fn host_call(&self, sample: &Sample) -> Option<&'p str> {
        let frames = self.profile.stack(sample.stack).frames;
        let youngest = frames.iter().rev().find(|&&id| self.profile.frame(id).kind != FrameKind::Host)?;
        let is_call = self.profile.frame(*youngest).kind == FrameKind::HostCall;
        is_call.then(|| self.names.of(*youngest))
    }

    /// The stretches of consecutive slices in which every sample fell into one host call. The samples are in the order
    /// of their slices.
    fn host_calls(&self, samples: &[Sample], tables: &mut Tables<'p>) -> Markers {
        let mut by_slice: BTreeMap<u32, Option<&str>> = BTreeMap::new();
        for sample in samples {
            let Some(slice) = sample.origin.slice else { continue };
            let call = self.host_call(sample);
            let common = by_slice.entry(slice).or_insert(call);
            *common = common.filter(|common| call == Some(*common));
        }
        let slices: Vec<_> = by_slice.into_iter().collect();
        let mut markers = Markers::default();
        for stretch in slices.chunk_by(|(a, of_a), (b, of_b)| a + 1 == *b && of_a == of_b) {
            let [(first, Some(call)), ..] = *stretch else { continue };
            let (last, _) = stretch[stretch.len() - 1];
            let (start, end) = (self.timeline.range(Some(first)).0, self.timeline.range(Some(last)).1);
            markers.push(tables.string(call), category(FrameKind::HostCall), start, Some(end), {
                json!({ "type": HOST_CALL, "function": call })
            });
        }
        markers
    }

    fn end(&self, markers: &mut Markers, tables: &mut Tables<'p>) {
        if let Some(end) = &self.profile.metadata.end {
            let data = json!({ "type": END, "reason": end.to_string() });
            markers.push(tables.string("End"), category(FrameKind::Guest), self.timeline.end, None, data);
        }
    }
}

impl Markers {
    /// A point in time, or an interval if it has an end.
    fn push(&mut self, name: u64, category: u64, start: f64, end: Option<f64>, data: Value) {
        self.length += 1;
        self.name.push(name);
        self.category.push(category);
        self.start_time.push(start);
        self.end_time.push(end);
        self.phase.push(end.is_some().into());
        self.data.push(data);
    }
}

fn marker_schema() -> Value {
    let schema = |name: &str, key: &str, label: &str, description: &str| {
        json!({
            "name": name,
            "display": ["marker-chart", "marker-table", "timeline-overview"],
            "chartLabel": format!("{{marker.data.{key}}}"),
            "tooltipLabel": format!("{{marker.data.{key}}}"),
            "tableLabel": format!("{{marker.data.{key}}}"),
            "description": description,
            "fields": [{ "key": key, "label": label, "format": "string", "searchable": true }],
        })
    };
    json!([
        schema(END, "reason", "How the run ended", "The end of the run."),
        schema(HOST_CALL, "function", "Function", "Slices of time that the thread spent in one host call."),
    ])
}

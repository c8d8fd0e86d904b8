//! From a profile to pprof's messages.

use std::time::{Duration, SystemTime};

use indexmap::{IndexMap, IndexSet};

use super::{
    OWN_LABEL, THREAD, THREAD_ID, WEIGHT_OF_SAMPLES, is_reserved,
    message::{Function, Label, Line, Location, Mapping, Profile as Message, Sample, ValueType},
};
use crate::{
    Event, Format, Frame, FrameId, FrameKind, LabelsId, Names, Profile, ProfileError, Tally, ThreadId, Unit,
    names,
};

pub(super) fn message(profile: &Profile) -> Result<Message, ProfileError> {
    let mut encoder = Encoder {
        profile,
        names: Names::new(profile),
        strings: IndexSet::from([String::new()]),
        functions: IndexSet::new(),
        mappings: IndexMap::new(),
        locations: IndexSet::new(),
    };
    encoder.message()
}

struct Encoder<'p> {
    profile: &'p Profile,
    names: Names,
    strings: IndexSet<String>,
    /// Name, system name and file, as strings. Ids are positions and 1, as for the tables below.
    functions: IndexSet<(i64, i64, i64)>,
    /// The file names of mappings, with the first address behind each.
    mappings: IndexMap<i64, u64>,
    /// Mapping, address and lines.
    locations: IndexSet<(u64, u64, Vec<Line>)>,
}

impl Encoder<'_> {
    fn message(&mut self) -> Result<Message, ProfileError> {
        let mut samples: IndexMap<(usize, Option<ThreadId>, LabelsId), Tally> = IndexMap::new();
        // Several stacks may have the same locations.
        let mut stacks: IndexSet<Vec<u64>> = IndexSet::new();
        let of_stack: Vec<usize> =
            self.profile.stacks().map(|stack| stacks.insert_full(self.stack(stack.frames)).0).collect();
        for sample in self.profile.samples() {
            let stack = of_stack[sample.stack.index()];
            let merged = samples.entry((stack, sample.origin.thread, sample.origin.labels)).or_default();
            // No part of a profile exceeds its total.
            merged.samples += sample.tally.samples;
            merged.weight += sample.tally.weight;
        }
        let mut sample = Vec::with_capacity(samples.len());
        for ((stack, thread, labels), tally) in samples {
            let location_id = stacks[stack].clone();
            let value = vec![value("number of samples", tally.samples)?, value("weight", tally.weight)?];
            sample.push(Sample { location_id, value, label: self.labels(thread, labels) });
        }

        let metadata = &self.profile.metadata;
        let event = self.event(&metadata.event);
        let count = ValueType { r#type: self.string("samples"), unit: self.string("count") };
        let comment = metadata.notices.iter().map(|notice| self.string(notice)).collect();
        // What does not fit is left out: a time beyond the year 2262.
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).ok();
        let start = metadata.start.and_then(|start| match start.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => nanos(since),
            Err(error) => nanos(error.duration()).map(|nanos| -nanos),
        });
        Ok(Message {
            sample_type: vec![count, event],
            sample,
            mapping: self.mapping_messages(),
            location: self.location_messages(),
            function: self.function_messages(),
            time_nanos: start.unwrap_or(0),
            duration_nanos: metadata.duration.and_then(nanos).unwrap_or(0),
            period_type: Some(event),
            period: metadata.period.and_then(|period| i64::try_from(period).ok()).unwrap_or(0),
            comment,
            default_sample_type: event.r#type,
            string_table: std::mem::take(&mut self.strings).into_iter().collect(),
        })
    }

    fn string(&mut self, text: &str) -> i64 {
        let index = match self.strings.get_index_of(text) {
            Some(index) => index,
            None => self.strings.insert_full(text.to_owned()).0,
        };
        index as i64
    }

    fn event(&mut self, event: &Event) -> ValueType {
        // That name is taken by the number of samples.
        let name = if event.name == "samples" { WEIGHT_OF_SAMPLES } else { &event.name };
        let unit = match event.unit {
            Unit::Nanoseconds => "nanoseconds",
            Unit::Events => "count",
        };
        ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    /// The ids of a stack's locations, youngest first.
    fn stack(&mut self, frames: &[FrameId]) -> Vec<u64> {
        let profile = self.profile;
        let mut locations: Vec<u64> = frames
            .chunk_by(|_, &younger| profile.frame(younger).inlined)
            .map(|machine_frame| self.location(machine_frame))
            .collect();
        locations.reverse();
        locations
    }

    /// The id of the location of a function and what was inlined into it, oldest first.
    fn location(&mut self, frames: &[FrameId]) -> u64 {
        let profile = self.profile;
        let lines = frames.iter().rev().map(|&frame| self.line(frame)).collect();
        let youngest = frames.iter().map(|&id| profile.frame(id)).next_back();
        let address = youngest.and_then(|frame| frame.bytecode_offset).unwrap_or(0).into();
        let module = frames.iter().map(|&id| profile.frame(id)).find_map(guest_module);
        let mapping = match module {
            Some(module) => {
                let file = self.string(module);
                let entry = self.mappings.entry(file);
                let id = entry.index() as u64 + 1;
                let limit = entry.or_default();
                *limit = (*limit).max(address + 1);
                id
            }
            None => 0,
        };
        self.locations.insert_full((mapping, address, lines)).0 as u64 + 1
    }

    fn line(&mut self, id: FrameId) -> Line {
        let frame = self.profile.frame(id);
        let name = self.names.id(id);
        let name = self.names.text(name).to_owned();
        let name = self.string(&name);
        let system_name = self.string(&names::own_name(frame));
        let location = frame.location.as_ref();
        let file = self.string(location.map_or("", |location| &location.file));
        let function_id = self.functions.insert_full((name, system_name, file)).0 as u64 + 1;
        let (line, column) = location.map_or((0, 0), |location| (location.line, location.column));
        Line { function_id, line: line.into(), column: column.into() }
    }

    fn labels(&mut self, thread: Option<ThreadId>, labels: LabelsId) -> Vec<Label> {
        let profile = self.profile;
        let mut encoded = Vec::new();
        let mut push = |key: i64, str: i64| encoded.push(Label { key, str, num: 0, num_unit: 0 });
        if let Some(thread) = thread.map(|id| profile.thread(id)) {
            if let Some(name) = &thread.name {
                push(self.string(THREAD), self.string(name));
            }
            push(self.string(THREAD_ID), self.string(&thread.id.to_string()));
        }
        for (key, text) in profile.labels(labels).iter() {
            let prefix = if is_reserved(key) { OWN_LABEL } else { "" };
            push(self.string(&format!("{prefix}{key}")), self.string(text));
        }
        encoded
    }

    fn mapping_messages(&self) -> Vec<Mapping> {
        let mappings = (1..).zip(&self.mappings).map(|(id, (&filename, &memory_limit))| Mapping {
            id,
            memory_start: 0,
            memory_limit,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        mappings.collect()
    }

    fn location_messages(&self) -> Vec<Location> {
        let locations = (1..).zip(&self.locations).map(|(id, (mapping_id, address, line))| Location {
            id,
            mapping_id: *mapping_id,
            address: *address,
            line: line.clone(),
        });
        locations.collect()
    }

    fn function_messages(&self) -> Vec<Function> {
        let functions = (1..).zip(&self.functions);
        functions
            .map(|(id, &(name, system_name, filename))| Function { id, name, system_name, filename })
            .collect()
    }
}

fn guest_module(frame: &Frame) -> Option<&str> {
    frame.module.as_deref().filter(|_| frame.kind == FrameKind::Guest)
}

fn value(what: &'static str, value: u64) -> Result<i64, ProfileError> {
    i64::try_from(value).map_err(|_| ProfileError::Value {
        format: Format::Pprof,
        what,
        value: value.to_string(),
    })
}

//! From pprof's messages to a profile. They may come from a file of any content.

use std::{
    collections::HashMap,
    mem,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    OWN_LABEL, THREAD, THREAD_ID, WEIGHT_OF_SAMPLES, is_reserved, malformed,
    message::{Function, Label, Line, Location, Mapping, Profile as Message, ValueType},
    parts::Parts,
};
use crate::{
    Event, Format, Frame, FrameId, FrameKind, Origin, Profile, ProfileError, SourceLocation, Tally, Thread,
    Unit,
    bounded::BoundedProfile,
    bounds,
    names::{self, Modules},
};

pub(super) fn profile(mut parts: Parts) -> Result<Profile, ProfileError> {
    let mut profile = BoundedProfile::default();
    let strings = Strings::of(mem::take(&mut parts.tables.string_table), &mut profile)?;
    let message = &parts.tables;
    let values = Values::of(message, &strings)?;
    let metadata = profile.metadata();
    metadata.event = values.event.clone();
    let period = u64::try_from(message.period).ok().filter(|&period| period > 0);
    metadata.period = period.and_then(|period| period.checked_mul(values.scale));
    metadata.start = start(message.time_nanos);
    let duration = u64::try_from(message.duration_nanos).ok().filter(|&duration| duration > 0);
    metadata.duration = duration.map(Duration::from_nanos);
    for &comment in &message.comment {
        let notice = strings.get(comment)?;
        // Each may be the same long text.
        profile.look_at(&[&notice])?;
        profile.metadata().notices.push(notice.to_string());
    }

    let locations = Code::of(message, &strings).locations(&mut profile)?;
    let mut frames = Vec::new();
    for sample in parts.samples() {
        let sample = sample?;
        frames.clear();
        for id in sample.location_id.iter().rev() {
            let location = locations.get(*id)?;
            profile.check_stack(frames.len() + location.len())?;
            frames.extend_from_slice(location);
        }
        if frames.is_empty() {
            frames.push(profile.intern(Frame::truncated())?);
        }
        let origin = origin(&mut profile, &strings, &sample.label)?;
        profile.add_from(&frames, origin, values.tally(&sample.value)?)?;
    }
    Ok(profile.into_profile())
}

struct Strings(Vec<Arc<str>>);

impl Strings {
    fn of(table: Vec<String>, profile: &mut BoundedProfile) -> Result<Self, ProfileError> {
        table.into_iter().map(|text| profile.text(&text)).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, index: i64) -> Result<Arc<str>, ProfileError> {
        if index == 0 {
            return Ok("".into());
        }
        // What is negative becomes an index that no table has.
        Ok(Arc::clone(bounds::entry(Format::Pprof, "strings", &self.0, index.cast_unsigned())?))
    }
}

/// Which of a sample's values are which.
struct Values {
    count: usize,
    samples: Option<usize>,
    weight: usize,
    event: Event,
    /// What a weight is multiplied with.
    scale: u64,
}

impl Values {
    fn of(message: &Message, strings: &Strings) -> Result<Self, ProfileError> {
        let types = &message.sample_type;
        let Some(last) = types.len().checked_sub(1) else {
            return Err(malformed("it has no sample type".to_owned()));
        };
        let default = types.iter().position(|of| of.r#type == message.default_sample_type);
        let weight = default.filter(|_| message.default_sample_type != 0).unwrap_or(last);
        let text = |of: &ValueType| Ok::<_, ProfileError>((strings.get(of.r#type)?, strings.get(of.unit)?));
        let mut samples = None;
        for (index, of) in types.iter().enumerate() {
            let (name, unit) = text(of)?;
            if (&*name, &*unit) == ("samples", "count") {
                samples = Some(index);
            }
        }
        let (name, unit) = text(&types[weight])?;
        let scale = match &*unit {
            "nanoseconds" => Some(1),
            "microseconds" => Some(1_000),
            "milliseconds" => Some(1_000_000),
            "seconds" => Some(1_000_000_000),
            _ => None,
        };
        let name = if &*name == WEIGHT_OF_SAMPLES { "samples" } else { &*name };
        let unit = if scale.is_some() { Unit::Nanoseconds } else { Unit::Events };
        let event = Event { name: name.to_owned(), unit };
        Ok(Self { count: types.len(), samples, weight, event, scale: scale.unwrap_or(1) })
    }

    fn tally(&self, values: &[i64]) -> Result<Tally, ProfileError> {
        if values.len() != self.count {
            let reason = format!("a sample with {} values for {} sample types", values.len(), self.count);
            return Err(malformed(reason));
        }
        let get = |index: usize, scale: u64, what| {
            let scaled = u64::try_from(values[index]).ok().and_then(|value| value.checked_mul(scale));
            scaled.ok_or(ProfileError::Value {
                format: Format::Pprof,
                what,
                value: values[index].to_string(),
            })
        };
        Ok(Tally {
            samples: self.samples.map_or(Ok(0), |samples| get(samples, 1, "number of samples"))?,
            weight: get(self.weight, self.scale, "weight")?,
        })
    }
}

/// What locations consist of.
struct Code<'m> {
    strings: &'m Strings,
    mappings: HashMap<u64, &'m Mapping>,
    functions: HashMap<u64, &'m Function>,
    locations: &'m [Location],
}

impl<'m> Code<'m> {
    fn of(message: &'m Message, strings: &'m Strings) -> Self {
        Self {
            strings,
            mappings: message.mapping.iter().map(|mapping| (mapping.id, mapping)).collect(),
            functions: message.function.iter().map(|function| (function.id, function)).collect(),
            locations: &message.location,
        }
    }

    /// The frames of all locations.
    fn locations(&self, profile: &mut BoundedProfile) -> Result<Locations, ProfileError> {
        let frame: fn(&Self, &Location, usize) -> _ =
            if self.names_have_parts(profile)? { Self::frame_in_parts } else { Self::frame };
        let mut frames = Vec::new();
        let mut of_location = HashMap::with_capacity(self.locations.len());
        for location in self.locations {
            let start = frames.len();
            for line in (0..location.line.len().max(1)).rev() {
                frames.push(profile.intern(frame(self, location, line)?)?);
            }
            of_location.insert(location.id, start..frames.len());
        }
        Ok(Locations { frames, of_location })
    }

    /// Whether all functions show as their names if these are made of module and own name, as in files of ours.
    fn names_have_parts(&self, profile: &mut BoundedProfile) -> Result<bool, ProfileError> {
        let lines = || {
            let lines = |location: &'m Location| (0..location.line.len()).map(move |line| (location, line));
            self.locations.iter().flat_map(lines)
        };
        let mut modules = Modules::default();
        for (location, line) in lines() {
            let frame = self.frame_in_parts(location, line)?;
            profile.look_at(&[&frame.name])?;
            modules.add(&frame);
        }
        for (location, line) in lines() {
            let name = self.strings.get(self.function(&location.line[line])?.name)?;
            profile.look_at(&[&name])?;
            if names::show(&self.frame_in_parts(location, line)?, modules.are_shown()) != *name {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn function(&self, line: &Line) -> Result<&Function, ProfileError> {
        let function = self.functions.get(&line.function_id).copied();
        function.ok_or_else(|| missing("functions", line.function_id, self.functions.len()))
    }

    /// The frame of one line, by the function's name as a whole.
    fn frame(&self, location: &Location, index: usize) -> Result<Frame, ProfileError> {
        let Some(line) = location.line.get(index) else {
            return Ok(Frame::guest(format!("{:#x}", location.address)));
        };
        let function = self.function(line)?;
        let mut name = self.strings.get(function.name)?;
        if name.is_empty() {
            name = self.strings.get(function.system_name)?;
        }
        let file = self.strings.get(function.filename)?;
        let number = |number: i64| u32::try_from(number).unwrap_or(0);
        let source = SourceLocation { file, line: number(line.line), column: number(line.column) };
        Ok(Frame {
            location: (!source.file.is_empty()).then_some(source),
            inlined: index + 1 < location.line.len(),
            ..names::parse(&name)
        })
    }

    /// The frame of one line, with module and own name apart and its place in the module.
    fn frame_in_parts(&self, location: &Location, index: usize) -> Result<Frame, ProfileError> {
        let mut frame = self.frame(location, index)?;
        let Some(line) = location.line.get(index) else { return Ok(frame) };
        let own_name = self.strings.get(self.function(line)?.system_name)?;
        match frame.kind {
            FrameKind::Guest => {
                if location.mapping_id != 0 {
                    let mapping = self.mappings.get(&location.mapping_id);
                    let mapping = mapping
                        .ok_or_else(|| missing("mappings", location.mapping_id, self.mappings.len()))?;
                    frame.module = Some(self.strings.get(mapping.filename)?);
                    let offset = u32::try_from(location.address).ok();
                    frame.bytecode_offset = offset.filter(|&offset| offset > 0 && mapping.memory_start == 0);
                }
                frame.name = own_name;
            }
            FrameKind::HostCall => {
                let module = frame.name.strip_suffix(&*names::printable(&own_name));
                frame.module = module.and_then(|module| module.strip_suffix('.')).map(Arc::from);
                frame.name = own_name;
            }
            FrameKind::Builtin | FrameKind::Host => frame.name = own_name,
            FrameKind::Truncated => {}
        }
        Ok(frame)
    }
}

/// The frames of each location by its id, oldest first.
struct Locations {
    frames: Vec<FrameId>,
    of_location: HashMap<u64, Range<usize>>,
}

impl Locations {
    fn get(&self, id: u64) -> Result<&[FrameId], ProfileError> {
        let range = self.of_location.get(&id).cloned();
        Ok(&self.frames[range.ok_or_else(|| missing("locations", id, self.of_location.len()))?])
    }
}

fn origin(profile: &mut BoundedProfile, strings: &Strings, labels: &[Label]) -> Result<Origin, ProfileError> {
    let mut thread: Option<Thread> = None;
    let mut own = Vec::new();
    for label in labels {
        let key = strings.get(label.key)?;
        let text: Arc<str> = match (label.str, label.num) {
            (0, 0) => "".into(),
            (0, number) => {
                let unit = strings.get(label.num_unit)?;
                profile.look_at(&[&unit])?;
                format!("{number} {unit}").trim_end().into()
            }
            (text, _) => strings.get(text)?,
        };
        match (&*key, text.parse()) {
            (THREAD, _) => thread.get_or_insert_default().name = Some(text),
            (THREAD_ID, Ok(id)) => thread.get_or_insert_default().id = id,
            _ => {
                let plain = key.strip_prefix(OWN_LABEL).filter(|plain| is_reserved(plain));
                own.push((plain.map_or(Arc::clone(&key), Arc::from), text));
            }
        }
    }
    Ok(Origin {
        thread: thread.map(|thread| profile.intern_thread(thread)).transpose()?,
        labels: profile.intern_labels(own)?,
        slice: None,
    })
}

fn start(nanos: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    match nanos {
        0 => None,
        1.. => SystemTime::UNIX_EPOCH.checked_add(distance),
        _ => SystemTime::UNIX_EPOCH.checked_sub(distance),
    }
}

fn missing(table: &'static str, id: u64, length: usize) -> ProfileError {
    ProfileError::Index { format: Format::Pprof, table, index: id, length }
}

//! From a profile to OpenTelemetry's messages.
//!
//! | in the message | what |
//! |---|---|
//! | sample type | the event: `cpu` in `nanoseconds`; a sample's one value is its weight |
//! | function | the shown name ([`Names`]), as in pprof's files |
//! | location | one machine frame: several lines if functions were inlined into it, the youngest first |
//! | address | the bytecode offset, as an offset into the guest's binary |
//! | mapping | a guest module |
//! | attributes of samples | the labels; `thread.id` and `thread.name` |
//! | attributes of locations | `profile.frame.type`: `wasm`, or `native` for the host |
//! | attributes of the resource | `service.name`, and the labels of the series |
//!
//! Each table begins with an entry that is empty, which stands for what is not known.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, SystemTime};

use flamewalk_profile::{FrameId, FrameKind, Names, ProfileError, Unit};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
    Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::series::Series;
use crate::window::Window;

/// The request that sends a window.
///
/// # Errors
/// [`ProfileError::TooLarge`] if a table has more entries, or a sample more weight, than the messages can refer to.
pub(super) fn request(
    window: &Window,
    series: &Series,
) -> Result<ExportProfilesServiceRequest, ProfileError> {
    let mut encoder = Encoder {
        profile: &window.profile,
        names: Names::new(&window.profile),
        strings: Table::starting_with(String::new()),
        functions: Table::starting_with(Function::default()),
        mappings: Table::starting_with(0),
        locations: Table::starting_with(Place::default()),
        stacks: Table::starting_with(Vec::new()),
        attributes: Table::starting_with((0, None)),
        stack_of: HashMap::new(),
    };
    let profile = encoder.profile_message(window)?;
    let string = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let labels = series.labels.iter().map(|(name, value)| string(name, value));
    let attributes = std::iter::once(string("service.name", &series.service)).chain(labels).collect();
    let scope = InstrumentationScope {
        name: "flamewalk".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let profiles = ScopeProfiles { scope: Some(scope), profiles: vec![profile], ..ScopeProfiles::default() };
    let resource = Resource { attributes, ..Resource::default() };
    let resource_profiles = vec![ResourceProfiles {
        resource: Some(resource),
        scope_profiles: vec![profiles],
        ..ResourceProfiles::default()
    }];
    Ok(ExportProfilesServiceRequest { resource_profiles, dictionary: Some(encoder.dictionary()) })
}

/// Distinct entries, each with its position.
struct Table<T> {
    positions: HashMap<T, i32>,
    entries: Vec<T>,
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn starting_with(zero: T) -> Self {
        Self { positions: HashMap::from([(zero.clone(), 0)]), entries: vec![zero] }
    }

    fn position(&mut self, entry: T) -> Result<i32, ProfileError> {
        if let Some(known) = self.positions.get(&entry) {
            return Ok(*known);
        }
        let limit = i32::MAX;
        let position = i32::try_from(self.entries.len()).map_err(|_| ProfileError::TooLarge {
            what: "entries of a table",
            limit: limit.unsigned_abs().into(),
        })?;
        self.positions.insert(entry.clone(), position);
        self.entries.push(entry);
        Ok(position)
    }
}

/// A location.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    mapping: i32,
    address: u64,
    lines: Vec<Line>,
    /// The position of its attribute.
    kind: i32,
}

/// A text or a number, as an attribute has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Attribute {
    Text(String),
    Number(i64),
}

struct Encoder<'p> {
    profile: &'p flamewalk_profile::Profile,
    names: Names,
    strings: Table<String>,
    functions: Table<Function>,
    /// By the positions of their names.
    mappings: Table<i32>,
    locations: Table<Place>,
    stacks: Table<Vec<i32>>,
    /// By the positions of their names.
    attributes: Table<(i32, Option<Attribute>)>,
    /// The positions of the profile's stacks.
    stack_of: HashMap<usize, i32>,
}

impl Encoder<'_> {
    fn profile_message(&mut self, window: &Window) -> Result<Profile, ProfileError> {
        let metadata = &self.profile.metadata;
        let unit = match metadata.event.unit {
            Unit::Nanoseconds => "nanoseconds",
            Unit::Events => "count",
        };
        let event = ValueType {
            type_strindex: self.string(&metadata.event.name)?,
            unit_strindex: self.string(unit)?,
        };
        let mut samples = Vec::new();
        for sample in self.profile.samples() {
            // Slices of time are merged where they are stored, by the values of equal stacks and attributes.
            samples.push(Sample {
                stack_index: self.stack(sample.stack.index(), self.profile.stack(sample.stack).frames)?,
                attribute_indices: self.origin(sample.origin)?,
                values: vec![number("nanoseconds or events", sample.tally.weight)?],
                ..Sample::default()
            });
        }
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let begin = metadata.start.unwrap_or(window.begin).duration_since(SystemTime::UNIX_EPOCH);
        let length = metadata.duration.or(window.end.duration_since(window.begin).ok());
        Ok(Profile {
            sample_type: Some(event),
            samples,
            time_unix_nano: nanos(begin.unwrap_or_default()),
            duration_nano: nanos(length.unwrap_or_default()),
            period_type: metadata.period.map(|_| event),
            period: metadata.period.map_or(Ok(0), |period| number("nanoseconds", period))?,
            profile_id: window.id.to_vec(),
            ..Profile::default()
        })
    }

    fn string(&mut self, text: &str) -> Result<i32, ProfileError> {
        self.strings.position(text.to_owned())
    }

    fn attribute(&mut self, key: &str, value: Attribute) -> Result<i32, ProfileError> {
        let key = self.string(key)?;
        self.attributes.position((key, Some(value)))
    }

    fn origin(&mut self, origin: flamewalk_profile::Origin) -> Result<Vec<i32>, ProfileError> {
        let profile = self.profile;
        let mut attributes = Vec::new();
        if let Some(thread) = origin.thread.map(|id| profile.thread(id)) {
            attributes.push(self.attribute("thread.id", Attribute::Number(number("threads", thread.id)?))?);
            if let Some(name) = &thread.name {
                attributes.push(self.attribute("thread.name", Attribute::Text(name.to_string()))?);
            }
        }
        for (key, value) in profile.labels(origin.labels).iter() {
            attributes.push(self.attribute(key, Attribute::Text(value.to_owned()))?);
        }
        Ok(attributes)
    }

    /// The position of a stack, whose locations are listed youngest first.
    fn stack(&mut self, index: usize, frames: &[FrameId]) -> Result<i32, ProfileError> {
        if let Some(known) = self.stack_of.get(&index) {
            return Ok(*known);
        }
        let profile = self.profile;
        let machine_frames = frames.chunk_by(|_, younger| profile.frame(*younger).inlined);
        let mut locations =
            machine_frames.map(|frames| self.location(frames)).collect::<Result<Vec<_>, _>>()?;
        locations.reverse();
        let position = self.stacks.position(locations)?;
        self.stack_of.insert(index, position);
        Ok(position)
    }

    /// The position of the location of a function and what was inlined into it, oldest first.
    fn location(&mut self, frames: &[FrameId]) -> Result<i32, ProfileError> {
        let profile = self.profile;
        let lines = frames.iter().rev().map(|frame| self.line(*frame)).collect::<Result<_, _>>()?;
        let frames = || frames.iter().map(|id| profile.frame(*id));
        let is_guest = |frame: &&flamewalk_profile::Frame| frame.kind == FrameKind::Guest;
        let module = frames().filter(is_guest).find_map(|frame| frame.module.clone());
        let mapping = match module {
            Some(module) => {
                let name = self.string(&module)?;
                self.mappings.position(name)?
            }
            None => 0,
        };
        let kind = match frames().next().map(|frame| frame.kind) {
            Some(FrameKind::Guest) => Some("wasm"),
            Some(FrameKind::HostCall | FrameKind::Builtin | FrameKind::Host) => Some("native"),
            Some(FrameKind::Truncated) | None => None,
        };
        let kind = kind
            .map_or(Ok(0), |kind| self.attribute("profile.frame.type", Attribute::Text(kind.to_owned())))?;
        let address = frames().next_back().and_then(|frame| frame.bytecode_offset).unwrap_or(0).into();
        self.locations.position(Place { mapping, address, lines, kind })
    }

    fn line(&mut self, id: FrameId) -> Result<Line, ProfileError> {
        let frame = self.profile.frame(id);
        let name = self.names.of(id).to_owned();
        let name_strindex = self.string(&name)?;
        let location = frame.location.as_ref();
        let filename_strindex = self.string(location.map_or("", |location| &location.file))?;
        let function = Function { name_strindex, filename_strindex, ..Function::default() };
        let (line, column) = location.map_or((0, 0), |location| (location.line, location.column));
        Ok(Line {
            function_index: self.functions.position(function)?,
            line: line.into(),
            column: column.into(),
        })
    }

    fn dictionary(self) -> ProfilesDictionary {
        let mapping = |filename_strindex| Mapping { filename_strindex, ..Mapping::default() };
        let location = |Place { mapping, address, lines, kind }| Location {
            mapping_index: mapping,
            address,
            lines,
            attribute_indices: (kind != 0).then_some(kind).into_iter().collect(),
        };
        let attribute = |(key_strindex, value): (i32, Option<Attribute>)| KeyValueAndUnit {
            key_strindex,
            value: value.map(|value| AnyValue {
                value: Some(match value {
                    Attribute::Text(text) => Value::StringValue(text),
                    Attribute::Number(number) => Value::IntValue(number),
                }),
            }),
            ..KeyValueAndUnit::default()
        };
        ProfilesDictionary {
            mapping_table: self.mappings.entries.into_iter().map(mapping).collect(),
            location_table: self.locations.entries.into_iter().map(location).collect(),
            function_table: self.functions.entries,
            link_table: vec![Link::default()],
            string_table: self.strings.entries,
            attribute_table: self.attributes.entries.into_iter().map(attribute).collect(),
            stack_table: self
                .stacks
                .entries
                .into_iter()
                .map(|location_indices| Stack { location_indices })
                .collect(),
        }
    }
}

fn number(what: &'static str, value: u64) -> Result<i64, ProfileError> {
    i64::try_from(value).map_err(|_| ProfileError::TooLarge { what, limit: i64::MAX.unsigned_abs() })
}

//! From a processed profile of any content to a profile.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::Number;

use super::{
    file::{Category, File, FileThread, Lib, Meta, Samples},
    malformed,
    thread::CATEGORIES,
};
use crate::{
    Event, Format, Frame, FrameId, FrameKind, Metadata, Origin, Profile, ProfileError, SourceLocation, Tally,
    Thread,
    bounded::BoundedProfile,
    bounds, json,
    names::{self, Modules},
    track,
};

pub(super) fn profile(file: File) -> Result<Profile, ProfileError> {
    let weight_types: Vec<_> = file.threads.iter().map(|thread| &thread.samples.weight_type).collect();
    if weight_types.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(malformed("it has threads with different types of weights".to_owned()));
    }
    let mut profile = BoundedProfile::default();
    let weight_type = weight_types.first().and_then(|of| of.as_deref());
    describe(profile.metadata(), &file.meta, weight_type)?;
    let slice = file.meta.flamewalk.as_ref().and_then(|own| own.slice).filter(|&slice| slice > 0);
    let mut reader = Reader {
        is_time: weight_type == Some("tracing-ms"),
        is_own: file.meta.flamewalk.is_some(),
        slice: slice.map(|nanoseconds| nanoseconds as f64 / 1e6),
        several: file.threads.len() > 1,
        categories: &file.meta.categories,
        libs: &file.libs,
        profile,
    };
    for (thread, index) in file.threads.iter().zip(0..) {
        reader.thread(thread, index)?;
    }
    Ok(reader.profile.into_profile())
}

fn describe(metadata: &mut Metadata, meta: &Meta, weight_type: Option<&str>) -> Result<(), ProfileError> {
    let own = meta.flamewalk.as_ref();
    let name = own.map(|own| own.event.clone());
    metadata.event = match weight_type {
        Some("tracing-ms") => Event::time(name.unwrap_or_else(|| "time".to_owned())),
        Some("bytes") => Event::count(name.unwrap_or_else(|| "bytes".to_owned())),
        Some("samples") | None => Event::count(name.unwrap_or_else(|| "samples".to_owned())),
        Some(other) => {
            let (what, value) = ("type of weights", other.to_owned());
            return Err(ProfileError::Value { format: Format::Firefox, what, value });
        }
    };
    metadata.guest = match own {
        Some(own) => own.guest.clone(),
        None => Some(meta.product.clone()).filter(|product| !product.is_empty()),
    };
    metadata.notices = own.map(|own| own.notices.clone()).unwrap_or_default();
    metadata.slice = own.and_then(|own| own.slice).map(Duration::from_nanos);
    // The whole milliseconds are exact.
    let (whole, rest) = (meta.start_time.trunc(), meta.start_time.fract());
    let start = Duration::from_millis(whole as u64) + Duration::from_nanos((rest * 1e6).round() as u64);
    let start = Some(start).filter(|start| !start.is_zero());
    metadata.start = start.and_then(|start| SystemTime::UNIX_EPOCH.checked_add(start));
    let duration = meta.profiling_end_time.map(|end| end - meta.profiling_start_time.unwrap_or(0.0));
    metadata.duration = duration.and_then(|duration| Duration::try_from_secs_f64(duration / 1e3).ok());
    Ok(())
}

struct Reader<'f> {
    profile: BoundedProfile,
    is_time: bool,
    is_own: bool,
    /// Length of a slice, in milliseconds.
    slice: Option<f64>,
    several: bool,
    categories: &'f [Category],
    libs: &'f [Lib],
}

impl Reader<'_> {
    fn thread(&mut self, thread: &FileThread, index: u64) -> Result<(), ProfileError> {
        let frames = self.frames(thread)?;
        let table = &thread.stack_table;
        bounds::equal_lengths(Format::Firefox, "stacks", table.prefix.len(), &[table.frame.len()])?;
        let mut tree = bounds::Tree::new(Format::Firefox);
        for (&caller, &frame) in table.prefix.iter().zip(&table.frame) {
            tree.push(caller, *entry("frames", &frames, frame)?)?;
        }
        let own = thread.flamewalk.as_ref();
        let known = match own {
            Some(own) => own.id.map(|id| Thread { id, name: own.name.as_deref().map(Arc::from) }),
            None if self.is_own || !self.several => None,
            None => Some(Thread { id: index, name: Some(thread.name.as_str().into()) }),
        };
        let known = known.map(|thread| self.profile.intern_thread(thread)).transpose()?;
        let labels = track::from_member(own.and_then(|own| own.labels.clone()));
        let labels = self.profile.intern_labels(labels)?;
        self.samples(&thread.samples, &tree, Origin { thread: known, labels, slice: None })
    }

    fn samples(
        &mut self,
        samples: &Samples,
        tree: &bounds::Tree,
        origin: Origin,
    ) -> Result<(), ProfileError> {
        let rows = samples.stack.len();
        bounds::positions("samples", rows)?;
        let times = times(samples);
        let lengths = [
            samples.weight.as_ref().map_or(rows, Vec::len),
            samples.counts.as_ref().map_or(rows, Vec::len),
            times.as_ref().map_or(rows, |times| times.len()),
        ];
        bounds::equal_lengths(Format::Firefox, "samples", rows, &lengths)?;
        for (row, &stack) in samples.stack.iter().enumerate() {
            let weight = match &samples.weight {
                Some(weights) => self.weight(&weights[row])?,
                None => 1,
            };
            let counted = samples.counts.as_ref().map(|counts| counts[row]);
            let samples = counted.unwrap_or(if self.is_time || self.is_own { 0 } else { weight });
            let tally = Tally { samples, weight };
            let Some(stack) = stack else {
                let outside = &mut self.profile.metadata().statistics.outside;
                let (total, added) = (outside.weight, weight);
                let overflow = ProfileError::Overflow { what: "weight", total, added };
                *outside = outside.checked_add(tally).ok_or(overflow)?;
                continue;
            };
            let time = times.as_ref().map(|times| times[row]);
            // What is out of range is clamped, and not a number is 0: either shows at a wrong time, and counts.
            let slice = time.zip(self.slice).map(|(time, slice)| (time / slice) as u32);
            let frames = tree.stack(stack)?;
            self.profile.add_from(&frames, Origin { slice, ..origin }, tally)?;
        }
        Ok(())
    }

    fn weight(&self, number: &Number) -> Result<u64, ProfileError> {
        let refused =
            || ProfileError::Value { format: Format::Firefox, what: "weight", value: number.to_string() };
        json::amount(number, if self.is_time { 1_000_000 } else { 1 }).ok_or_else(refused)
    }

    /// The frames of the thread's table, in the same order.
    fn frames(&mut self, thread: &FileThread) -> Result<Vec<FrameId>, ProfileError> {
        let (frames, functions) = (&thread.frame_table, &thread.func_table);
        let rows = frames.func.len();
        bounds::entries("frames", rows)?;
        let lengths = [
            frames.address.len(),
            frames.inline_depth.len(),
            frames.category.len(),
            frames.line.len(),
            frames.column.len(),
        ];
        bounds::equal_lengths(Format::Firefox, "frames", rows, &lengths)?;
        let lengths = [functions.resource.len(), functions.file_name.len()];
        bounds::equal_lengths(Format::Firefox, "functions", functions.name.len(), &lengths)?;
        let has_parts = self.names_have_parts(thread)?;
        let mut ids = Vec::with_capacity(rows);
        for row in 0..rows {
            let whole = self.frame(thread, row)?;
            let frame = if has_parts { self.in_parts(thread, row, &whole)? } else { whole };
            ids.push(self.profile.intern(frame)?);
        }
        Ok(ids)
    }

    /// Whether all functions of a thread show as their names if these are made of module and own name.
    fn names_have_parts(&mut self, thread: &FileThread) -> Result<bool, ProfileError> {
        let rows = thread.frame_table.func.len();
        let mut modules = Modules::default();
        for row in 0..rows {
            let frame = self.in_parts(thread, row, &self.frame(thread, row)?)?;
            self.profile.look_at(&[&frame.name])?;
            modules.add(&frame);
        }
        for row in 0..rows {
            let whole = self.frame(thread, row)?;
            self.profile.look_at(&[&whole.name])?;
            let in_parts = self.in_parts(thread, row, &whole)?;
            if names::show(&in_parts, modules.are_shown()) != names::show(&whole, false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A frame, by the function's name as a whole.
    fn frame(&self, thread: &FileThread, row: usize) -> Result<Frame, ProfileError> {
        let (table, functions) = (&thread.frame_table, &thread.func_table);
        let function = table.func[row];
        let name = string(thread, *entry("functions", &functions.name, function)?)?;
        let file = functions.file_name[function as usize].map(|file| string(thread, file)).transpose()?;
        let (line, column) = (table.line[row].unwrap_or(0), table.column[row].unwrap_or(0));
        let mut frame = Frame {
            location: file.map(|file| SourceLocation { file: file.into(), line, column }),
            inlined: table.inline_depth[row] > 0,
            ..names::parse(name)
        };
        if self.is_own {
            frame.bytecode_offset = u32::try_from(table.address[row]).ok();
            let category =
                table.category[row].map(|index| entry("categories", self.categories, index)).transpose()?;
            let is_host = CATEGORIES.iter().any(|(kind, name, _)| {
                *kind == FrameKind::Host && category.is_some_and(|category| category.name == *name)
            });
            if is_host && frame.kind == FrameKind::Guest {
                frame.kind = FrameKind::Host;
            }
        }
        Ok(frame)
    }

    /// The same frame with the module apart from the name.
    fn in_parts(&self, thread: &FileThread, row: usize, frame: &Frame) -> Result<Frame, ProfileError> {
        let resource = thread.func_table.resource[thread.frame_table.func[row] as usize];
        let Ok(resource) = u64::try_from(resource) else { return Ok(frame.clone()) };
        let lib =
            entry("resources", &thread.resource_table.lib, resource)?.and_then(|lib| u64::try_from(lib).ok());
        let Some(lib) = lib else { return Ok(frame.clone()) };
        let module = &entry("libraries", self.libs, lib)?.name;
        let own = frame.name.strip_prefix(&*names::printable(module)).and_then(|rest| rest.strip_prefix('!'));
        Ok(Frame {
            name: own.map_or_else(|| Arc::clone(&frame.name), Arc::from),
            module: Some(module.as_str().into()),
            ..frame.clone()
        })
    }
}

/// Milliseconds from the start.
fn times(samples: &Samples) -> Option<Cow<'_, [f64]>> {
    let deltas = |deltas: &Vec<f64>| {
        let mut now = 0.0;
        let sum = deltas.iter().map(|delta| {
            now += delta;
            now
        });
        sum.collect()
    };
    let times = samples.time.as_deref().map(Cow::Borrowed);
    times.or_else(|| samples.time_deltas.as_ref().map(deltas))
}

fn string(thread: &FileThread, index: u64) -> Result<&str, ProfileError> {
    Ok(entry("strings", &thread.string_array, index)?)
}

fn entry<'e, T>(table: &'static str, entries: &'e [T], index: u64) -> Result<&'e T, ProfileError> {
    bounds::entry(Format::Firefox, table, entries, index)
}

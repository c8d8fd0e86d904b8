//! From a speedscope file of any content to a profile.

use serde_json::Number;

use super::{
    file::{File, FileEvent, FileEventKind, FileFrame, FileProfile},
    malformed,
};
use crate::{
    Event, Format, Frame, FrameId, Origin, Profile, ProfileError, SourceLocation, Tally, Thread,
    bounded::BoundedProfile, bounds, json, names, track,
};

pub(super) fn profile(file: File) -> Result<Profile, ProfileError> {
    bounds::entries("frames", file.shared.frames.len())?;
    let mut profile = BoundedProfile::default();
    let scales: Vec<_> = file.profiles.iter().map(|part| scale(&part.unit)).collect::<Result<_, _>>()?;
    if let [first, rest @ ..] = &scales[..]
        && rest.iter().any(|scale| scale.is_some() != first.is_some())
    {
        return Err(malformed("it has a profile of time and one of something else".to_owned()));
    }
    profile.metadata().event = event(file.event.clone(), &file.profiles, scales.first().copied().flatten());
    profile.metadata().guest = file.name;
    let frames = file.shared.frames.into_iter().map(|frame| profile.intern(model_frame(frame)));
    let frames = frames.collect::<Result<_, _>>()?;
    // A file of ours says the thread wherever it is known.
    let by_thread = file.profiles.len() > 1 && file.event.is_none();
    let mut reader = Reader { frames, profile };
    for (index, (mut part, scale)) in (0..).zip(file.profiles.into_iter().zip(scales)) {
        let thread = match &part.thread {
            Some(thread) => Some((thread.id, thread.name.clone())),
            None => by_thread.then(|| (index, part.name.clone())),
        };
        let thread = thread.map(|(id, name)| Thread { id, name: name.map(Into::into) });
        let thread = thread.map(|thread| reader.profile.intern_thread(thread)).transpose()?;
        let labels = reader.profile.intern_labels(track::from_member(part.labels.take()))?;
        reader.part(part, scale.unwrap_or(1), Origin { thread, labels, slice: None })?;
    }
    Ok(reader.profile.into_profile())
}

/// How many nanoseconds the unit has, or none if it is no time.
fn scale(unit: &str) -> Result<Option<u64>, ProfileError> {
    match unit {
        "nanoseconds" => Ok(Some(1)),
        "microseconds" => Ok(Some(1_000)),
        "milliseconds" => Ok(Some(1_000_000)),
        "seconds" => Ok(Some(1_000_000_000)),
        "bytes" | "none" => Ok(None),
        _ => Err(ProfileError::Value { format: Format::Speedscope, what: "unit", value: unit.to_owned() }),
    }
}

fn event(name: Option<String>, profiles: &[FileProfile], scale: Option<u64>) -> Event {
    match (name, scale) {
        (Some(name), Some(_)) => Event::time(name),
        (Some(name), None) => Event::count(name),
        (None, Some(_)) => Event::time("time"),
        (None, None) if profiles.iter().any(|part| part.unit == "bytes") => Event::count("bytes"),
        (None, None) => Event::default(),
    }
}

fn model_frame(frame: FileFrame) -> Frame {
    let number = |number: Option<Number>| {
        let number = number.and_then(|number| json::amount(&number, 1));
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    };
    let (line, column) = (number(frame.line), number(frame.col));
    let location = frame.file.map(|file| SourceLocation { file: file.into(), line, column });
    Frame { location, ..names::parse(&frame.name) }
}

struct Reader {
    profile: BoundedProfile,
    frames: Vec<FrameId>,
}

impl Reader {
    fn part(&mut self, part: FileProfile, scale: u64, origin: Origin) -> Result<(), ProfileError> {
        match (&*part.kind, part.samples, part.weights, part.events) {
            ("sampled", Some(samples), Some(weights), _) => {
                let counts = part.counts.unwrap_or_else(|| vec![0; samples.len()]);
                self.samples(&samples, &weights, &counts, scale, origin)
            }
            ("evented", _, _, Some(events)) => self.events(&events, &part.end_value, scale, origin),
            ("sampled", ..) => Err(malformed("a sampled profile without samples and weights".to_owned())),
            ("evented", ..) => Err(malformed("an evented profile without events".to_owned())),
            (kind, ..) => Err(malformed(format!("a profile of type `{kind}`"))),
        }
    }

    fn samples(
        &mut self,
        samples: &[Vec<u64>],
        weights: &[Number],
        counts: &[u64],
        scale: u64,
        origin: Origin,
    ) -> Result<(), ProfileError> {
        bounds::positions("samples", samples.len())?;
        if [weights.len(), counts.len()] != [samples.len(); 2] {
            let (weights, counts) = (weights.len(), counts.len());
            let reason = format!("{} samples with {weights} weights and {counts} counts", samples.len());
            return Err(malformed(reason));
        }
        let mut frames = Vec::new();
        for (sample, (weight, &samples)) in samples.iter().zip(weights.iter().zip(counts)) {
            frames.clear();
            for &index in sample {
                frames.push(*bounds::entry(Format::Speedscope, "frames", &self.frames, index)?);
            }
            self.add(&frames, origin, Tally { samples, weight: amount("weight", weight, scale)? })?;
        }
        Ok(())
    }

    /// The time between two events falls on the stack as it is between them.
    fn events(
        &mut self,
        events: &[FileEvent],
        end: &Number,
        scale: u64,
        origin: Origin,
    ) -> Result<(), ProfileError> {
        bounds::positions("events", events.len())?;
        let mut open: Vec<FrameId> = Vec::new();
        let mut now = None;
        for event in events {
            let at = amount("time", &event.at, scale)?;
            self.elapse(&open, origin, now.replace(at).unwrap_or(at), at)?;
            let frame = *bounds::entry(Format::Speedscope, "frames", &self.frames, event.frame)?;
            match event.kind {
                FileEventKind::Open => open.push(frame),
                FileEventKind::Close if open.last() == Some(&frame) => drop(open.pop()),
                FileEventKind::Close => {
                    return Err(malformed(format!("frame {} is left and was not the youngest", event.frame)));
                }
            }
        }
        match now {
            Some(now) if !open.is_empty() => self.elapse(&open, origin, now, amount("time", end, scale)?),
            _ => Ok(()),
        }
    }

    fn elapse(&mut self, open: &[FrameId], origin: Origin, from: u64, to: u64) -> Result<(), ProfileError> {
        match to.checked_sub(from) {
            Some(0) => Ok(()),
            Some(weight) => self.add(open, origin, Tally { samples: 0, weight }),
            None => Err(malformed(format!("an event at {to} after one at {from}"))),
        }
    }

    fn add(&mut self, frames: &[FrameId], origin: Origin, tally: Tally) -> Result<(), ProfileError> {
        if frames.is_empty() {
            let outside = &mut self.profile.metadata().statistics.outside;
            let (total, added) = (outside.weight, tally.weight);
            let overflow = ProfileError::Overflow { what: "weight", total, added };
            *outside = outside.checked_add(tally).ok_or(overflow)?;
            return Ok(());
        }
        self.profile.add_from(frames, origin, tally)?;
        Ok(())
    }
}

fn amount(what: &'static str, number: &Number, scale: u64) -> Result<u64, ProfileError> {
    let refused = || ProfileError::Value { format: Format::Speedscope, what, value: number.to_string() };
    json::amount(number, scale).ok_or_else(refused)
}

//! The file format of [speedscope](https://www.speedscope.app), `.speedscope.json`.
//!
//! # How a profile is written
//! One sampled profile for each thread and each set of labels on it, which are in its name; its samples in the order of
//! their slices of time. If there are more than a hundred such sets, the lighter ones of a thread are together, as
//! `other labels`, and not read back. A frame is a function: a shown name ([`Names`]), with its file if all frames of
//! that name have the same. Weights are nanoseconds, or without unit. They are whole numbers of any size; speedscope itself computes with the 53 bits of JavaScript.
//!
//! The format has no place for a few things that comparisons need. They stand in members that its importer skips:
//! `event`, the name of the event; in each profile `thread`, `labels`, and `counts`, the number of samples behind each
//! weight.
//!
//! # What is read
//! Files of any origin, with sampled and evented profiles. Units of time become nanoseconds. Of several profiles that do
//! not say their thread each is a thread of its own. A sample without frames is time outside the guest.

mod file;
mod read;

use std::io::{BufWriter, Write};

use serde_json::Number;

use self::file::{File, FileFrame, FileProfile, FileThread, Shared};
use crate::{
    Format, Names, Profile, ProfileError, Sample, Thread, Unit, json,
    track::{self, Track},
};

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

/// Writes `profile`. Equal profiles give equal bytes.
///
/// # Errors
/// [`ProfileError::Io`] if `output` fails.
pub fn write(profile: &Profile, output: impl Write) -> Result<(), ProfileError> {
    let names = Names::new(profile);
    let profiles = track::tracks(profile).into_iter().map(|track| file_profile(profile, &names, track));
    let file = File {
        schema: Some(SCHEMA.to_owned()),
        name: profile.metadata.guest.clone(),
        exporter: Some(concat!("flamewalk ", env!("CARGO_PKG_VERSION")).to_owned()),
        event: Some(profile.metadata.event.name.clone()),
        shared: Shared { frames: frames(profile, &names) },
        profiles: profiles.collect(),
    };
    let mut output = BufWriter::new(output);
    serde_json::to_writer(&mut output, &file).map_err(std::io::Error::from)?;
    Ok(output.flush()?)
}

/// One for each name. Without lines: those of a function's frames differ, and what speedscope shows is the function.
fn frames(profile: &Profile, names: &Names) -> Vec<FileFrame> {
    let mut frames: Vec<_> = names
        .all()
        .map(|name| FileFrame { name: name.to_owned(), file: None, line: None, col: None })
        .collect();
    let mut seen = vec![false; frames.len()];
    for (id, frame) in profile.frames() {
        let index = names.id(id).index();
        let file = frame.location.as_ref().map(|location| &*location.file);
        if !std::mem::replace(&mut seen[index], true) {
            frames[index].file = file.map(Into::into);
        } else if frames[index].file.as_deref() != file {
            frames[index].file = None;
        }
    }
    frames
}

fn file_profile(profile: &Profile, names: &Names, mut track: Track) -> FileProfile {
    track.samples.sort_by_key(|sample| sample.origin.slice);
    let samples = track.samples;
    let thread = |Thread { id, name }: &Thread| FileThread { id: *id, name: name.as_deref().map(Into::into) };
    let stack = |sample: &Sample| {
        let frames = profile.stack(sample.stack).frames;
        frames.iter().map(|&frame| names.id(frame).index() as u64).collect()
    };
    let unit = match profile.metadata.event.unit {
        Unit::Nanoseconds => "nanoseconds",
        Unit::Events => "none",
    };
    let end: u64 = samples.iter().map(|sample| sample.tally.weight).sum();
    FileProfile {
        kind: "sampled".to_owned(),
        name: Some(track.name),
        unit: unit.to_owned(),
        start_value: 0.into(),
        end_value: end.into(),
        samples: Some(samples.iter().map(stack).collect()),
        weights: Some(samples.iter().map(|sample| Number::from(sample.tally.weight)).collect()),
        counts: Some(samples.iter().map(|sample| sample.tally.samples).collect()),
        thread: track.thread.map(thread),
        labels: track::to_member(track.labels),
        events: None,
    }
}

/// Reads a file.
///
/// # Errors
/// [`ProfileError::Malformed`], [`ProfileError::Index`] or [`ProfileError::Overflow`] if it is damaged,
/// [`ProfileError::Value`] for a weight or a time that is negative or too large; [`ProfileError::TooLarge`] if it would
/// take too much memory.
pub fn read(content: &[u8]) -> Result<Profile, ProfileError> {
    json::check_size(content)?;
    let file = serde_json::from_slice(content).map_err(|error| malformed(error.to_string()))?;
    read::profile(file)
}

fn malformed(reason: String) -> ProfileError {
    ProfileError::Malformed { format: Format::Speedscope, reason }
}

//! Several profiles as one: of several runs, processes or stretches of time.

use std::time::{Duration, SystemTime};

use flamewalk_profile::{Event, Metadata, Origin, Profile, ProfileError, Statistics, Tally, Unit};

/// More slices of time are not made of profiles that are far apart: longer ones are.
const MOST_SLICES: u32 = 1 << 20;

/// Why profiles cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There is no profile.
    #[error("there is no profile to merge")]
    Nothing,
    /// Weights that mean different things.
    #[error(
        "profile {} is of {}, and the first one of {}", .index + 1, describe(.event), describe(.first)
    )]
    DifferentEvents {
        /// Position of the profile that differs from the first one, from 0.
        index: usize,
        /// Its event.
        event: Event,
        /// The first profile's event.
        first: Event,
    },
    /// The sums do not fit into a profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

fn describe(event: &Event) -> String {
    let unit = match event.unit {
        _ if !event.is_known() => "of unknown unit",
        Unit::Nanoseconds => "time",
        Unit::Events => "a count",
    };
    format!("`{}`, {unit}", flamewalk_profile::printable(&event.name))
}

/// Merges profiles of one event.
///
/// - Stacks, threads and sets of labels that are the same in all respects become one, and sums are sums.
/// - Slices of time get the length of the longest, or longer ones if there would be more than a million, and count
///   from the start of the earliest profile. Profiles that do not say when they started count as started with it.
/// - Metadata that all profiles agree about is kept. Durations add up, and notices are collected.
///
/// # Errors
/// [`MergeError::Nothing`] without profiles; [`MergeError::DifferentEvents`] if their weights mean different things;
/// [`MergeError::Profile`] if the sums exceed 64 bits.
pub fn merge(profiles: &[Profile]) -> Result<Profile, MergeError> {
    let (first, others) = profiles.split_first().ok_or(MergeError::Nothing)?;
    let event = &first.metadata.event;
    if let Some((index, other)) = (1..).zip(others).find(|(_, other)| other.metadata.event != *event) {
        let (event, first) = (other.metadata.event.clone(), event.clone());
        return Err(MergeError::DifferentEvents { index, event, first });
    }
    if others.is_empty() {
        return Ok(first.clone());
    }
    let timeline = Timeline::of(profiles);
    let mut merged = Profile::new(metadata(profiles, timeline.slice)?);
    for profile in profiles {
        let frames: Vec<_> = profile.frames().map(|(_, frame)| merged.intern(frame.clone())).collect();
        let threads: Vec<_> =
            profile.threads().map(|(_, thread)| merged.intern_thread(thread.clone())).collect();
        let labels: Vec<_> =
            profile.label_sets().map(|(_, labels)| merged.intern_labels(labels.clone())).collect();
        let mut stack = Vec::new();
        for sample in profile.samples() {
            let of_profile = profile.stack(sample.stack);
            stack.clear();
            stack.extend(of_profile.frames.iter().map(|frame| frames[frame.index()]));
            let origin = Origin {
                thread: sample.origin.thread.map(|thread| threads[thread.index()]),
                labels: labels[sample.origin.labels.index()],
                slice: sample.origin.slice.and_then(|slice| timeline.slice_of(&profile.metadata, slice)),
            };
            let id = merged.add_from(&stack, origin, sample.tally)?;
            if let Some(headroom) = of_profile.headroom {
                merged.note_headroom(id, headroom);
            }
        }
    }
    Ok(merged)
}

/// Where the slices of all profiles are put.
struct Timeline {
    start: Option<SystemTime>,
    slice: Option<Duration>,
}

impl Timeline {
    fn of(profiles: &[Profile]) -> Self {
        let start = profiles.iter().filter_map(|profile| profile.metadata.start).min();
        let longest = profiles.iter().filter_map(|profile| profile.metadata.slice).max();
        let mut timeline = Self { start, slice: longest.filter(|slice| !slice.is_zero()) };
        let last = profiles.iter().filter_map(|profile| {
            let slice = profile.samples().filter_map(|sample| sample.origin.slice).max()?;
            timeline.time_of(&profile.metadata, slice)
        });
        let last = last.max().unwrap_or_default();
        while let Some(slice) = timeline.slice
            && last.as_nanos() / slice.as_nanos() >= u128::from(MOST_SLICES)
        {
            timeline.slice = slice.checked_mul(2);
        }
        timeline
    }

    /// When a profile's slice started, from the start of the earliest profile on.
    fn time_of(&self, metadata: &Metadata, slice: u32) -> Option<Duration> {
        let since =
            self.start.zip(metadata.start).and_then(|(first, start)| start.duration_since(first).ok());
        since.unwrap_or_default().checked_add(metadata.slice?.checked_mul(slice)?)
    }

    fn slice_of(&self, metadata: &Metadata, slice: u32) -> Option<u32> {
        let number = self.time_of(metadata, slice)?.as_nanos() / self.slice?.as_nanos();
        u32::try_from(number).ok()
    }
}

fn metadata(profiles: &[Profile], slice: Option<Duration>) -> Result<Metadata, ProfileError> {
    let all = || profiles.iter().map(|profile| &profile.metadata);
    let mut merged = Metadata::default();
    merged.event = profiles[0].metadata.event.clone();
    merged.engine = common(all().map(|one| one.engine.clone()));
    merged.asked_rate = common(all().map(|one| one.asked_rate));
    merged.real_rate = common(all().map(|one| one.real_rate));
    merged.period = common(all().map(|one| one.period));
    merged.guest = common(all().map(|one| one.guest.clone()));
    merged.command = common(all().map(|one| Some(one.command.clone()))).unwrap_or_default();
    merged.start = all().filter_map(|one| one.start).min();
    merged.slice = slice;
    let durations: Option<Vec<Duration>> = all().map(|one| one.duration).collect();
    merged.duration =
        durations.and_then(|durations| durations.into_iter().try_fold(Duration::ZERO, Duration::checked_add));
    merged.end = common(all().map(|one| one.end.clone()));
    merged.notices.push(format!("merged from {} profiles", profiles.len()));
    for notice in all().flat_map(|one| &one.notices) {
        if !merged.notices.contains(notice) {
            merged.notices.push(notice.clone());
        }
    }
    for statistics in all().map(|one| &one.statistics) {
        add_statistics(&mut merged.statistics, statistics)?;
    }
    Ok(merged)
}

/// What all have, if it is the same.
fn common<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

fn add_statistics(sum: &mut Statistics, more: &Statistics) -> Result<(), ProfileError> {
    add(&mut sum.ticks, more.ticks)?;
    add(&mut sum.delivered, more.delivered)?;
    add(&mut sum.outside, more.outside)?;
    for (cause, lost) in &more.lost {
        add(sum.lost.entry(cause.clone()).or_default(), *lost)?;
    }
    for (end, walks) in &more.walk_ends {
        add(sum.walk_ends.entry(end.clone()).or_default(), *walks)?;
    }
    Ok(())
}

fn add(sum: &mut Tally, more: Tally) -> Result<(), ProfileError> {
    let overflow = |what, total, added| ProfileError::Overflow { what, total, added };
    *sum = sum.checked_add(more).ok_or_else(|| match sum.samples.checked_add(more.samples) {
        None => overflow("samples", sum.samples, more.samples),
        Some(_) => overflow("weight", sum.weight, more.weight),
    })?;
    Ok(())
}

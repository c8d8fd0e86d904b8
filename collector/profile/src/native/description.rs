//! The metadata of a profile, as the native format stores it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::malformed;
use crate::{EndReason, Event, Memory, Metadata, ProfileError, Resources, Statistics, Tally, Unit};

#[derive(Deserialize, Serialize)]
pub(super) struct Description {
    event: String,
    unit: StoredUnit,
    engine: Option<String>,
    asked_rate: Option<f64>,
    real_rate: Option<f64>,
    period: Option<u64>,
    guest: Option<String>,
    command: Vec<String>,
    start: Option<Time>,
    slice: Option<Duration>,
    duration: Option<Duration>,
    paused: Option<Duration>,
    end: Option<End>,
    notices: Vec<String>,
    ticks: StoredTally,
    delivered: StoredTally,
    outside: StoredTally,
    lost: Vec<(String, StoredTally)>,
    walk_ends: Vec<(String, StoredTally)>,
    resources: StoredResources,
}

#[derive(Deserialize, Serialize)]
struct StoredResources {
    handler_time: Duration,
    ring_high_water: u64,
    ring_size: u64,
    rings: u64,
    stacks: u64,
    tables: u64,
    threads: u64,
    stores: u64,
    images: u64,
}

impl From<Resources> for StoredResources {
    fn from(resources: Resources) -> Self {
        // Named one by one, so that a new field cannot be forgotten.
        let Resources {
            handler_time,
            ring_high_water,
            ring_size,
            memory: Memory { rings, stacks, tables },
            threads,
            stores,
            images,
        } = resources;
        Self { handler_time, ring_high_water, ring_size, rings, stacks, tables, threads, stores, images }
    }
}

impl From<StoredResources> for Resources {
    fn from(stored: StoredResources) -> Self {
        let StoredResources {
            handler_time,
            ring_high_water,
            ring_size,
            rings,
            stacks,
            tables,
            threads,
            stores,
            images,
        } = stored;
        let memory = Memory { rings, stacks, tables };
        Self { handler_time, ring_high_water, ring_size, memory, threads, stores, images }
    }
}

#[derive(Deserialize, Serialize)]
enum StoredUnit {
    Nanoseconds,
    Events,
}

/// A point in time, as its distance from 1970.
#[derive(Deserialize, Serialize)]
enum Time {
    Since(Duration),
    Before(Duration),
}

#[derive(Deserialize, Serialize)]
enum End {
    Finished,
    ExitStatus(i32),
    Trap(String),
    Interrupted,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
pub(super) struct StoredTally {
    samples: u64,
    weight: u64,
}

impl From<Tally> for StoredTally {
    fn from(Tally { samples, weight }: Tally) -> Self {
        Self { samples, weight }
    }
}

impl From<StoredTally> for Tally {
    fn from(StoredTally { samples, weight }: StoredTally) -> Self {
        Self { samples, weight }
    }
}

impl Description {
    pub(super) fn of(metadata: &Metadata) -> Self {
        // Named one by one, so that a new field cannot be forgotten.
        let Metadata {
            event: Event { name, unit },
            engine,
            asked_rate,
            real_rate,
            period,
            guest,
            command,
            start,
            slice,
            duration,
            paused,
            end,
            notices,
            statistics: Statistics { ticks, delivered, outside, lost, walk_ends, resources },
        } = metadata;
        let tallies = |tallies: &BTreeMap<Cow<str>, Tally>| {
            tallies.iter().map(|(name, &tally)| (name.to_string(), tally.into())).collect()
        };
        Self {
            event: name.clone(),
            unit: match unit {
                Unit::Nanoseconds => StoredUnit::Nanoseconds,
                Unit::Events => StoredUnit::Events,
            },
            engine: engine.clone(),
            asked_rate: *asked_rate,
            real_rate: *real_rate,
            period: *period,
            guest: guest.clone(),
            command: command.clone(),
            start: start.map(|start| match start.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => Time::Since(since),
                Err(error) => Time::Before(error.duration()),
            }),
            slice: *slice,
            duration: *duration,
            paused: *paused,
            end: end.as_ref().map(|end| match end {
                EndReason::Finished => End::Finished,
                EndReason::ExitStatus(status) => End::ExitStatus(*status),
                EndReason::Trap(message) => End::Trap(message.clone()),
                EndReason::Interrupted => End::Interrupted,
            }),
            notices: notices.clone(),
            ticks: (*ticks).into(),
            delivered: (*delivered).into(),
            outside: (*outside).into(),
            lost: tallies(lost),
            walk_ends: tallies(walk_ends),
            resources: (*resources).into(),
        }
    }

    pub(super) fn into_metadata(self) -> Result<Metadata, ProfileError> {
        let start = match self.start {
            Some(Time::Since(since)) => SystemTime::UNIX_EPOCH.checked_add(since),
            Some(Time::Before(before)) => SystemTime::UNIX_EPOCH.checked_sub(before),
            None => None,
        };
        if self.start.is_some() && start.is_none() {
            return Err(malformed(&"it started at a time that this system cannot hold"));
        }
        let tallies = |tallies: Vec<(String, StoredTally)>| {
            tallies.into_iter().map(|(name, tally)| (name.into(), tally.into())).collect()
        };
        Ok(Metadata {
            event: Event {
                name: self.event,
                unit: match self.unit {
                    StoredUnit::Nanoseconds => Unit::Nanoseconds,
                    StoredUnit::Events => Unit::Events,
                },
            },
            engine: self.engine,
            asked_rate: self.asked_rate,
            real_rate: self.real_rate,
            period: self.period,
            guest: self.guest,
            command: self.command,
            start,
            slice: self.slice,
            duration: self.duration,
            paused: self.paused,
            end: self.end.map(|end| match end {
                End::Finished => EndReason::Finished,
                End::ExitStatus(status) => EndReason::ExitStatus(status),
                End::Trap(message) => EndReason::Trap(message),
                End::Interrupted => EndReason::Interrupted,
            }),
            notices: self.notices,
            statistics: Statistics {
                ticks: self.ticks.into(),
                delivered: self.delivered.into(),
                outside: self.outside.into(),
                lost: tallies(self.lost),
                walk_ends: tallies(self.walk_ends),
                resources: self.resources.into(),
            },
        })
    }
}

//! What became of the ticks and what the profiler takes, as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use flamewalk::profile::{Statistics, Tally};
use flamewalk::{Error, Profiler};
use serde_json::{Map, Value, json};

/// Times are in nanoseconds, sizes in bytes. Without a profiler that is running there are no `statistics`: what is
/// sampled for a request only is in its profile.
pub(crate) fn json(profiler: &Profiler, requests: Value) -> Result<Value, Error> {
    let statistics = match profiler.statistics() {
        Ok(statistics) => Some(statistics),
        Err(Error::NotRunning) => None,
        Err(error) => return Err(error),
    };
    Ok(json!({
        "running": statistics.is_some(),
        "paused": profiler.is_paused(),
        "rate": profiler.rate()?,
        "requests": requests,
        "statistics": statistics.as_ref().map(of_statistics),
    }))
}

fn of_statistics(statistics: &Statistics) -> Value {
    let resources = &statistics.resources;
    let memory = &resources.memory;
    json!({
        "ticks": tally(&statistics.ticks),
        "delivered": tally(&statistics.delivered),
        "outside": tally(&statistics.outside),
        "lost": tallies(&statistics.lost),
        "walk_ends": tallies(&statistics.walk_ends),
        "resources": {
            "handler_time": u64::try_from(resources.handler_time.as_nanos()).unwrap_or(u64::MAX),
            "ring_high_water": resources.ring_high_water,
            "ring_size": resources.ring_size,
            "memory": { "rings": memory.rings, "stacks": memory.stacks, "tables": memory.tables },
            "threads": resources.threads,
            "stores": resources.stores,
            "images": resources.images,
        },
    })
}

fn tally(tally: &Tally) -> Value {
    json!({ "samples": tally.samples, "weight": tally.weight })
}

fn tallies(tallies: &BTreeMap<Cow<'static, str>, Tally>) -> Value {
    Value::Object(tallies.iter().map(|(name, of)| (name.to_string(), tally(of))).collect::<Map<_, _>>())
}

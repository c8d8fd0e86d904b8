//! What the JSON of all commands that list figures of one profile has in common.

use flamewalk::profile::{EndReason, Profile, Tally};
use serde_json::{Map, Value, json};

/// An object with what is known about the profile, to which a command adds what it lists. `format` names that list and
/// its version: it changes whenever a member loses its meaning or its name; members may be added without a change.
pub(crate) fn about(format: &str, profile: &Profile) -> Value {
    let metadata = &profile.metadata;
    let statistics = &metadata.statistics;
    let lost: Map<_, _> =
        statistics.lost.iter().map(|(cause, lost)| (cause.to_string(), tally(*lost))).collect();
    json!({
        "format": format,
        "event": { "name": metadata.event.name, "unit": metadata.event.unit_name() },
        "guest": metadata.guest,
        "command": metadata.command,
        "engine": metadata.engine,
        "rate": metadata.real_rate.or(metadata.asked_rate),
        "period": metadata.period,
        "seconds": metadata.duration.map(|duration| duration.as_secs_f64()),
        "end": metadata.end.as_ref().map(EndReason::to_string),
        "samples": profile.total().samples,
        "weight": profile.total().weight,
        "ticks": tally(statistics.ticks),
        "outside": tally(statistics.outside),
        "lost": lost,
        "notices": metadata.notices,
    })
}

fn tally(tally: Tally) -> Value {
    json!({ "samples": tally.samples, "weight": tally.weight })
}

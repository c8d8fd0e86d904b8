//! `flamewalk report`: what costs most in a profile, as a table or as JSON, and conversion to any format.

use flamewalk::profile::{EndReason, FrameKind, Headroom, Profile, Tally, Unit};
use flamewalk_flamegraphs::{By, breakdown, headroom, hottest, summary};
use serde_json::{Value, json};

use crate::arguments::{Report, ReportBy};
use crate::failure::Failure;
use crate::input;
use crate::output::Output;
use crate::sources::Sources;
use crate::terminal;

/// Changes whenever a field loses its meaning or its name; fields may be added without a change.
const JSON_FORMAT: &str = "flamewalk report 1";

pub(crate) fn report(arguments: &Report) -> Result<u8, Failure> {
    let sources = Sources::new(&arguments.outputs.source_directories)?;
    let outputs = Output::open_all(&arguments.outputs.outputs)?;
    let profile = input::read(&arguments.profile, &arguments.filter.filter())?;
    for output in &outputs {
        output.write(&profile, &sources)?;
    }
    if arguments.quiet {
        return Ok(0);
    }
    if arguments.json {
        terminal::print(format_args!("{:#}\n", document(&profile, arguments)))?;
    } else {
        terminal::print(format_args!("{}\n{}", summary(&profile), table(&profile, arguments)))?;
    }
    terminal::report_quality(&profile.metadata);
    outputs.iter().for_each(|output| eprintln!("flamewalk: wrote {}", output.path().display()));
    Ok(0)
}

fn by(by: &ReportBy) -> Option<By> {
    match by {
        ReportBy::Function => None,
        ReportBy::Thread => Some(By::Thread),
        ReportBy::Module => Some(By::Module),
        ReportBy::Label(key) => Some(By::Label(key.clone())),
    }
}

fn table(profile: &Profile, arguments: &Report) -> String {
    let columns = terminal::columns(&std::io::stdout());
    if arguments.stack {
        let mut table = headroom(profile, arguments.top);
        table.columns = columns;
        return table.to_string();
    }
    match by(&arguments.by) {
        Some(by) => {
            let mut table = breakdown(profile, by);
            table.parts.truncate(arguments.top);
            table.columns = columns;
            table.to_string()
        }
        None => {
            let mut table = hottest(profile, arguments.top);
            table.columns = columns;
            table.to_string()
        }
    }
}

fn document(profile: &Profile, arguments: &Report) -> Value {
    let metadata = &profile.metadata;
    let statistics = &metadata.statistics;
    let lost: serde_json::Map<_, _> =
        statistics.lost.iter().map(|(cause, lost)| (cause.to_string(), tally(*lost))).collect();
    let unit = match metadata.event.unit {
        Unit::Nanoseconds => "nanoseconds",
        Unit::Events => "events",
    };
    let mut document = json!({
        "format": JSON_FORMAT,
        "event": { "name": metadata.event.name, "unit": unit },
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
    });
    let (key, rows) = rows(profile, arguments);
    document[key] = rows;
    document
}

/// The table's rows, and what they are called.
fn rows(profile: &Profile, arguments: &Report) -> (&'static str, Value) {
    if arguments.stack {
        let extremes =
            |room: Headroom| json!({ "deepest_use": room.deepest_use, "least_left": room.least_left });
        let table = headroom(profile, arguments.top);
        let rows = table.rows.into_iter().map(|row| {
            let own = row.own.map(extremes);
            json!({ "name": row.name, "kind": kind(row.kind), "self": own, "total": extremes(row.total) })
        });
        return ("stack", rows.collect());
    }
    let Some(by) = by(&arguments.by) else {
        let rows = hottest(profile, arguments.top).rows.into_iter().map(|row| {
            json!({
                "name": row.name,
                "kind": kind(row.kind),
                "self_weight": row.self_weight,
                "self_share": row.self_share,
                "total_weight": row.total_weight,
                "total_share": row.total_share,
            })
        });
        return ("functions", rows.collect());
    };
    let parts = breakdown(profile, by).parts.into_iter().take(arguments.top).map(|part| {
        json!({
            "name": part.name,
            "samples": part.tally.samples,
            "weight": part.tally.weight,
            "share": part.share,
        })
    });
    ("parts", parts.collect())
}

fn tally(tally: Tally) -> Value {
    json!({ "samples": tally.samples, "weight": tally.weight })
}

fn kind(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Guest => "guest",
        FrameKind::HostCall => "host call",
        FrameKind::Builtin => "builtin",
        FrameKind::Host => "host",
        FrameKind::Truncated => "truncated",
    }
}

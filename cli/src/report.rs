//! `flamewalk report`: what costs most in a profile, as a table or as JSON, and conversion to any format.

use flamewalk::profile::{FrameKind, Headroom, Profile};
use flamewalk_flamegraphs::{By, breakdown, headroom, hottest, summary};
use serde_json::{Value, json};

use crate::arguments::{ListFormat, Report, ReportBy};
use crate::failure::Failure;
use crate::input;
use crate::json;
use crate::output::{Output, Written};
use crate::sources::Sources;
use crate::terminal;

/// See [`json::about`].
const JSON_FORMAT: &str = "flamewalk report 1";

pub(crate) fn report(arguments: &Report) -> Result<u8, Failure> {
    let sources = Sources::new(&arguments.outputs.source_directories)?;
    let outputs = Output::open_all(&arguments.outputs.outputs, arguments.outputs.graph.orientation())?;
    let profile = input::read(&arguments.profile, &arguments.filter.filter())?;
    let written = Written::profile(&outputs, &profile, &sources);
    if arguments.quiet {
        return written.result().map(|()| 0);
    }
    match arguments.format {
        _ if outputs.iter().any(Output::is_standard) => {}
        ListFormat::Json => terminal::print(format_args!("{:#}\n", document(&profile, arguments)))?,
        ListFormat::Text => {
            terminal::print(format_args!("{}\n{}", summary(&profile), table(&profile, arguments)))?;
        }
    }
    terminal::report_quality(&profile.metadata);
    written.say();
    written.result().map(|()| 0)
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
    let mut document = json::about(JSON_FORMAT, profile);
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

fn kind(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Guest => "guest",
        FrameKind::HostCall => "host call",
        FrameKind::Builtin => "builtin",
        FrameKind::Host => "host",
        FrameKind::Truncated => "truncated",
    }
}

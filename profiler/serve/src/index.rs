//! The page that lists what there is.

use crate::on_demand::Options;
use crate::request::Kind;

pub(crate) fn html(options: &Options) -> String {
    let seconds = options.duration.min(options.max_duration).as_secs_f64();
    let rows: String = Kind::ALL
        .into_iter()
        .map(|kind| {
            let name = kind.name();
            let short = seconds.min(5.0);
            format!(
                "<tr><td><a href=\"{name}?seconds={short}\">{name}</a></td><td>{}</td></tr>\n",
                description(kind)
            )
        })
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>flamewalk</title>\n\
         <style>body {{ font-family: sans-serif; margin: 2em }} td {{ padding: 0.2em 1em 0.2em 0 }}</style></head>\n\
         <body><h1>Profiles of WebAssembly guests</h1>\n<table>\n{rows}\
         <tr><td><a href=\"stats\">stats</a></td><td>what became of the ticks and what the profiler takes, as JSON</td></tr>\n\
         </table>\n\
         <p>Parameters: <code>seconds=N</code>, how long to sample ({seconds} without it, {} at most); <code>hz=N</code>, \
         at which rate; <code>label=KEY=VALUE</code>, only what was sampled in stores with this label.</p>\n\
         <p><code>go tool pprof -http=: 'http://HOST:PORT{}profile?seconds=5'</code></p></body></html>\n",
        options.max_duration.as_secs_f64(),
        options.index(),
    )
}

fn description(kind: Kind) -> &'static str {
    match kind {
        Kind::Pprof => "a profile for <code>go tool pprof</code>",
        Kind::Flamegraph => "a flame graph",
        Kind::Report => "a report: flame graph, callers and callees, functions, source lines",
        Kind::Folded => "folded stacks",
        Kind::Native => "a profile for the <code>flamewalk</code> command",
    }
}

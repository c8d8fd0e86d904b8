//! The command line.

mod attach;
mod filter;
mod reading;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use flamewalk_flamegraphs::Orientation;

pub(crate) use attach::Attach;
pub(crate) use filter::FilterArguments;
pub(crate) use reading::{Annotate, Diff, DiffFormat, DiffShape, ListFormat, Merge, Report, ReportBy, View};
pub(crate) use run::Run;

const EXAMPLES: &str = "\
Examples:
  flamewalk run -o a.flamewalk guest.wasm        profile a guest
  flamewalk attach PID -d 30 -o a.flamewalk      profile the guests of a running program
  flamewalk report a.flamewalk -o a.svg          list its hottest functions, and draw a flame graph
  flamewalk annotate a.flamewalk parse           a function line by line
  flamewalk diff a.flamewalk b.flamewalk         what changed between two builds

Every command has its own --help, with examples.";

/// Profile WebAssembly guests on Wasmtime, and read the profiles.
#[derive(Debug, Parser)]
#[command(name = "flamewalk", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Attach(Attach),
    Report(Report),
    Annotate(Annotate),
    Diff(Diff),
    Merge(Merge),
    View(View),
}

/// Where a profile is written.
#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// Where to write the profile; may be given several times. The ending chooses the format: .flamewalk (everything that
    /// is known), .html (report), .svg (flame graph), .folded (folded stacks), .pb.gz (pprof), .json.gz (Firefox
    /// Profiler), .speedscope.json. - is standard output, which gets folded stacks
    #[arg(short, long = "output", value_name = "OUT")]
    pub(crate) outputs: Vec<PathBuf>,

    /// Take source texts for an .html report from this directory; may be given several times
    #[arg(long = "source-dir", value_name = "DIR")]
    pub(crate) source_directories: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) graph: Graph,
}

/// How flame graphs are drawn.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Graph {
    /// Draw an .svg upside down, as an icicle graph: callers above what they call
    #[arg(long)]
    icicle: bool,
}

impl Graph {
    pub(crate) fn orientation(self) -> Orientation {
        if self.icicle { Orientation::Icicles } else { Orientation::Flames }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}

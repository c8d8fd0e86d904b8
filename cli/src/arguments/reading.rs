//! The command lines of what reads profiles.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::{FilterArguments, Graph, Outputs};

const REPORT_EXAMPLES: &str = "\
Examples:
  flamewalk report a.flamewalk                          the hottest functions
  flamewalk report a.flamewalk --by label:tenant        what each tenant costs
  flamewalk report a.flamewalk --stack                  how deep the stack was, and in what
  flamewalk report a.flamewalk --format json --top 3    for a script
  flamewalk report a.flamewalk --focus '^parse' --from 1.5s --to 3s
  flamewalk report a.flamewalk -q -o a.svg -o a.folded  convert

Exit status: 0; 125 if flamewalk could not do what it was asked to.";

/// List what costs most in a profile, or convert it.
///
/// PROFILE is a file in any format that flamewalk writes and that keeps enough; its content tells which. The table goes
/// to standard output, what makes the profile poorer than it could be to standard error.
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub(crate) struct Report {
    /// The profile; - for standard input
    #[arg(value_name = "PROFILE")]
    pub(crate) profile: PathBuf,

    #[command(flatten)]
    pub(crate) outputs: Outputs,

    /// What to list: function, thread, module, or label:KEY for the values of a label
    #[arg(long, value_name = "WHAT", default_value = "function")]
    pub(crate) by: ReportBy,

    /// List how many bytes of the stack were in use and left: where a function was the youngest frame, and in all
    #[arg(long, conflicts_with = "by")]
    pub(crate) stack: bool,

    /// List this many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,

    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: ListFormat,

    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) filter: FilterArguments,
}

/// How a list of figures is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For the terminal
    Text,
    /// One object with all figures
    Json,
}

/// What the rows of a report are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReportBy {
    Function,
    Thread,
    Module,
    Label(String),
}

impl FromStr for ReportBy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text, text.strip_prefix("label:")) {
            ("function", _) => Self::Function,
            ("thread", _) => Self::Thread,
            ("module", _) => Self::Module,
            (_, Some(key)) if !key.is_empty() => Self::Label(key.to_owned()),
            _ => return Err("use function, thread, module or label:KEY"),
        })
    }
}

const ANNOTATE_EXAMPLES: &str = "\
Examples:
  flamewalk annotate a.flamewalk parse --source-dir .            source lines with their text
  flamewalk annotate a.flamewalk parse --wat --guest guest.wasm  instructions of the bytecode
  flamewalk annotate a.flamewalk parse --machine --guest guest.wasm
  flamewalk annotate a.flamewalk parse --format json             for a script

JSON is one object. `function`, `self_weight`, `self_share`, `total_weight` and `total_share` are the function's;
`listings` has a file (`file`, and `text_file` if its text was taken from another path), or with --wat and --machine a function of the guest (`module`, `function_index`), each with
its `lines`: `line`, a number, or `offset`, in bytes of the guest's binary or of the text of its machine code; `text`; and
the same four figures. `no_line` is what fell on no known source line. Weights are in the unit of `event`, shares are of
the whole profile's `weight`, from 0 to 1. The rest is as in `report --format json`.

Exit status: 0; 125 if flamewalk could not do what it was asked to.";

/// Show what a function costs, line by line or instruction by instruction.
///
/// FUNCTION is a name as reports show it, or a part of one that no other has. SELF is what was spent there, TOTAL
/// includes what is called from there; for instructions, SELF includes the functions that the guest's compiler inlined.
/// Shares are those of the whole profile. A thread is between two instructions when it is sampled: what an instruction
/// waits for counts for the one that waits.
#[derive(Debug, Args)]
#[command(after_help = ANNOTATE_EXAMPLES)]
pub(crate) struct Annotate {
    /// The profile; - for standard input
    #[arg(value_name = "PROFILE")]
    pub(crate) profile: PathBuf,

    /// The function
    #[arg(value_name = "FUNCTION")]
    pub(crate) function: String,

    /// Look for source files here, by as much of their paths as there is: at least by the file and its directory, and in the
    /// standard library and dependencies by the package too; may be given several times
    #[arg(long = "source-dir", value_name = "DIR")]
    pub(crate) source_directories: Vec<PathBuf>,

    /// Show the function's bytecode as text
    #[arg(long, requires = "guest")]
    pub(crate) wat: bool,

    /// Show the function's machine code; a guest that is a binary is compiled again as `run` does
    #[arg(long, requires = "guest", conflicts_with = "wat")]
    pub(crate) machine: bool,

    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: ListFormat,

    /// The guest that was profiled: .wasm, .wat, or for --machine .cwasm, which is not run
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) filter: FilterArguments,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  flamewalk diff old.flamewalk new.flamewalk
  flamewalk diff --base a1.flamewalk --base a2.flamewalk --new b1.flamewalk --new b2.flamewalk
  flamewalk diff old.flamewalk new.flamewalk --fail-above 5 --format markdown -o diff.svg
  flamewalk diff old.flamewalk new.flamewalk --work 1000 --work 1200   cost per request
  flamewalk diff old.folded new.folded --period 1                     folded stacks whose values are samples

Exit status: 0; 1 if something rose by more than --fail-above and beyond noise; 125 if flamewalk could not do
what it was asked to, or with --fail-above cannot know what is noise.";

/// Compare the profiles of two builds, or of two runs.
///
/// A change is called significant only if it is beyond what chance explains, corrected for how many functions are
/// looked at. Several profiles a side are repeated runs, which show how runs differ by themselves.
#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct Diff {
    /// A profile of the base and one of the new build
    #[arg(value_name = "PROFILE", num_args = 2, value_names = ["BASE", "NEW"], conflicts_with_all = ["base", "new"])]
    pub(crate) profiles: Vec<PathBuf>,

    /// A profile of the base; may be given several times
    #[arg(long, value_name = "PROFILE", requires = "new", required_unless_present = "profiles")]
    pub(crate) base: Vec<PathBuf>,

    /// A profile of the new build; may be given several times
    #[arg(long, value_name = "PROFILE", requires = "base")]
    pub(crate) new: Vec<PathBuf>,

    /// Units of work, such as requests, that each profile did: once for both sides, or twice, for the base and for the
    /// new build. Then cost per unit is compared
    #[arg(long, value_name = "N")]
    pub(crate) work: Vec<f64>,

    /// What one sample weighs, for files that hold neither the number of their samples nor their period, as folded stacks: 1
    /// if their values are numbers of samples, 1000000 if they are nanoseconds and a sample was taken each millisecond.
    /// Without it nothing in them is tested; with less than the truth, noise is called significant
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) period: Option<u64>,

    /// Exit with status 1 if a function's share (with --work, its cost as a share of the base's) rose by more percent
    /// than this, beyond noise
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) fail_above: Option<f64>,

    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: DiffFormat,

    /// How often chance may make something look significant that is not, in all comparisons of the same build
    #[arg(long, value_name = "PERCENT", value_parser = error_rate, default_value = "5")]
    pub(crate) error_rate: f64,

    /// Where to draw the comparison; may be given several times: .svg (flame graph) or .html (report of both builds)
    #[arg(short, long = "output", value_name = "OUT")]
    pub(crate) outputs: Vec<PathBuf>,

    /// Which call paths a flame graph shows
    #[arg(long, value_name = "SHAPE", default_value = "new")]
    pub(crate) shape: DiffShape,

    #[command(flatten)]
    pub(crate) graph: Graph,

    /// Take source texts for an .html report from this directory; may be given several times
    #[arg(long = "source-dir", value_name = "DIR")]
    pub(crate) source_directories: Vec<PathBuf>,

    /// List this many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,

    /// Print nothing but errors, and what --fail-above fails for
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) filter: FilterArguments,
}

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffFormat {
    /// A table for the terminal
    Text,
    /// One object with all figures
    Json,
    /// For a pull request
    Markdown,
}

/// The call paths of a differential flame graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffShape {
    /// Those of the new build
    New,
    /// Those of the base
    Base,
    /// Those of the base that are not in the new build
    Vanished,
}

/// A percentage with or without its sign, as a share.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().parse::<f64>();
    match number {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent / 100.0),
        _ => Err("a percentage is a number of 0 or more, as in 5 or 2.5%".to_owned()),
    }
}

/// A percentage that may be the probability of an error.
fn error_rate(text: &str) -> Result<f64, String> {
    match percent(text)? {
        share if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("an error rate is more than 0 % and less than 100 %".to_owned()),
    }
}

const MERGE_EXAMPLES: &str = "\
Examples:
  flamewalk merge run1.flamewalk run2.flamewalk -o all.flamewalk
  flamewalk merge *.flamewalk --thread worker -o workers.svg

Exit status: 0; 125 if flamewalk could not do what it was asked to.";

/// Merge profiles of several runs, processes or stretches of time into one.
#[derive(Debug, Args)]
#[command(after_help = MERGE_EXAMPLES)]
pub(crate) struct Merge {
    /// The profiles
    #[arg(value_name = "PROFILE", required = true)]
    pub(crate) profiles: Vec<PathBuf>,

    /// Where to write the merged profile; may be given several times. The ending chooses the format, as for `run`
    #[arg(short, long = "output", value_name = "OUT", required = true)]
    pub(crate) outputs: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) graph: Graph,

    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) filter: FilterArguments,
}

const VIEW_EXAMPLES: &str = "\
Examples:
  flamewalk view a.flamewalk                      opens the report in a browser
  flamewalk view a.flamewalk --source-dir src     with the source texts found there
  flamewalk view a.flamewalk --no-open            prints where the report is

Exit status: 0; 125 if flamewalk could not do what it was asked to.";

/// Look at a profile in a browser.
///
/// The report is one file, which needs no network and is written to the directory for temporary files. It is opened with
/// $BROWSER, or with xdg-open.
#[derive(Debug, Args)]
#[command(after_help = VIEW_EXAMPLES)]
pub(crate) struct View {
    /// The profile; - for standard input
    #[arg(value_name = "PROFILE")]
    pub(crate) profile: PathBuf,

    /// Only print the path of the report
    #[arg(long)]
    pub(crate) no_open: bool,

    /// Take source texts from this directory; may be given several times
    #[arg(long = "source-dir", value_name = "DIR")]
    pub(crate) source_directories: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) filter: FilterArguments,
}

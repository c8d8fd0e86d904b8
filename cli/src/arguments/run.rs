//! The command line of `flamewalk run`.

use std::path::PathBuf;

use clap::Args;
use flamewalk::{Event, defaults};

use super::Outputs;

const RUN_EXAMPLES: &str = "\
Examples:
  flamewalk run -o profile.svg guest.wasm             a flame graph of a WASI command
  flamewalk run -o a.svg -o a.folded guest.wasm -- 3  two outputs; the guest gets the argument 3
  flamewalk run --dir . --env HOME=/ python.wasm app.py
  flamewalk run --event page-faults -o faults.svg guest.wasm
  flamewalk run --invoke fib module.wasm 30           call an export

Exit status: the guest's; 134 if it trapped; 130 if interrupted; 125 if flamewalk itself failed, or saw no sample of
a guest that succeeded.";

/// Run a guest and profile it.
///
/// GUEST is a WASI preview 1 command, a WASI preview 2 component that exports `wasi:cli/run`, or with --invoke
/// any module; as a binary, as text (.wat), or compiled ahead of time (.cwasm). Its standard input and output are
/// the command's own. The hottest functions are listed on standard error afterwards.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) outputs: Outputs,

    /// Samples per second of what the event measures
    #[arg(long = "freq", value_name = "HZ", default_value_t = defaults::RATE)]
    pub(crate) rate: u32,

    /// What to sample: cpu, wall, cpu-timer, or a perf event such as page-faults, context-switches or cycles
    #[arg(long, value_name = "EVENT", default_value_t = Event::Cpu)]
    pub(crate) event: Event,

    /// Frames to keep of a stack; of longer ones the youngest are kept
    #[arg(long, value_name = "FRAMES", default_value_t = defaults::FRAME_LIMIT)]
    pub(crate) frame_limit: usize,

    /// Show native functions of the host, too: flamewalk's own, Wasmtime's, and those of the system's libraries
    #[arg(long)]
    pub(crate) host_frames: bool,

    /// Give the guest a directory of the host, under the same name or another
    #[arg(long = "dir", value_name = "HOST[::GUEST]")]
    pub(crate) directories: Vec<String>,

    /// Set an environment variable for the guest, or pass on the command's own
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) environment: Vec<String>,

    /// Call this export instead of the guest's own start
    #[arg(long, value_name = "EXPORT")]
    pub(crate) invoke: Option<String>,

    /// Take names and lines from this binary, which has the guest's code and symbols that the guest lacks
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Option<PathBuf>,

    /// Run machine code that was compiled ahead of time; only for files that you trust like a program
    #[arg(long)]
    pub(crate) allow_precompiled: bool,

    /// List this many of the hottest functions afterwards
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,

    /// Print nothing but the guest's output and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The guest
    #[arg(value_name = "GUEST")]
    pub(crate) guest: PathBuf,

    /// Arguments for the guest
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

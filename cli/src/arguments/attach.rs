//! The command line of `flamewalk attach`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flamewalk_attach::defaults;

use super::Outputs;
use super::filter::time;

const ATTACH_EXAMPLES: &str = "\
Examples:
  flamewalk attach 4711 -d 30 -o profile.svg         thirty seconds of a running server
  flamewalk attach 4711 --top                        what runs now, until Ctrl-C or q
  flamewalk attach 4711 -d 10 --symbols guest.wasm -o a.flamewalk
  flamewalk attach 4711 --tid 4720 --host-frames -o thread.svg
  flamewalk attach $(pidof my-server) -o profile.folded

What it needs: x86-64 Linux, a process of one's own, kernel.perf_event_paranoid of 2 or less.

Exit status: 0, also if the process ends or Ctrl-C is pressed meanwhile; 125 if flamewalk failed or saw no guest.";

/// Profile a running program that embeds Wasmtime, from outside.
///
/// The program needs no preparation: it is neither restarted nor stopped, and any recent version of Wasmtime will do. CPU
/// time is sampled. The hottest functions are listed on standard error afterwards. Without -d, Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) outputs: Outputs,

    /// How long to sample, in seconds or with a unit, as in 30, 500ms or 2m
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Samples per second of CPU time of each thread
    #[arg(long = "freq", value_name = "HZ", default_value_t = defaults::RATE)]
    pub(crate) rate: u32,

    /// Sample this thread only; may be given several times
    #[arg(long = "tid", value_name = "TID")]
    pub(crate) threads: Vec<i32>,

    /// Frames to keep of a stack; of longer ones the youngest are kept
    #[arg(long, value_name = "FRAMES", default_value_t = defaults::FRAME_LIMIT)]
    pub(crate) frame_limit: usize,

    /// Bytes to copy of a stack at each sample, up to 64512; what lies deeper is missing
    #[arg(long, value_name = "BYTES", default_value_t = defaults::STACK_BYTES)]
    pub(crate) stack_bytes: u32,

    /// Show native functions of the host, too: the program's own, Wasmtime's, and those of the system's libraries
    #[arg(long)]
    pub(crate) host_frames: bool,

    /// Take names, lines and imports from this binary for guests that were compiled from it; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Vec<PathBuf>,

    /// Begin although the process has no code of a guest yet
    #[arg(long)]
    pub(crate) wait: bool,

    /// Show the hottest functions on the terminal while sampling, anew each second
    #[arg(long = "top")]
    pub(crate) live: bool,

    /// List this many of the hottest functions
    #[arg(long = "rows", value_name = "N", default_value_t = 20)]
    pub(crate) rows: usize,

    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "live")]
    pub(crate) quiet: bool,

    /// The process
    #[arg(value_name = "PID")]
    pub(crate) pid: i32,
}

/// A time as elsewhere, or a plain number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match time(&if is_number { format!("{text}s") } else { text.to_owned() })? {
        Duration::ZERO => Err("there is nothing to sample in no time".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, milliseconds) in [("30", 30_000), ("1.5s", 1_500), ("500ms", 500), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in ["", "s", "0", "-1", "1 year", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}

//! The command line of `flamewalk attach`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flamewalk_attach::defaults;

use super::Outputs;
use super::filter::{label, time};

const ATTACH_EXAMPLES: &str = "\
Examples:
  flamewalk attach 4711 -d 30 -o profile.svg         thirty seconds of a running server
  flamewalk attach 4711 --top                        what runs now, until Ctrl-C or q
  flamewalk attach 4711 -d 10 --symbols guest.wasm -o a.flamewalk
  flamewalk attach 4711 --tid 4720 --host-frames -o thread.svg
  flamewalk attach 4711 --label tenant=acme -o acme.svg   of a server that has flamewalk inside
  flamewalk attach $(pidof my-server) -o profile.folded

What it needs: a process of one's own. From outside: x86-64 Linux, kernel.perf_event_paranoid of 2 or less.

Exit status: 0, also if the process ends or Ctrl-C is pressed meanwhile; 125 if flamewalk failed or saw no guest.";

/// The options that mean nothing inside of the program, whose profiler was set up by the program.
const FROM_OUTSIDE: [&str; 7] =
    ["outside", "threads", "frame_limit", "stack_bytes", "host_frames", "symbols", "wait"];

/// Profile a running program that embeds Wasmtime.
///
/// The program needs no preparation: it is neither restarted nor stopped, and any version of Wasmtime from 14 on will do. From
/// outside, CPU time is sampled. A program that has flamewalk inside and offers profiles (flamewalk_serve::Server::offer)
/// is asked for them instead: it knows labels and imports, too. The hottest functions are listed on standard error
/// afterwards. Without -d, Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) outputs: Outputs,

    /// How long to sample, in seconds or with a unit, as in 30, 500ms or 2m
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    #[arg(long = "freq", value_name = "HZ", help = format!(
        "Samples per second of CPU time of each thread [default: {} from outside, the program's own from inside]",
        defaults::RATE,
    ))]
    pub(crate) rate: Option<u32>,

    /// Ask the program for profiles, by the profiler that it has inside, or fail
    #[arg(long, conflicts_with_all = FROM_OUTSIDE)]
    pub(crate) inside: bool,

    /// Sample from outside although the program offers profiles
    #[arg(long)]
    pub(crate) outside: bool,

    /// Profile stores with this label only, from inside; may be given several times with other keys, and then stores with all
    /// of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, conflicts_with_all = FROM_OUTSIDE)]
    pub(crate) labels: Vec<(String, String)>,

    /// Sample this thread only, from outside; may be given several times
    #[arg(long = "tid", value_name = "TID")]
    pub(crate) threads: Vec<i32>,

    #[arg(long, value_name = "FRAMES", help = format!(
        "Frames to keep of a stack, from outside; of longer ones the youngest are kept [default: {}]",
        defaults::FRAME_LIMIT,
    ))]
    pub(crate) frame_limit: Option<usize>,

    #[arg(long, value_name = "BYTES", help = format!(
        "Bytes to copy of a stack at most at each sample from outside, up to 64512: 8192 at first, more once stacks are seen \
         to be deeper; what lies deeper still is missing [default: {}]",
        defaults::STACK_BYTES,
    ))]
    pub(crate) stack_bytes: Option<u32>,

    /// Show native functions of the host, too, from outside: the program's own, Wasmtime's, and those of the system's libraries
    #[arg(long)]
    pub(crate) host_frames: bool,

    /// Take names, lines and imports from this binary for guests that were compiled from it, from outside; may be given
    /// several times
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Vec<PathBuf>,

    /// Begin although the process has no code of a guest yet, from outside
    #[arg(long)]
    pub(crate) wait: bool,

    /// Show the hottest functions on the terminal while sampling, anew each second; --rows is how many
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

impl Attach {
    /// The first option that is given and can only be followed from outside.
    pub(crate) fn needs_outside(&self) -> Option<&'static str> {
        let given = [
            ("--outside", self.outside),
            ("--tid", !self.threads.is_empty()),
            ("--frame-limit", self.frame_limit.is_some()),
            ("--stack-bytes", self.stack_bytes.is_some()),
            ("--host-frames", self.host_frames),
            ("--symbols", !self.symbols.is_empty()),
            ("--wait", self.wait),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }
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

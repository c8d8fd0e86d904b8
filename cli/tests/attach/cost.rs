//! What being attached to costs a program: time, and stops.
//!
//! Measures blocks of a second each in turn with and without an attached flamewalk, so that what else the machine does shows
//! in both. A block is work, whose time is compared, or readings of a clock one after the other, whose gaps are what the
//! program did not get: interrupts, other programs, and flamewalk. The program keeps to one CPU, so that it is not moved.
//!
//!     FLAMEWALK_ATTACH_COST=30 cargo test --workspace --test attach cost -- --nocapture
//!
//! measures 30 pairs of each and prints a table, on a machine that should do nothing else. Otherwise one short pair shows
//! that it works. Real guests, which read no clock, are measured by how much longer a run takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use flamewalk_guests::{cpython, cpython_script, python_wasmtime, sqlite};

use crate::running::Attached;
use crate::{NEWEST, Program, guest};

/// Frames below the work, and how many bytes of the stack are copied at most: hardly more than a tick itself; a stack of
/// some KiB; and all that is copied by default.
const STACKS: [(u32, u32); 3] = [(0, 1 << 10), (0, 32 << 10), (2000, 32 << 10)];
/// Gaps longer than these are counted, in microseconds.
const GAPS: [u32; 10] = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// What was measured without and with an attached flamewalk.
type Pair<T> = [T; 2];

struct Measured {
    program: Program,
    seconds: f64,
    pairs: usize,
    stack_bytes: u32,
}

/// Pairs to measure, if that is asked for; otherwise one short pair.
fn pairs_and_seconds() -> (usize, f64) {
    match std::env::var("FLAMEWALK_ATTACH_COST") {
        Ok(pairs) => (pairs.parse().unwrap(), 1.0),
        Err(_) => (1, 0.2),
    }
}

fn program(script: &str, arguments: &[PathBuf]) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach").join(script);
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python_wasmtime(NEWEST).unwrap());
    Program::start(command.arg(script).args(arguments))
}

/// How much more each attached half has than the other one.
fn print_ratios(pairs: &[Pair<Vec<u64>>]) {
    // The kernel counts interrupts for whom they interrupt, unless it is told to count them apart.
    for (clock, name) in ["time", "CPU time"].into_iter().enumerate() {
        let ratio = |[without, with]: &Pair<Vec<u64>>| with[clock] as f64 / without[clock] as f64;
        let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let quantile = |share: f64| 100.0 * (ratios[(share * (ratios.len() - 1) as f64) as usize] - 1.0);
        let [low, median, high] = [0.25, 0.5, 0.75].map(quantile);
        println!("  more {name}: {median:.2} % (median; quartiles {low:.2} % and {high:.2} %)");
    }
}

impl Measured {
    /// Has the program do something, in pairs of which every other one begins with the attached half.
    fn pairs(&mut self, command: &str) -> Vec<Pair<Vec<u64>>> {
        let stack_bytes = self.stack_bytes.to_string();
        let pair = |index: usize| {
            let mut pair = [const { Vec::new() }; 2];
            for half in [index % 2, 1 - index % 2] {
                let attached = (half == 1)
                    .then(|| Attached::start(self.program.id(), &["-q", "--stack-bytes", &stack_bytes]));
                self.program.tell(command);
                let line = self.program.line();
                pair[half] = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
                if let Some(attached) = attached {
                    let (folded, _) = attached.stop();
                    let of_guest = |stack: &[String]| stack.iter().any(|frame| !frame.starts_with('['));
                    assert!(folded.share(of_guest) > 0.9);
                }
            }
            pair
        };
        (0..self.pairs).map(pair).collect()
    }

    /// How much longer work takes.
    fn slowdown(&mut self, depth: u32) {
        self.program.tell(&format!("work {depth} 10000000"));
        let line = self.program.line();
        let nanoseconds: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        let steps = 1e7 * self.seconds * 1e9 / nanoseconds;
        print_ratios(&self.pairs(&format!("work {depth} {steps:.0}")));
    }

    /// How much longer runs of a guest take, which is told how many rounds of work to do.
    fn slowdown_of_runs(&mut self) {
        self.program.tell("1");
        let line = self.program.line();
        let nanoseconds: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        let rounds = (self.seconds * 1e9 / nanoseconds).max(1.0);
        print_ratios(&self.pairs(&format!("{rounds:.0}")));
    }

    /// How often the program did not get to its next reading for how long.
    fn gaps(&mut self, depth: u32) {
        let pairs = self.pairs(&format!("gaps {depth} {:.0}", self.seconds * 1e9));
        let seconds = self.seconds * pairs.len() as f64;
        let of_half = |half: usize| pairs.iter().flat_map(move |pair| &pair[half]);
        println!("  gaps in a second longer than    alone    attached");
        for limit in GAPS {
            let rate =
                |half| of_half(half).filter(|gap| **gap > u64::from(limit) * 1000).count() as f64 / seconds;
            println!("  {limit:25} µs {:8.1}    {:8.1}", rate(0), rate(1));
        }
        let longest = |half| *of_half(half).max().unwrap_or(&0) as f64 / 1e3;
        println!("  {:>25}    {:8.0}    {:8.0}    µs", "longest", longest(0), longest(1));
    }
}

#[test]
fn cost() {
    let (pairs, seconds) = pairs_and_seconds();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach");
    let mut measured =
        Measured { program: program("cost.py", &[folder.join("cost.wat")]), seconds, pairs, stack_bytes: 0 };
    for (depth, stack_bytes) in STACKS {
        println!(
            "{depth} frames, {stack_bytes} bytes copied at most; {pairs} pairs of {seconds} s at the default rate"
        );
        measured.stack_bytes = stack_bytes;
        measured.slowdown(depth);
        measured.gaps(depth);
    }
}

#[test]
fn cost_of_real_guests() {
    let (pairs, seconds) = pairs_and_seconds();
    let script = cpython_script();
    let inside = format!("/guests/{}", script.file_name().unwrap().display());
    let folder = script.parent().unwrap().to_owned();
    let guests = [
        ("known-answer guest", vec![guest(), "--rounds".into()]),
        ("SQLite", vec![sqlite().unwrap()]),
        ("CPython", vec!["--dir".into(), folder, cpython().unwrap(), inside.into()]),
    ];
    // To compile the others takes most of a minute, which only the long form has.
    let measured = if seconds < 1.0 { 1 } else { guests.len() };
    for (name, arguments) in guests.into_iter().take(measured) {
        println!("{name}; {pairs} pairs of {seconds} s or one round at the default rate");
        let stack_bytes = 32 << 10;
        let program = program("again.py", &arguments);
        Measured { program, seconds, pairs, stack_bytes }.slowdown_of_runs();
    }
}

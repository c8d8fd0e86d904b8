//! What being attached to costs a program: time, and stops.
//!
//! Three threads of a program take turns at the same work, a fraction of a second each, so that what else the machine does
//! shows in all of them: one alone, one that perf interrupts at flamewalk's rate without copying anything, which is the least
//! that any sampler from outside costs, and one that flamewalk is attached to. Each thread is each of them for a third of the
//! rounds. The work is a loop, or readings of a clock one after the other, whose gaps are what the program did not get, or a
//! run of a real guest. The program keeps to one CPU, so that it is not moved.
//!
//!     FLAMEWALK_ATTACH_COST=150 cargo test --workspace --test attach cost -- --nocapture --test-threads=1
//!
//! measures 150 rounds of each and prints tables, on a machine that should do nothing else. Otherwise a few short rounds show
//! that it works.

use std::path::{Path, PathBuf};
use std::process::Command;

use flamewalk_guests::{cpython, cpython_script, python_wasmtime, sqlite};
use perf_event_open::config::{Cpu, Opts, Proc, SampleOn};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;

use crate::running::Attached;
use crate::{NEWEST, Program, guest};

/// Frames below the work, and how many bytes of the stack are copied at most: hardly more than a tick itself; a stack of
/// some KiB; and all that is copied by default.
const STACKS: [(u32, u32); 3] = [(0, 1 << 10), (0, 32 << 10), (2000, 32 << 10)];
const DEFAULT_STACK_BYTES: u32 = 32 << 10;
const DEFAULT_RATE: u64 = 997;
/// Gaps longer than these are counted, in microseconds.
const GAPS: [u32; 10] = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// Who interrupts the thread that does the work: nobody, a tick alone, or an attached flamewalk.
const KINDS: usize = 3;
const ALONE: usize = 0;
const TICK: usize = 1;
const ATTACHED: usize = 2;

/// What the threads printed, each once.
type Round = [Vec<u64>; KINDS];

struct Measured {
    program: Program,
    threads: Vec<u32>,
    seconds: f64,
    rounds: usize,
    stack_bytes: u32,
}

/// Rounds to measure, and how long a thread's turn is.
fn rounds_and_seconds() -> (usize, f64) {
    match std::env::var("FLAMEWALK_ATTACH_COST") {
        Ok(rounds) => (rounds.parse().unwrap(), 0.1),
        Err(_) => (KINDS, 0.05),
    }
}

/// A perf event that interrupts a thread at flamewalk's rate, and copies nothing.
fn tick(thread: u32) -> Counter {
    let options =
        Opts { enable: true, sample_on: SampleOn::Count(1_000_000_000 / DEFAULT_RATE), ..Opts::default() };
    Counter::new(Software::CpuClock, (Proc(thread), Cpu::ALL), options).unwrap()
}

/// How much more the others have than the thread alone, and the attached one than the tick.
fn print_ratios(rounds: &[Round]) {
    // The kernel counts interrupts for whom they interrupt, unless it is told to count them apart.
    for (clock, name) in ["time", "CPU time"].into_iter().enumerate() {
        let more = |kind: usize, than: usize| {
            let ratio = |round: &Round| round[kind][clock] as f64 / round[than][clock] as f64;
            let mut ratios: Vec<f64> = rounds.iter().map(ratio).collect();
            ratios.sort_by(f64::total_cmp);
            let last = (ratios.len() - 1) as f64;
            let quantile =
                |share: f64| 100.0 * (ratios[(share * last).clamp(0.0, last).round() as usize] - 1.0);
            // So many ratios are below the true median as a coin shows heads.
            let deviations = 1.96 * 0.5 / (ratios.len() as f64).sqrt();
            let [least, median, most] = [0.5 - deviations, 0.5, 0.5 + deviations].map(quantile);
            format!("{median:5.2} ({least:.2} to {most:.2})")
        };
        println!(
            "  more {name}, %: tick alone {}, attached {}, attached over the tick {}",
            more(TICK, ALONE),
            more(ATTACHED, ALONE),
            more(ATTACHED, TICK)
        );
    }
}

impl Measured {
    fn start(script: &str, arguments: &[PathBuf]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach").join(script);
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", python_wasmtime(NEWEST).unwrap());
        let mut program = Program::start(command.arg(script).args(arguments));
        program.tell("threads");
        let threads = program.line().split_whitespace().map(|thread| thread.parse().unwrap()).collect();
        let (rounds, seconds) = rounds_and_seconds();
        Self { program, threads, seconds, rounds, stack_bytes: DEFAULT_STACK_BYTES }
    }

    fn turn(&mut self, thread: usize, command: &str) -> Vec<u64> {
        self.program.tell(&format!("{thread} {command}"));
        self.program.line().split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Has the threads take turns, in every order, and every thread in every part.
    fn rounds(&mut self, command: &str) -> Vec<Round> {
        let mut rounds = Vec::new();
        for shift in 0..KINDS {
            let thread = |kind: usize| (kind + shift) % KINDS;
            let [ticked, attached] = [TICK, ATTACHED].map(|kind| self.threads[thread(kind)]);
            let stack_bytes = self.stack_bytes.to_string();
            let tid = attached.to_string();
            let arguments = ["-q", "--tid", &tid, "--stack-bytes", &stack_bytes];
            let attached = Attached::start(self.program.id(), &arguments);
            let ticking = tick(ticked);
            for index in 0..self.rounds.div_ceil(KINDS) {
                let mut round = Round::default();
                for turn in 0..KINDS {
                    let turn = if index % 2 == 0 { turn } else { KINDS - 1 - turn };
                    let kind = (turn + index) % KINDS;
                    round[kind] = self.turn(thread(kind), command);
                }
                rounds.push(round);
            }
            assert!(ticking.stat().unwrap().count > 0, "the thread was interrupted");
            let (folded, _) = attached.stop();
            let of_guest = |stack: &[String]| stack.iter().any(|frame| !frame.starts_with('['));
            assert!(folded.share(of_guest) > 0.9);
        }
        rounds
    }

    /// How often `work` has to be done for a turn's time, by what it takes on the CPU to do it so often.
    fn amount(&mut self, work: &str, often: f64) -> f64 {
        let nanoseconds = self.turn(ALONE, &format!("{work}{often:.0}"))[1];
        (often * self.seconds * 1e9 / nanoseconds as f64).max(1.0)
    }

    /// How much longer work takes.
    fn slowdown(&mut self, depth: u32) {
        let work = format!("work {depth} ");
        let steps = self.amount(&work, 1e7);
        print_ratios(&self.rounds(&format!("{work}{steps:.0}")));
    }

    /// How much longer runs of a guest take, which is told how many rounds of work to do.
    fn slowdown_of_runs(&mut self) {
        let rounds = self.amount("", 1.0);
        print_ratios(&self.rounds(&format!("{rounds:.0}")));
    }

    /// How often the program did not get to its next reading for how long.
    fn gaps(&mut self, depth: u32) {
        let rounds = self.rounds(&format!("gaps {depth} {:.0}", self.seconds * 1e9));
        let seconds = self.seconds * rounds.len() as f64;
        // What comes first is how long the thread waited for the processor.
        let gaps = |kind: usize| rounds.iter().flat_map(move |round| &round[kind][1..]);
        println!("  gaps in a second longer than     alone  tick alone  attached");
        let row = |limit: String, of_kind: &dyn Fn(usize) -> f64| {
            let [alone, tick, attached] = [ALONE, TICK, ATTACHED].map(of_kind);
            println!("  {limit:>26} µs {alone:8.1}  {tick:10.1}  {attached:8.1}");
        };
        for limit in GAPS {
            let is_longer = |gap: &&u64| **gap > u64::from(limit) * 1000;
            row(limit.to_string(), &|kind| gaps(kind).filter(is_longer).count() as f64 / seconds);
        }
        row("the longest, in".into(), &|kind| *gaps(kind).max().unwrap_or(&0) as f64 / 1e3);
        // At least so long was a stop for another reason; waiting of other gaps of the turn is subtracted as well.
        let longest_besides = |kind: usize| {
            let of_turn =
                |turn: &Vec<u64>| turn[1..].iter().max().map_or(0, |gap| gap.saturating_sub(turn[0]));
            rounds.iter().map(|round| of_turn(&round[kind])).max().unwrap_or(0)
        };
        row("that less all waiting, in".into(), &|kind| longest_besides(kind) as f64 / 1e3);
    }
}

#[test]
fn cost() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach");
    let mut measured = Measured::start("cost.py", &[folder.join("cost.wat")]);
    for (depth, stack_bytes) in STACKS {
        measured.stack_bytes = stack_bytes;
        let Measured { rounds, seconds, .. } = measured;
        println!("{depth} frames, {stack_bytes} bytes copied at most; {rounds} rounds of {seconds} s");
        measured.slowdown(depth);
        measured.gaps(depth);
    }
}

#[test]
fn cost_of_real_guests() {
    let script = cpython_script();
    let inside = format!("/guests/{}", script.file_name().unwrap().display());
    let folder = script.parent().unwrap().to_owned();
    let guests = [
        ("known-answer guest", vec![guest(), "--rounds".into()]),
        ("SQLite", vec![sqlite().unwrap()]),
        ("CPython", vec!["--dir".into(), folder, cpython().unwrap(), inside.into()]),
    ];
    // To compile the others takes most of a minute, which only the long form has.
    let measured = if rounds_and_seconds().0 == KINDS { 1 } else { guests.len() };
    for (name, arguments) in guests.into_iter().take(measured) {
        let mut measured = Measured::start("again.py", &arguments);
        let Measured { rounds, seconds, .. } = measured;
        println!("{name}; {rounds} rounds of {seconds} s, or of one round of its work");
        measured.slowdown_of_runs();
    }
}

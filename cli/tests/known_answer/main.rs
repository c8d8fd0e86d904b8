//! The known answer through the command, at three rates and on both clocks: time is attributed where it was spent.
//!
//! A share `p` that is estimated from `n` samples has a standard deviation of `√(p(1-p)/n)`: for the largest share, 30 %,
//! 0.65 points with 5,000 samples. The 2 points allowed are 3.1 of these, and 3.5 or more for all other shares. That
//! alone would fail a right profiler once in 400 runs, and there are several: so the test takes 6,500 samples where
//! time is dear (3.5 standard deviations, once in 2,000), and more where it is not.
//!
//! The truth itself blurs if the guest has to wait for a processor: it waits wherever it happens to be, and makes its
//! host calls as long as its wall clock tells it to. See [`Waiting`].
//!
//! A crate of its own, so that Cargo runs it alone: its two tests have a core each.

#[path = "../support/mod.rs"]
mod support;

use std::process::Stdio;

use flamewalk_guests::{Guest, HOST_CALL_SHARE, KNOWN_ANSWER};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use support::{Folded, Folder, Outcome, flamewalk_run};

/// Rates, and how many samples are taken.
const RATES: [(u32, u64); 3] = [(97, 6_500), (997, 10_000), (4_999, 20_000)];
/// The guest is run again until there are enough samples; for this many rounds first, to learn how many that takes.
const FIRST_ROUNDS: u64 = 1_000;

#[test]
fn on_cpu_time() {
    for (rate, samples) in RATES {
        let measured = Measured::take("cpu", rate, samples);
        // Host calls last as long as the wall clock says, which is blurred by all waiting as a share of the time on
        // a processor.
        let waiting = &measured.waiting;
        check_shares(&measured, waiting.blur() / (1.0 - waiting.share()));
    }
}

#[test]
fn on_wall_clock_time() {
    for (rate, samples) in RATES {
        let measured = Measured::take("wall", rate, samples);
        check_shares(&measured, measured.waiting.blur());
        let ratio = measured.profile.total() as f64 / measured.elapsed as f64;
        assert!((0.99..=1.01).contains(&ratio), "{rate} Hz: {ratio} of the time that passed");
    }
}

/// `blur`: the standard deviation of the truth's share, for a share of a half, as a multiple of a half.
fn check_shares(measured: &Measured, blur: f64) {
    let innermost = |stack: &[String]| {
        stack
            .iter()
            .rev()
            .find_map(|frame| KNOWN_ANSWER.iter().find(|(name, _)| name == frame))
            .map(|known| known.0)
    };
    let host_call = |stack: &[String]| stack.last().unwrap() == "[host] wasi_snapshot_preview1.random_get";
    let profile = &measured.profile;
    let shares: Vec<_> = KNOWN_ANSWER
        .iter()
        .map(|&(name, truth)| (name, truth, profile.share(|stack| innermost(stack) == Some(name))))
        .chain([("the host call", HOST_CALL_SHARE, profile.share(host_call))])
        .collect();
    let summary = format!("{} samples at {}, blur {blur:.4}: {shares:.4?}", measured.samples, measured.what);
    println!("{summary}");
    for &(name, truth, share) in &shares {
        let deviation = (truth * (1.0 - truth)).sqrt() * blur;
        let allowed = 0.02 + 3.5 * deviation;
        assert!((share - truth).abs() <= allowed, "{name} is not within {allowed} of {truth}: {summary}");
    }
}

/// One or more runs of the guest.
struct Measured {
    what: String,
    profile: Folded,
    samples: u64,
    /// Nanoseconds by the guest's own clock, around all of its work but for a few calls before and after.
    elapsed: u64,
    waiting: Waiting,
}

impl Measured {
    /// Profiles the guest until there are as many samples.
    fn take(event: &str, rate: u32, samples: u64) -> Self {
        let what = format!("{rate} Hz of {event}");
        let mut all =
            Self { what, profile: Folded(Vec::new()), samples: 0, elapsed: 0, waiting: Waiting::default() };
        let mut rounds_done = 0;
        while all.samples < samples {
            let missing = samples - all.samples;
            let rounds = match all.samples {
                0 => FIRST_ROUNDS,
                // A little more, so that the next run is the last.
                taken => rounds_done * missing * 21 / 20 / taken + 1,
            };
            rounds_done += rounds;
            all.run(event, rate, rounds);
        }
        all
    }

    fn run(&mut self, event: &str, rate: u32, rounds: u64) {
        let folder = Folder::new();
        let (folded, svg) = (folder.path("a.folded"), folder.path("a.svg"));
        let mut command = flamewalk_run();
        command.args(["--event", event, "--freq", &rate.to_string(), "-o"]).arg(&folded).arg("-o").arg(&svg);
        command.arg(Guest::KnownAnswer.path()).args(["--rounds", &rounds.to_string()]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        // Left as it is when it has ended, to be asked how it fared. What it prints fits into the pipes.
        waitid(Id::Pid(Pid::from_raw(id.cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            .unwrap();
        self.waiting.add(id);
        let outcome = Outcome::of(child.wait_with_output().unwrap());
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        assert!(!outcome.stderr.contains(" lost"), "{outcome:?}");

        self.profile.0.extend(Folded::read(&folded).0);
        self.samples += samples_in(&std::fs::read_to_string(&svg).unwrap());
        let printed = |label: &str| -> u64 {
            outcome.stdout.lines().find_map(|line| line.strip_prefix(label)).unwrap().parse().unwrap()
        };
        self.elapsed += printed("guest ns ") + printed("host ns ");
    }
}

/// How long the guests had to wait for a processor although they could have run.
///
/// Each wait falls on one place in the guest, so the share of waiting time in a function with the share `p` has a
/// standard deviation of `√(p(1-p)/waits)`, and the share of all time that much times the share of waiting.
#[derive(Default)]
struct Waiting {
    /// Nanoseconds.
    running: f64,
    waiting: f64,
    waits: f64,
}

impl Waiting {
    /// Adds a process that has ended and was not waited for yet. The guest runs on its first thread.
    fn add(&mut self, process: u32) {
        let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap();
        let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        self.running += numbers[0];
        self.waiting += numbers[1];
        self.waits += numbers[2];
    }

    fn share(&self) -> f64 {
        self.waiting / (self.waiting + self.running)
    }

    fn blur(&self) -> f64 {
        self.share() / self.waits.sqrt()
    }
}

/// The number of samples in a flame graph's subtitle, which has it as `12,345 samples`.
fn samples_in(svg: &str) -> u64 {
    let (before, _) = svg.split_once(" samples").unwrap();
    before.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

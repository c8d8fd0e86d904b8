//! `flamewalk attach`, with programs that embed other versions of Wasmtime and know nothing of flamewalk.
//!
//! The programs are Python with PyPI's package `wasmtime`, which are fetched once. `FLAMEWALK_ATTACH_VERSIONS` names other
//! versions to try: `FLAMEWALK_ATTACH_VERSIONS=30.0.0,40.0.0 cargo test --workspace --test attach`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod components;
mod cost;
mod damaged;
mod duration;
mod failures;
mod inside;
mod lifecycle;
mod namespaces;
mod programs;
mod refusals;
mod running;
#[allow(dead_code, reason = "this test does not need all of it")]
#[path = "../support/mod.rs"]
mod support;
mod view;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flamewalk::profile::{Profile, Statistics, native};
use flamewalk_guests::{Guest, python_wasmtime};
use flamewalk_guests::{HOST_CALL_SHARE, KNOWN_ANSWER};
use lifecycle::check_share_of_first;
use running::Attached;
use support::{Folded, Folder, Outcome, flamewalk, stolen};

/// The first in which a table of names of today's form is found, some in between, and the newest.
const VERSIONS: [&str; 5] = ["14.0.0", "25.0.0", "36.0.0", "44.0.0", "50.0.1"];
const NEWEST: &str = VERSIONS[4];

/// A program that is ended with the test.
struct Program(Child);

impl Program {
    /// Starts a program and waits until it prints its first line.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the program has begun");
        Self(child)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn embedding(version: &str, arguments: &[&str]) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach/embedding.py");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python_wasmtime(version).unwrap()).arg(script).arg(guest());
    Program::start(command.args(arguments))
}

fn guest() -> PathBuf {
    Guest::KnownAnswer.path()
}

fn attach(program: &Program, arguments: &[&str]) -> Outcome {
    Outcome::of(flamewalk("attach").arg(program.id().to_string()).args(arguments).output().unwrap())
}

/// Attaches for some seconds and reads the folded stacks.
fn profile(program: &Program, arguments: &[&str]) -> (Folded, Outcome) {
    let (folded, _, outcome) = profile_with_statistics(program, arguments);
    (folded, outcome)
}

/// As [`profile`], with what became of all ticks.
fn profile_with_statistics(program: &Program, arguments: &[&str]) -> (Folded, Statistics, Outcome) {
    let folder = Folder::new();
    let (folded, native) = (folder.path("out.folded"), folder.path("out.flamewalk"));
    let outputs = ["-o", folded.to_str().unwrap(), "-o", native.to_str().unwrap()];
    let outcome = attach(program, &[&outputs, arguments].concat());
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    (Folded::read(&folded), read_native(&native).metadata.statistics, outcome)
}

/// Attaches for some time and reads the whole profile.
fn native_profile(program: &Program, arguments: &[&str]) -> Profile {
    let folder = Folder::new();
    let path = folder.path("out.flamewalk");
    let outcome = attach(program, &[&["-o", path.to_str().unwrap()], arguments].concat());
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    read_native(&path)
}

fn read_native(path: &Path) -> Profile {
    native::read(&std::fs::read(path).unwrap()).unwrap()
}

/// As [`profile`], as often as it takes for a thousand samples: on a busy machine the program gets little time.
fn profile_enough(program: &Program, rate: u32) -> Folded {
    let rate_text = rate.to_string();
    let mut folded = Folded(Vec::new());
    let (mut ticks, mut not_unwound) = (0, 0);
    while (folded.total() as f64) * 1e-9 * f64::from(rate) < 1000.0 {
        let (more, statistics, _) = profile_with_statistics(program, &["-d", "1", "--freq", &rate_text]);
        folded.0.extend(more.0);
        ticks += statistics.ticks.samples;
        // Whatever it is called that a sample was not walked. A busy machine may leave no time to empty rings.
        let not_walked = statistics.lost.iter().filter(|(cause, _)| *cause != "ring full");
        not_unwound += not_walked.map(|(_, lost)| lost.samples).sum::<u64>();
    }
    check_unwound(not_unwound, ticks);
    folded
}

/// The host was unwound, whether it has unwind information or not. Wasmtime's C library had none in versions around 20 to
/// 40, where all samples in host calls were lost.
fn check_unwound(not_unwound: u64, ticks: u64) {
    // What `profiler/docs/attach.md` promises.
    let expected = ticks as f64 / 1000.0;
    // Chance has its part in so few: four standard deviations of something rare, whose variance is its mean.
    let most = expected + 4.0 * expected.sqrt();
    println!("{not_unwound} of {ticks} samples are not unwound, {most:.1} at most");
    assert!(not_unwound as f64 <= most, "{not_unwound} of {ticks} samples are not unwound");
}

/// Whether the guest has a frame of this name.
fn is_of_guest(name: &str) -> bool {
    KNOWN_ANSWER.iter().any(|(known, _)| *known == name)
        || ["_start", "write_text", "[truncated]"].contains(&name)
        // Each instance is started, gets its memory, and fills its table of functions when it calls through it the first time.
        || name == "(module start)"
        || ["[builtin] ", "[host] "].iter().any(|kind| name.starts_with(kind))
}

/// The functions of the guest have their shares of what the guest itself does, and no others are there.
fn check_shares(folded: &Folded, rate: f64, what: &str) {
    let is_host = |stack: &[String]| stack.last().is_some_and(|frame| frame.starts_with("[host]"));
    let host = folded.share(is_host);
    let names: BTreeSet<&str> = folded.0.iter().flat_map(|(stack, _)| stack).map(String::as_str).collect();
    assert!(names.iter().all(|name| is_of_guest(name)), "{what}: {names:?}");
    // What called the guest is missing in the few samples that show that more of the stack has to be copied.
    let truncated = folded.share(|stack| stack[0] == "[truncated]");
    assert!(truncated < 0.03, "{what}: {truncated} truncated");
    let samples = folded.total() as f64 * 1e-9 * rate;
    for (name, share) in KNOWN_ANSWER {
        let expected = share / (1.0 - HOST_CALL_SHARE);
        let found = folded.share(|stack| stack.last().is_some_and(|frame| frame == name)) / (1.0 - host);
        // Two points for the guest's own clock and machine code of several compilers, and four standard deviations.
        let tolerance = 0.02 + 4.0 * (expected * (1.0 - expected) / samples).sqrt();
        assert!(
            (found - expected).abs() < tolerance,
            "{what}: {name} has {found:.3}, expected {expected:.3}"
        );
    }
}

/// The stacks with other names for frames. Of several guests, each has its own name in front of its functions, which is left
/// out.
fn without_modules(folded: Folded, name: impl Fn(&str) -> String) -> Folded {
    let frame = |frame: String| name(frame.rsplit_once('!').map_or(&frame[..], |(_, name)| name));
    let stacks = folded.0.into_iter();
    Folded(stacks.map(|(stack, weight)| (stack.into_iter().map(frame).collect(), weight)).collect())
}

#[test]
fn guests_of_each_version_have_their_names_and_shares() {
    let chosen = std::env::var("FLAMEWALK_ATTACH_VERSIONS");
    let versions = chosen.as_ref().map_or(VERSIONS.to_vec(), |chosen| chosen.split(',').collect());
    for version in versions {
        let folded = profile_enough(&embedding(version, &[]), 1999);
        check_shares(&folded, 1999.0, version);
        // The guest measures its host calls by a clock that goes on while others have the processor.
        let host = folded.share(|stack| stack.last().is_some_and(|frame| frame.starts_with("[host] ")));
        assert!(host > HOST_CALL_SHARE / 10.0, "{version}: {host}");
    }
}

#[test]
fn compiled_files_are_found_and_symbols_name_host_calls() {
    let folder = Folder::new();
    let compiled = folder.path("compiled.cwasm");
    let program = embedding(NEWEST, &["compiled", compiled.to_str().unwrap()]);
    check_shares(&profile_enough(&program, 1999), 1999.0, "compiled");
    let guest = guest();
    let (folded, _) = profile(&program, &["-d", "2", "--symbols", guest.to_str().unwrap()]);
    let share = |name: &str| folded.share(|stack| stack.iter().any(|frame| frame == name));
    // The guest measures its host calls by a clock that goes on while others have the processor.
    assert!(share("[host] wasi_snapshot_preview1.random_get") > HOST_CALL_SHARE / 10.0, "{folded:?}");
    // Its compiler has inlined this one, which only debug information tells.
    assert!(share("steps") > 0.1, "{folded:?}");
}

#[test]
fn native_functions_lie_around_and_below_the_guest() {
    let (folded, _) = profile(&embedding(NEWEST, &[]), &["-d", "1", "--host-frames"]);
    let has = |stack: &[String], name: &str| stack.iter().any(|frame| frame.contains(name));
    // Python has called Wasmtime's function, which has entered the guest.
    let whole = folded.share(|stack| has(stack, "wasmtime_func_call") && has(stack, "straight"));
    assert!(whole > 0.15, "{whole}");
    let below = folded.share(|stack| {
        let call = stack.iter().position(|frame| frame.starts_with("[host] ") || frame == "[host]");
        call.is_some_and(|call| stack.len() > call + 1)
    });
    assert!(below > HOST_CALL_SHARE / 10.0, "{below}");
}

#[test]
fn modules_that_come_and_go_have_right_names_or_none() {
    let functions: Vec<&str> = KNOWN_ANSWER.iter().map(|(name, _)| *name).collect();
    let mut program = embedding(NEWEST, &[&["churn"], &functions[..]].concat());
    let (folded, statistics, outcome) = profile_with_statistics(&program, &["-d", "3", "--wait"]);
    // There are several modules, each with a number. Every other one has names in capitals.
    let mut folded = without_modules(folded, str::to_owned);
    let is_of_first = |name: &str| functions.contains(&name);
    let is_of_second = |name: &str| functions.contains(&&*name.to_lowercase()) && !is_of_first(name);
    for (stack, _) in &folded.0 {
        assert!(stack.iter().all(|name| is_of_guest(name) || is_of_second(name)), "{stack:?}");
        let has = |is_of: &dyn Fn(&str) -> bool| stack.iter().any(|name| is_of(name));
        assert!(!(has(&is_of_first) && has(&is_of_second)), "{stack:?}\n{}", outcome.stderr);
    }
    // What both have in common.
    folded.0.retain(|(stack, _)| stack.iter().any(|name| is_of_first(name) || is_of_second(name)));
    check_share_of_first(&mut program, &folded, &statistics, is_of_first);
}

/// It once was that all threads were in their first round when a busy machine had no more time for them: they are sampled
/// until all have done the same, and have seen so much of it that cold memory and caches do not matter.
#[test]
fn two_hundred_threads_and_two_attachers() {
    let mut program = embedding(NEWEST, &["crowd", "200", "40"]);
    let attached = [(); 2].map(|()| Attached::start(program.id(), &[]));
    let stolen_before = stolen();
    program.go();
    let taken: f64 = program.line().trim().parse().unwrap();
    let stolen = (stolen() - stolen_before) as f64;
    for attached in attached {
        let (folded, statistics, outcome) = attached.end_with_statistics();
        assert!(outcome.stderr.contains("has ended while it was sampled"), "{}", outcome.stderr);
        check_shares(&folded, 997.0, "crowd");
        // All of what the program has taken, but for what each thread has done on each of two processors since its last tick, at the end
        // and each time that more of the stack came to be copied. Switching threads counts more for events.
        let told = statistics.ticks.weight as f64;
        let untold = 200.0 * 2.0 * 3.0 * 1e9 / 997.0;
        println!("{:.3} of {:.3} s are told of", told / 1e9, taken / 1e9);
        assert!(told > taken - untold && told < 1.05 * taken + stolen, "{told} of {taken} ns");
    }
}

/// It once was that such a process was said to run no program, and that sampling ended when the main thread did.
#[test]
fn a_program_goes_on_when_its_main_thread_has_ended() {
    let mut program = embedding(NEWEST, &["threads", "2"]);
    let attached = Attached::start(program.id(), &[]);
    program.go();
    let main_thread = format!("/proc/{0}/task/{0}/stat", program.id());
    while !std::fs::read_to_string(&main_thread).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    // Whether the program is still there is asked several times meanwhile.
    program.wait_for_cpu_ticks(100);
    let (folded, outcome) = attached.stop();
    assert!(!outcome.stderr.contains("has ended"), "{}", outcome.stderr);
    assert!(folded.total() > 700_000_000, "{}", folded.total());

    let (folded, outcome) = profile(&program, &["-d", "1"]);
    assert!(!outcome.stderr.contains("has ended"), "{}", outcome.stderr);
    let names: BTreeSet<&str> = folded.0.iter().flat_map(|(stack, _)| stack).map(String::as_str).collect();
    assert!(names.contains("straight") && names.iter().all(|name| is_of_guest(name)), "{names:?}");
}

/// It once was that sampling went on until the process ended.
#[test]
fn sampling_ends_when_all_chosen_threads_have() {
    let mut program = embedding(NEWEST, &["threads", "2"]);
    let attached = Attached::start(program.id(), &["--tid", &program.id().to_string()]);
    program.go();
    let (_, outcome) = attached.end();
    assert!(outcome.stderr.contains("the chosen threads of process"), "{}", outcome.stderr);
    assert!(program.0.try_wait().unwrap().is_none(), "the process has not ended");
}

/// What the kernel says of a process that an attacher could have changed.
fn state(program: &Program) -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", program.id())).unwrap();
    let wanted = ["TracerPid", "SigBlk", "SigIgn", "SigCgt", "Threads", "FDSize", "Seccomp"];
    let mut state: Vec<String> = read("status")
        .lines()
        .filter(|line| wanted.iter().any(|wanted| line.starts_with(wanted)))
        .map(str::to_owned)
        .collect();
    let files = std::fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count();
    state.push(format!("{files} files"));
    state.extend(read("maps").lines().filter(|line| line.contains(" r-xp ")).map(str::to_owned));
    state
}

#[test]
fn the_program_is_as_it_was() {
    let program = embedding(NEWEST, &[]);
    let before = state(&program);
    profile(&program, &["-d", "500ms", "--host-frames"]);
    assert_eq!(state(&program), before);
}

#[test]
fn the_view_lists_functions_each_second() {
    let outcome = attach(&embedding(NEWEST, &[]), &["-d", "6", "--top"]);
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    // Of five or six.
    assert!(outcome.stdout.matches("samples of guests").count() >= 2, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("straight"), "{}", outcome.stdout);
}

#[test]
fn a_program_that_ends_leaves_its_profile() {
    let mut program = embedding(NEWEST, &["short"]);
    let attached = Attached::start(program.id(), &["-d", "60"]);
    program.go();
    let (folded, outcome) = attached.end();
    assert!(outcome.stderr.contains("has ended while it was sampled"), "{}", outcome.stderr);
    assert!(folded.total() > 0);
}

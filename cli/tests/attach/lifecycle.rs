//! What programs do while they are sampled: fork, unload everything, be killed, be stopped.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use flamewalk::profile::Statistics;
use flamewalk_guests::python_wasmtime;
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::refusals::{cpus, limit};
use crate::running::Attached;
use crate::support::{Folded, flamewalk, stolen};
use crate::{NEWEST, Program, attach, check_shares, embedding, profile_with_statistics, without_modules};

pub(crate) fn changing(what: &str) -> Program {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach/changing.py");
    let mut command = Command::new("python3");
    Program::start(command.env("PYTHONPATH", python_wasmtime(NEWEST).unwrap()).arg(script).arg(what))
}

fn names(folded: &Folded) -> BTreeSet<&str> {
    folded.0.iter().flat_map(|(stack, _)| stack).map(String::as_str).collect()
}

/// The child runs the parent's guest and another one: it inherits the parent's perf events, and its records come through the
/// same rings.
#[test]
fn a_child_is_not_mixed_into_its_parent() {
    let mut program = changing("fork");
    let (before, stolen_before) = (program.cpu_ticks(), stolen());
    let attached = Attached::start(program.id(), &["-d", "2"]);
    program.go();
    let child = program.line().trim().parse().unwrap();
    let (folded, _) = attached.end();
    let of_parent = (program.cpu_ticks() - before) * 10_000_000 + stolen() - stolen_before;
    assert!(folded.total() <= of_parent + 20_000_000, "{} of {of_parent} ns", folded.total());
    let expected = BTreeSet::from(["first_outer", "first_inner"]);
    assert_eq!(names(&folded), expected, "the parent's guest and nothing else");

    // The child is a program like any other.
    let (folded, _) = Attached::start(child, &["-d", "1"]).end();
    let of_child = without_modules(folded, str::to_owned);
    let expected = BTreeSet::from(["first_outer", "first_inner", "second_outer", "second_inner"]);
    assert_eq!(names(&of_child), expected);
    assert!(program.0.try_wait().unwrap().is_none(), "the parent has not noticed");
}

/// The module, the store and the engine go, and what comes next lies where they were: a name of one in a stack of the
/// other would be a lie.
#[test]
fn unloaded_guests_are_not_mixed_with_those_that_follow() {
    let mut program = changing("unload");
    let (folded, statistics, _) = profile_with_statistics(&program, &["-d", "3", "--wait"]);
    let folded = without_modules(folded, str::to_owned);
    for (stack, _) in &folded.0 {
        let guests: BTreeSet<&str> = stack.iter().filter_map(|name| Some(name.split_once('_')?.0)).collect();
        assert_eq!(guests.len(), 1, "{stack:?}");
    }
    check_share_of_first(&mut program, &folded, &statistics, |name| name.starts_with("first_"));
}

/// It once was that samples in code that nobody knows were said to be outside of all guests. It may be a guest's that was gone
/// before it was read.
#[test]
fn samples_in_code_that_nobody_knows_are_lost() {
    let program = changing("unknown");
    let (folded, statistics, _) = profile_with_statistics(&program, &["-d", "3"]);
    let expected = BTreeSet::from(["[truncated]", "first_outer", "first_inner"]);
    assert!(names(&folded).is_subset(&expected), "{folded:?}");
    // The guest was called from such code, above which there is no other. At first too little of the stack is copied to tell.
    let whole = folded.share(|stack| stack[0] == "first_outer");
    assert!(whole > 0.2, "{whole}");
    let unknown = statistics.lost["code that was not registered"].weight;
    // What is left is Python's own.
    assert!(statistics.outside.weight < unknown / 20, "{statistics:?}");
    assert!(unknown > folded.total(), "{statistics:?}");
}

/// The first of a program's two guests has the share that the program says. On a busy machine a guest is gone before it is
/// read. It once was that its ticks were said to be outside of all guests; they are lost, and can be of either.
pub(crate) fn check_share_of_first(
    program: &mut Program,
    folded: &Folded,
    statistics: &Statistics,
    is_of_first: impl Fn(&str) -> bool,
) {
    program.go();
    let taken: Vec<f64> = program.line().split_whitespace().map(|time| time.parse().unwrap()).collect();
    let expected = taken[0] / (taken[0] + taken[1]);
    let found = folded.share(|stack| stack.iter().any(|name| is_of_first(name)));
    assert!(found > 0.0 && found < 1.0, "each guest is seen");
    // Not those of the compiler, whose stacks are deep.
    let lost = statistics.lost.iter().filter(|(cause, _)| !cause.contains("beyond the copied part"));
    let lost = lost.map(|(_, lost)| lost.weight).sum::<u64>() as f64;
    let seen = folded.total() as f64;
    let (least, most) = (found * seen / (seen + lost), (found * seen + lost) / (seen + lost));
    let samples = (seen + lost) * 1e-9 * f64::from(flamewalk_attach::defaults::RATE);
    // One point for the program's own clock, and four standard deviations.
    let tolerance = 0.01 + 4.0 * (expected * (1.0 - expected) / samples).sqrt();
    let found = format!("the first guest has {least:.3} to {most:.3} of {samples:.0} samples");
    println!("{found}, expected {expected:.3}");
    // Of guests that lived for a few milliseconds three of four were lost when each was read some time later.
    assert!(lost < seen, "{lost} ns are lost of {seen}");
    assert!(least - tolerance < expected && expected < most + tolerance, "{found}, expected {expected:.3}");
}

#[test]
fn a_program_that_is_killed_leaves_its_profile() {
    let program = changing("loop");
    let attached = Attached::start(program.id(), &["-d", "60"]);
    program.wait_for_cpu_ticks(50);
    kill(Pid::from_raw(program.id().cast_signed()), Signal::SIGKILL).unwrap();
    let (folded, outcome) = attached.end();
    assert!(outcome.stderr.contains("has ended while it was sampled"), "{}", outcome.stderr);
    // Half a second, but for what was on its way.
    assert!(folded.total() > 300_000_000, "{}", folded.total());
    assert_eq!(names(&folded), BTreeSet::from(["first_outer", "first_inner"]));
}

#[test]
fn a_program_that_is_stopped_is_read_and_goes_on() {
    let program = embedding(NEWEST, &[]);
    let signal = |signal| kill(Pid::from_raw(program.id().cast_signed()), signal).unwrap();
    signal(Signal::SIGSTOP);
    let idle = attach(&program, &["-d", "200ms", "-q"]);
    assert_eq!(idle.status, Some(125), "{}", idle.stderr);
    assert!(idle.stderr.contains("took no CPU time"), "{}", idle.stderr);

    let attached = Attached::start(program.id(), &["-d", "4", "--freq", "1999"]);
    for _ in 0..5 {
        signal(Signal::SIGCONT);
        program.wait_for_cpu_ticks(20);
        signal(Signal::SIGSTOP);
    }
    signal(Signal::SIGCONT);
    let (folded, _) = attached.end();
    check_shares(&folded, 1999.0, "stopped and continued");
}

fn with_deep_stacks(idle_threads: &str) -> Program {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attach");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python_wasmtime(NEWEST).unwrap());
    Program::start(command.arg(folder.join("cost.py")).arg(folder.join("cost.wat")).arg(idle_threads))
}

/// It once was that too few files were said to be needed: with so many, the same sentence came again.
#[test]
fn as_many_files_as_are_said_to_be_needed_suffice() {
    let mut program = with_deep_stacks("80");
    let threads = std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap().count() as u64;
    let mut said_with = |files: u64| {
        let mut command = flamewalk("attach");
        limit(&mut command, Resource::RLIMIT_NOFILE, files);
        let attached = Attached::start_as(command, program.id(), &[]);
        program.tell("0 work 400 300000000");
        program.line();
        attached.stop().1.stderr
    };
    // Enough to begin with.
    let said = said_with(threads * u64::from(cpus()) + 64);
    let needed = said.lines().find_map(|line| {
        line.split_once("bytes of each stack are copied: ")?
            .1
            .split_once(" files have to be open")?
            .0
            .parse()
            .ok()
    });
    let said = said_with(needed.unwrap_or_else(|| panic!("{said}")));
    assert!(!said.contains("files have to be open"), "{said}");
}

/// Nothing of the other one is in the profile.
#[test]
fn a_program_that_begins_another_one_is_sampled_until_then() {
    let mut program = changing("exec");
    let attached = Attached::start(program.id(), &[]);
    program.wait_for_cpu_ticks(50);
    program.go();
    let (folded, statistics, outcome) = attached.end_with_statistics();
    assert!(outcome.stderr.contains("has begun another program while it was sampled"), "{}", outcome.stderr);
    assert_eq!(names(&folded), BTreeSet::from(["first_outer", "first_inner"]));
    assert!(!statistics.lost.contains_key("code that was not registered"), "{statistics:?}");
}

/// Stacks of some 20 KiB, of which 8 KiB are copied at first.
#[test]
fn stacks_that_become_deep_are_copied_further() {
    let mut program = with_deep_stacks("0");
    let whole = |arguments: &[&str], program: &mut Program| {
        let attached = Attached::start(program.id(), arguments);
        let stolen_before = stolen();
        // The second number is what that took on the CPU.
        program.tell("0 work 400 3000000000");
        let line = program.line();
        let on_cpu: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let stolen = stolen() - stolen_before;
        let (folded, outcome) = attached.stop();
        let depth = |stack: &[String]| stack.iter().filter(|frame| *frame == "work").count();
        let weight: u64 =
            folded.0.iter().filter(|(stack, _)| depth(stack) > 0).map(|(_, weight)| weight).sum();
        // Switching threads counts more for events.
        let most = on_cpu + on_cpu / 20 + stolen;
        assert!(weight <= most, "{weight} of {on_cpu} ns: {}", outcome.stderr);
        folded.share(|stack| depth(stack) == 401 && stack[0] != "[truncated]")
    };
    let grown = whole(&["--stack-bytes", "32768"], &mut program);
    assert!(grown > 0.5, "{grown}");
    let fixed = whole(&["--stack-bytes", "8192"], &mut program);
    assert!(fixed < 0.1, "{fixed}");
}

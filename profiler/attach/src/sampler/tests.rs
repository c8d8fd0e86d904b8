//! Which processes are sampled, and that each tick counts once from the beginning on, also while more of the stack begins to be
//! copied.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use perf_event_open::config::Proc;
use perf_event_open::event::sw::Software;

use super::*;

/// A shell that is ended with the test.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Shell {
    fn start(script: &str) -> Self {
        let mut command = Command::new("sh");
        Self(command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn target(&self) -> Target {
        Target::open(self.0.id().cast_signed()).unwrap()
    }
}

/// CPU time that a process has taken, in the kernel's ticks of 10 ms.
fn cpu_ticks(process: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn wait_for_cpu_ticks(process: i32, ticks: u64) {
    let until = cpu_ticks(process) + ticks;
    while cpu_ticks(process) < until {
        std::thread::yield_now();
    }
}

fn ticks(events: &[Event]) -> impl Iterator<Item = (&Event, &Tick)> {
    events.iter().filter_map(|event| match &event.kind {
        EventKind::Tick(tick) => Some((event, tick)),
        _ => None,
    })
}

/// It once was that children of the target were sampled, to be thrown away.
#[test]
fn a_forked_child_is_not_sampled() {
    let mut shell = Shell::start("read line; (while :; do :; done) & echo $!; while :; do :; done");
    let target = shell.target();
    let mut sampler = Sampler::open(&target, &[], 997, 8 << 10, 32 << 10, &mut Vec::new()).unwrap();
    sampler.begin(&mut Vec::new());
    drop(shell.0.stdin.take());
    let mut line = String::new();
    BufReader::new(shell.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let child = line.trim().parse().unwrap();
    wait_for_cpu_ticks(child, 10);
    wait_for_cpu_ticks(target.pid(), 10);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut events = Vec::new();
    sampler.drain(&mut events);
    assert!(ticks(&events).count() > 50);
    assert!(ticks(&events).all(|(event, _)| event.process == target.pid()));
}

/// A thread that had ended since it was looked for was told as a process that is not there.
#[test]
fn a_chosen_thread_that_has_ended_is_told() {
    let shell = Shell::start("read line");
    let target = shell.target();
    let gone = i32::MAX;
    let error = Sampler::open(&target, &[gone], 997, 1 << 10, 32 << 10, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::NoThread { thread, .. } if thread == gone), "{error}");
}

/// What the kernel counts of a process's first thread on its own, on the clock of ticks.
fn counter_of(process: i32) -> Counter {
    let target = (Proc(process.cast_unsigned()), Cpu::ALL);
    let counter = Counter::new(Software::CpuClock, target, Opts::default()).unwrap();
    counter.enable().unwrap();
    counter
}

/// Fails unless the ticks are all of what the process has taken, and are that once. Of the CPU time, which is told in ticks of
/// the kernel for each of user and system, one can be missing at each end, and one of ours. A hypervisor's time can be in ticks,
/// and is in the counter; switching threads, up to a twentieth, is in ticks only.
fn check_weight(events: &[Event], cpu_ticks: u64, counted: u64) {
    let weight: u64 = ticks(events).map(|(_, tick)| tick.weight).sum();
    let least = (cpu_ticks * 10_000_000).saturating_sub(30_000_000);
    let most = counted + counted / 20;
    assert!((least..=most).contains(&weight), "{weight} ns, not {least} to {most}");
}

/// It once was that ticks counted from when the events were opened, long before flamewalk was ready.
#[test]
fn ticks_count_once_sampling_has_begun() {
    let shell = Shell::start("while :; do :; done");
    let target = shell.target();
    let mut sampler = Sampler::open(&target, &[], 997, 1 << 10, 32 << 10, &mut Vec::new()).unwrap();
    wait_for_cpu_ticks(target.pid(), 20);
    let mut events = Vec::new();
    let counter = counter_of(target.pid());
    let began = sampler.begin(&mut events);
    let before = cpu_ticks(target.pid());
    assert!(ticks(&events).next().is_none(), "{events:?}");
    wait_for_cpu_ticks(target.pid(), 20);
    let taken = cpu_ticks(target.pid()) - before;
    sampler.stop();
    let counted = counter.stat().unwrap().count;
    sampler.drain(&mut events);
    assert!(ticks(&events).all(|(event, _)| event.time > began));
    check_weight(&events, taken, counted);
}

/// Former and new events sample at the same time for 200 ms.
#[test]
fn no_tick_counts_twice_while_more_begins_to_be_copied() {
    let shell = Shell::start("while :; do :; done");
    let target = shell.target();
    let mut sampler = Sampler::open(&target, &[], 997, 1 << 10, 32 << 10, &mut Vec::new()).unwrap();
    let mut events = Vec::new();
    let counter = counter_of(target.pid());
    sampler.begin(&mut events);
    let before = cpu_ticks(target.pid());
    wait_for_cpu_ticks(target.pid(), 20);
    let former = sampler.open_again(&target, 2 << 10, &mut events).unwrap();
    wait_for_cpu_ticks(target.pid(), 20);
    sampler.count_from_now(former, 2 << 10);
    wait_for_cpu_ticks(target.pid(), 20);
    let taken = cpu_ticks(target.pid()) - before;
    sampler.stop();
    let counted = counter.stat().unwrap().count;
    sampler.drain(&mut events);
    check_weight(&events, taken, counted);
    let lengths: Vec<usize> = ticks(&events).map(|(_, tick)| tick.stack.len()).collect();
    assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&(1 << 10)), Some(&(2 << 10))));
    // Where a page of the stack was never used, as can be before the environment, what is copied ends with the page before.
    for (_, tick) in ticks(&events).filter(|(_, tick)| !tick.is_cut) {
        let end = tick.registers.unwrap().sp + tick.stack.len();
        assert!(end.is_multiple_of(crate::host::page_size()), "{end:#x}");
    }
}

//! The machine: what it is, and whether it can tell anything.

use std::fs;

use perf_event_open::config::{Cpu, Opts, Proc, SampleOn};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;

use crate::error::Error;

/// The highest load, at the start, of a machine that does nothing else.
const MOST_LOAD: f64 = 0.7;

/// Refuses a machine on which the numbers would mean nothing.
pub fn check() -> Result<(), Error> {
    let cores = std::thread::available_parallelism().map_err(Error::system("count the processors"))?.get();
    if cores < 2 {
        let message = "there is one processor: what profilers do on threads of their own would be charged to the guest; \
                       use a machine with two or more";
        return Err(Error::Machine(message.to_owned()));
    }
    let options = Opts { sample_on: SampleOn::Count(1_000_000), ..Opts::default() };
    Counter::new(Software::CpuClock, (Proc::CURRENT, Cpu::ALL), options).map(drop).map_err(|error| {
        Error::Machine(format!(
            "the kernel refuses perf events ({error}), which flamewalk, perf and the floor need: set \
             kernel.perf_event_paranoid to 2 or less, and allow perf_event_open in a container"
        ))
    })
}

/// What anyone who compares numbers wants to know.
pub fn description() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let is_virtual = cpu.contains(" hypervisor");
    // What else ran would have been charged to whoever was interrupted by it.
    let quiet = match load() {
        Some(load) if load > MOST_LOAD => "**Provisional: other programs ran meanwhile.** ",
        _ => "",
    };
    format!(
        "{quiet}{}, {cores} processors{}, Linux {}; load {} when the run began",
        field("model name"),
        if is_virtual { " of a virtual machine" } else { "" },
        kernel.trim(),
        load().map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}")),
    )
}

/// How many threads wanted to run on average in the last minute.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

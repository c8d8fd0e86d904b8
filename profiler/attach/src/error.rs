//! Why a process cannot be profiled from outside.

use std::io;

/// Why a process cannot be profiled from outside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such process.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number that was given.
        pid: i32,
    },
    /// The number is that of a thread.
    #[error("{pid} is a thread of process {process}; attach to {process}, and choose threads with --tid")]
    IsThread {
        /// The number that was given.
        pid: i32,
        /// The process that it belongs to.
        process: i32,
    },
    /// The process has no such thread.
    #[error("process {pid} has no thread {thread}")]
    NoThread {
        /// The process.
        pid: i32,
        /// The number that was given.
        thread: i32,
    },
    /// The process belongs to somebody else, or has more rights than this one.
    #[error(
        "process {pid} belongs to user {owner} or has rights that this user has not; run as its user, or as root"
    )]
    NotOurs {
        /// The process.
        pid: i32,
        /// The user that it belongs to.
        owner: u32,
    },
    /// A thread of the kernel, or a process that has ended and waits for its parent.
    #[error("process {pid} runs no program: it has ended, or belongs to the kernel")]
    NoProgram {
        /// The process.
        pid: i32,
    },
    /// A program for another processor.
    #[error("process {pid} runs {what}; only programs for 64-bit x86-64 can be profiled from outside")]
    OtherMachine {
        /// The process.
        pid: i32,
        /// What its program was made for.
        what: String,
    },
    /// Its memory may not be read.
    #[error("the memory of process {pid} may not be read: {}", memory_remedy(*ptrace_scope))]
    MemoryRefused {
        /// The process.
        pid: i32,
        /// What Yama's setting is, if the kernel has it.
        ptrace_scope: Option<u8>,
    },
    /// The kernel refuses perf events.
    #[error("perf events are refused ({source}): {}", perf_remedy(*paranoid))]
    PerfRefused {
        /// The value of `kernel.perf_event_paranoid`, if it can be read.
        paranoid: Option<i32>,
        /// What the kernel says.
        source: io::Error,
    },
    /// There is no memory for a ring that samples go through.
    #[error(
        "no memory can be locked for samples ({source}); raise `ulimit -l` or kernel.perf_event_mlock_kb, or end other profilers"
    )]
    NoRing {
        /// What the kernel says.
        source: io::Error,
    },
    /// More files than may be open are needed.
    #[error(
        "{needed} files have to be open for the {threads} threads of process {pid}; raise `ulimit -n`, or choose threads with --tid"
    )]
    TooManyFiles {
        /// The process.
        pid: i32,
        /// How many threads it has.
        threads: usize,
        /// How many files that takes.
        needed: usize,
    },
    /// No code that Wasmtime has compiled is in its memory.
    #[error(
        "process {pid} has no code that Wasmtime has compiled; if it loads guests later, attach with --wait"
    )]
    NoWasmtime {
        /// The process.
        pid: i32,
    },
    /// There is code of Wasmtime's, and none of it is understood.
    #[error("no code that Wasmtime has compiled in process {pid} is understood: {reason}")]
    UnknownImage {
        /// The process.
        pid: i32,
        /// What is wrong with the first of them.
        reason: String,
    },
    /// A setting is out of its bounds.
    #[error("{what} cannot be {value}; it can be {bounds}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// What is possible.
        bounds: &'static str,
    },
    /// A file of symbols cannot be used.
    #[error("the symbols of `{name}` cannot be used: {}", one_line(source))]
    Symbols {
        /// The file's name.
        name: String,
        /// Why.
        source: flamewalk_symbolizer::Error,
    },
    /// The system refuses something else.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The collector has failed.
    #[error(transparent)]
    Collector(#[from] flamewalk_collector::CollectorGone),
    /// The profile cannot be made.
    #[error(transparent)]
    Profile(#[from] flamewalk_profile::ProfileError),
    /// The thread that samples has panicked.
    #[error("the sampling thread has panicked; its samples are lost")]
    SamplerGone,
}

/// What a parser says of what it has found can take several lines.
fn one_line(error: &impl std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn memory_remedy(ptrace_scope: Option<u8>) -> String {
    match ptrace_scope {
        Some(scope @ 1..) => format!(
            "kernel.yama.ptrace_scope is {scope}; set it to 0, or give flamewalk the capability CAP_SYS_PTRACE"
        ),
        _ => "the kernel refuses it; run as the process's user, or give flamewalk the capability CAP_SYS_PTRACE".into(),
    }
}

fn perf_remedy(paranoid: Option<i32>) -> String {
    match paranoid {
        Some(level @ 3..) => format!(
            "kernel.perf_event_paranoid is {level}; set it to 2, or give flamewalk the capability CAP_PERFMON"
        ),
        _ => "a container's seccomp profile may forbid perf_event_open; allow it, or run outside of the container".into(),
    }
}

//! The timer that our own is held against: its period is always the same, as that of most samplers is.
//!
//! It notes which instruction was interrupted and nothing else. The guest's functions are told apart by where their code
//! lies, so that nothing of the profiler is involved.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use perf_event_open::config::{Cpu, Opts, Proc, SampleOn};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;
use wasmtime::Module;

use crate::fit::Batches;
use crate::sampling::BATCHES;

const CAPACITY: usize = 1 << 17;
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static INTERRUPTED: [AtomicUsize; CAPACITY] = [const { AtomicUsize::new(0) }; CAPACITY];

/// Async-signal-safe: yes; it loads and stores. All of it happens on one thread, and needs no order.
extern "C" fn note(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the interrupted thread's context to a handler that was installed with `SA_SIGINFO`.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let instruction = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    let position = TAKEN.fetch_add(1, Ordering::Relaxed);
    if let Some(place) = INTERRUPTED.get(position) {
        place.store(instruction, Ordering::Relaxed);
    }
}

/// Runs `guest` on this thread, which is interrupted each `period` nanoseconds of its CPU time, and returns how many of
/// the interrupted instructions are in each of these functions, and in none of them.
pub(crate) fn sample(module: &Module, functions: &[&str], period: u64, guest: impl FnOnce()) -> Batches {
    const F_SETSIG: i32 = 10;
    TAKEN.store(0, Ordering::Relaxed);
    let handler = SigAction::new(
        SigHandler::SigAction(note),
        SaFlags::SA_RESTART | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler is async-signal-safe, and stays valid for the life of the process.
    unsafe { sigaction(Signal::SIGUSR1, &handler) }.unwrap();
    let options = Opts { sample_on: SampleOn::Count(period), ..Opts::default() };
    let timer = Counter::new(Software::CpuClock, (Proc::CURRENT, Cpu::ALL), options).unwrap();
    let descriptor = timer.file().as_raw_fd();
    // SAFETY: `fcntl` on a descriptor that is open, with arguments of the types that the commands take.
    let results = unsafe {
        [
            libc::fcntl(descriptor, libc::F_SETOWN, libc::gettid()),
            libc::fcntl(descriptor, F_SETSIG, libc::SIGUSR1),
            libc::fcntl(descriptor, libc::F_SETFL, libc::O_ASYNC),
        ]
    };
    assert!(!results.contains(&-1), "{}", std::io::Error::last_os_error());
    timer.enable().unwrap();
    guest();
    timer.disable().unwrap();

    let code = module.text().as_ptr().addr();
    let part_of = |instruction: usize| {
        let inside =
            |start: usize, length: usize| (code + start..code + start + length).contains(&instruction);
        let function = module.functions().find(|function| inside(function.offset, function.len))?;
        functions.iter().position(|known| Some(*known) == function.name.as_deref())
    };
    let taken = TAKEN.load(Ordering::Relaxed).min(CAPACITY);
    let batch = |places: &[AtomicUsize]| {
        let mut counts = vec![0; functions.len() + 1];
        for place in places {
            counts[part_of(place.load(Ordering::Relaxed)).unwrap_or(functions.len())] += 1;
        }
        counts
    };
    Batches(INTERRUPTED[..taken].chunks(taken.div_ceil(BATCHES)).map(batch).collect())
}

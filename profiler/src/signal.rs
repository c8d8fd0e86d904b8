//! The signal handler's entry, its installation, and the handler that was there before.
//!
//! ```text
//!   start ──▶ ours installed, what was there before kept ──▶ all sources closed ──▶ SIG_IGN ──▶ what was there before
//!             signals that are not ours go on to it          (profiler dropped)     discards what is on its way
//! ```
//!
//! Between sessions the handler stays: a signal that is still on its way must not meet the default action, which ends
//! the process. When the profiler goes, the signal is ignored for a moment first, which has the kernel discard what
//! is pending on any thread. A handler that someone else has installed meanwhile is left alone; ours is then still
//! reached through it, and only passes signals on.
//!
//! # What a late signal may touch
//!
//! The handler can be running on another thread at any time, whatever is installed. It uses statics, the thread-local
//! pointer below, whose target lives until its own thread lets go of it, and what [`Thread::on_signal`] reads between
//! entering and leaving the registry, for which everyone who frees any of it waits.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use flamewalk_handler::arch::Registers;
use flamewalk_handler::cycles;
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::error::Error;
use crate::source::SignalInfo;
use crate::thread::Thread;

/// Signals that mean nothing to the host unless it says so: neither faults, nor how it is ended, nor its children.
pub(crate) const USABLE: [Signal; 11] = [
    Signal::SIGPROF,
    Signal::SIGVTALRM,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGTRAP,
];

/// # Errors
///
/// [`Error::Signal`] if the profiler cannot use the signal.
pub(crate) fn check(signal: Signal) -> Result<(), Error> {
    if USABLE.contains(&signal) { Ok(()) } else { Err(Error::Signal { signal }) }
}

thread_local! {
    /// What the handler works with on this thread; null on threads that are not sampled.
    ///
    /// Constant and without a destructor, so that an access is a plain load. It is first accessed by ordinary
    /// code of the thread ([`set_current`]), which sees to it that the handler never makes it be allocated.
    static CURRENT: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

/// Our handler's place for one signal. Only one profiler at a time changes it.
struct Place {
    /// What was there before ours, the last time; never freed, since a handler may be using it.
    previous: AtomicPtr<SigAction>,
    /// Whether ours is installed, or is perhaps reached from what was installed later.
    taken: AtomicBool,
}

const SIGNALS: usize = 32;
static PLACES: [Place; SIGNALS] =
    [const { Place { previous: AtomicPtr::new(ptr::null_mut()), taken: AtomicBool::new(false) } }; SIGNALS];

fn place(signal: i32) -> Option<&'static Place> {
    PLACES.get(usize::try_from(signal).ok()?)
}

/// Has signals of this thread handled with `thread`, or not at all.
///
/// # Safety
///
/// `thread` must stay valid until the thread ends or calls this again.
pub(crate) unsafe fn set_current(thread: *const Thread) {
    CURRENT.with(|current| current.set(thread));
}

/// Installs the handler for `signal`, unless it is there already. Returns a notice if signals may not arrive.
pub(crate) fn install(signal: Signal) -> Result<Option<String>, Error> {
    check(signal)?;
    let Some(place) = place(signal as i32) else { return Err(Error::Signal { signal }) };
    let failed = || Error::system("install the signal handler");
    if place.taken.load(Ordering::Acquire) {
        match installed(signal).map_err(failed())? {
            handler if handler == ours() => return Ok(None),
            // Who has installed it restored what was there before ours, or gave it up. Nothing leads to ours any more.
            libc::SIG_DFL | libc::SIG_IGN => {}
            _ => {
                // To come before it as well could make a circle of two handlers that pass signals on to each other.
                return Ok(Some(format!(
                    "another handler of {signal} was installed after the profiler's: there are samples only if it \
                     passes signals on"
                )));
            }
        }
    }
    // SA_SIGINFO: the source is told from the information. SA_ONSTACK: the guest may be at the end of its stack,
    // and Wasmtime gives threads an alternate one. SA_RESTART: system calls of the host go on.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::SigAction(on_signal), flags, SigSet::empty());
    // SAFETY: `on_signal` is async-signal-safe.
    let previous = unsafe { sigaction(signal, &action) }.map_err(failed())?;
    // SAFETY: null, or from `Box::into_raw` below and never freed.
    let kept = unsafe { place.previous.load(Ordering::Acquire).as_ref() };
    if kept != Some(&previous) {
        // Pair: the loads in `call_previous` and `restore`.
        place.previous.store(Box::into_raw(Box::new(previous)), Ordering::Release);
    }
    place.taken.store(true, Ordering::Release);
    Ok(None)
}

/// Puts back what was there before [`install`], unless someone has put something else over it. To be called when all
/// sources of the signal are closed.
pub(crate) fn restore(signal: Signal) {
    let Some(place) = place(signal as i32).filter(|place| place.taken.load(Ordering::Acquire)) else {
        return;
    };
    // SAFETY: as in `install`.
    let Some(previous) = (unsafe { place.previous.load(Ordering::Acquire).as_ref() }) else { return };
    match replace_ours(signal, previous) {
        Ok(true) => place.taken.store(false, Ordering::Release),
        Ok(false) => tracing::debug!("{signal} has another handler by now, which stays"),
        Err(error) => tracing::warn!("cannot restore the handler of {signal}: {error}"),
    }
}

/// Whether our handler was installed, and was replaced.
fn replace_ours(signal: Signal, previous: &SigAction) -> nix::Result<bool> {
    if installed(signal)? != ours() {
        return Ok(false);
    }
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code. Pending signals are discarded by that.
    let replaced = unsafe { sigaction(signal, &ignore) }?;
    let is_ours = matches!(replaced.handler(), SigHandler::SigAction(handler) if handler as usize == ours());
    // Another thread may have been quicker since the first look: its handler comes back.
    let restored = if is_ours { previous } else { &replaced };
    // SAFETY: what was installed before, by whoever could vouch for it.
    unsafe { sigaction(signal, restored) }?;
    Ok(is_ours)
}

/// The handler that is installed for `signal`.
fn installed(signal: Signal) -> nix::Result<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is installed; the action is written if the call succeeds.
    let result = unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: it has succeeded.
    Errno::result(result).map(|_| unsafe { action.assume_init() }.sa_sigaction)
}

fn ours() -> libc::sighandler_t {
    on_signal as extern "C" fn(_, _, _) as usize
}

/// Async-signal-safe: yes. It reads the interrupted registers, hands them to [`Thread::on_signal`], which is, and
/// keeps `errno`.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let entered = cycles::now();
    // SAFETY: `errno` of this thread.
    let errno = unsafe { *libc::__errno_location() };
    let thread = CURRENT.with(Cell::get);
    // SAFETY: `set_current`'s caller keeps it valid while it is set on this thread.
    let ours = unsafe { thread.as_ref() }.is_some_and(|thread| {
        // SAFETY: the kernel passes a valid `siginfo_t` and `ucontext_t` to a handler with SA_SIGINFO.
        let (info, registers) = unsafe { (signal_info(info), interrupted_registers(context)) };
        thread.on_signal(&info, &registers, entered)
    });
    if !ours {
        // SAFETY: what the kernel has passed.
        unsafe { call_previous(signal, info, context) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// # Safety
///
/// The arguments must be what the kernel has passed to a handler.
unsafe fn call_previous(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(place) = place(signal) else { return };
    // Pair: the store in `install`; what is stored there is never freed.
    // SAFETY: null, or from `Box::into_raw`.
    match unsafe { place.previous.load(Ordering::Acquire).as_ref() }.map(SigAction::handler) {
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        // The kernel lets nobody ignore them.
        Some(SigHandler::SigDfl | SigHandler::SigIgn)
            // SAFETY: the caller's promise.
            if signal == libc::SIGTRAP && unsafe { signal_info(info) }.is_breakpoint() =>
        {
            end_process(signal);
        }
        // Mostly a tick that was on its way when its source was closed.
        _ => {}
    }
}

/// Has a breakpoint of the host end the process, as it would without us, as soon as the handler returns.
///
/// Async-signal-safe: yes.
fn end_process(signal: i32) {
    // SAFETY: the default action runs no code, and both calls may be made in a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// # Safety
///
/// `info` must be what the kernel passed to a handler.
unsafe fn signal_info(info: *const libc::siginfo_t) -> SignalInfo {
    // The layout of siginfo_t on 64-bit Linux: three words of 32 bits (number, errno, code), padding, then a
    // union: for files a 64-bit band and the descriptor; for timers the timer's id, the overrun and the value; for perf
    // events that signal by themselves an address and the value.
    let words = info.cast::<i32>();
    // SAFETY: siginfo_t has 128 bytes, all of which the kernel has written; any bits are an `i32` or `usize`.
    unsafe {
        SignalInfo {
            code: words.add(2).read(),
            descriptor: words.add(6).read(),
            overrun: words.add(5).read(),
            value: words.add(6).cast::<usize>().read(),
        }
    }
}

/// # Safety
///
/// `context` must be what the kernel passed to a handler.
#[cfg(target_arch = "x86_64")]
unsafe fn interrupted_registers(context: *const libc::c_void) -> Registers {
    // SAFETY: the caller's promise.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |index: i32| registers[index as usize].cast_unsigned() as usize;
    Registers { pc: register(libc::REG_RIP), sp: register(libc::REG_RSP), fp: register(libc::REG_RBP), lr: 0 }
}

/// # Safety
///
/// `context` must be what the kernel passed to a handler.
#[cfg(target_arch = "aarch64")]
unsafe fn interrupted_registers(context: *const libc::c_void) -> Registers {
    // SAFETY: the caller's promise.
    let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    Registers {
        pc: machine.pc as usize,
        sp: machine.sp as usize,
        fp: machine.regs[29] as usize,
        lr: machine.regs[30] as usize,
    }
}

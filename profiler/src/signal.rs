//! The signal handler's entry, its installation, and the handler that was there before.
//!
//! The handler is installed once and stays: a signal that is still on its way when sampling stops must not meet
//! the default action, which ends the process. A signal that is not from one of our sources goes on to the
//! handler that was there before.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use flamewalk_handler::arch::Registers;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::error::Error;
use crate::source::SignalInfo;
use crate::thread::Thread;

thread_local! {
    /// What the handler works with on this thread; null on threads that are not sampled.
    ///
    /// Constant and without a destructor, so that an access is a plain load. It is first accessed by ordinary
    /// code of the thread ([`set_current`]), which sees to it that the handler never makes it be allocated.
    static CURRENT: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

/// The handler that was installed before ours, if it was one; never freed.
static PREVIOUS: AtomicPtr<SigAction> = AtomicPtr::new(ptr::null_mut());
static INSTALLED: Mutex<Option<Signal>> = Mutex::new(None);

/// Has signals of this thread handled with `thread`, or not at all.
///
/// # Safety
///
/// `thread` must stay valid until the thread ends or calls this again.
pub(crate) unsafe fn set_current(thread: *const Thread) {
    CURRENT.with(|current| current.set(thread));
}

/// Installs the handler for `signal`, unless it is there already.
pub(crate) fn install(signal: Signal) -> Result<(), Error> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed == Some(signal) {
        return Ok(());
    }
    // SA_SIGINFO: the source is told from the information. SA_ONSTACK: the guest may be at the end of its stack,
    // and Wasmtime gives threads an alternate one. SA_RESTART: system calls of the host go on.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::SigAction(on_signal), flags, SigSet::empty());
    // SAFETY: `on_signal` is async-signal-safe.
    let previous =
        unsafe { sigaction(signal, &action) }.map_err(Error::system("install the signal handler"))?;
    if matches!(previous.handler(), SigHandler::Handler(_) | SigHandler::SigAction(_)) {
        PREVIOUS.store(Box::into_raw(Box::new(previous)), Ordering::Release);
    }
    *installed = Some(signal);
    Ok(())
}

/// Async-signal-safe: yes. It reads the interrupted registers, hands them to [`Thread::on_signal`], which is, and
/// keeps `errno`.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `errno` of this thread.
    let errno = unsafe { *libc::__errno_location() };
    let thread = CURRENT.with(Cell::get);
    // SAFETY: `set_current`'s caller keeps it valid while it is set on this thread.
    let ours = unsafe { thread.as_ref() }.is_some_and(|thread| {
        // SAFETY: the kernel passes a valid `siginfo_t` and `ucontext_t` to a handler with SA_SIGINFO.
        let (info, registers) = unsafe { (signal_info(info), interrupted_registers(context)) };
        thread.on_signal(&info, &registers)
    });
    if !ours {
        call_previous(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn call_previous(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // Pair: the store in `install`; what is stored there is never freed.
    // SAFETY: null, or from `Box::into_raw`.
    match unsafe { PREVIOUS.load(Ordering::Acquire).as_ref() }.map(SigAction::handler) {
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        _ => {}
    }
}

/// # Safety
///
/// `info` must be what the kernel passed to a handler.
unsafe fn signal_info(info: *const libc::siginfo_t) -> SignalInfo {
    // The layout of siginfo_t on 64-bit Linux: three words of 32 bits (number, errno, code), padding, then a
    // union: for files a 64-bit band and the descriptor; for timers the timer's id, the overrun and the value.
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

//! Runs code one instruction at a time.
//!
//! With the trap flag set, the processor raises an exception after each instruction, which arrives as `SIGTRAP`, whose
//! handler hands the registers to an [`Observer`]. Host code is stepped through like any other, unless the observer wants
//! to leap: then the flag is off, and the guests' code may not be executed, so that the first instruction of it that is
//! reached raises `SIGSEGV`, which goes on stepping right there. What the kernel runs, and signal handlers (Wasmtime's
//! own, for traps), are not stepped through: there the flag is off, and it is on again after the first instruction behind
//! them.

use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;

use flamewalk_handler::arch::Registers;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const PAGE: usize = 4096;
const TRAP_FLAG: i64 = 1 << 8;
/// The handler walks and compares on it, and so do Wasmtime's handlers, which keep a stack that is there already if it is
/// large enough.
const SIGNAL_STACK: usize = 1 << 20;

/// What to do after a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Execute one instruction.
    Step,
    /// From host code: go on until guest code is reached.
    Leap,
}

/// Is shown each boundary between two instructions.
pub(super) trait Observer {
    /// `registers` are those before the instruction at `registers.pc`.
    ///
    /// Called in a signal handler that can interrupt anything: must not allocate, lock or panic.
    fn boundary(&mut self, registers: &Registers) -> Next;
}

thread_local! {
    /// Constant and without a destructor, so that an access is a plain load.
    static CURRENT: Cell<*mut Stepping> = const { Cell::new(std::ptr::null_mut()) };
}

/// While there is one, its thread steps, or leaps. It ends on a panic, too.
struct Stepping {
    observer: *mut dyn Observer,
    /// The guests' code, as whole pages.
    pages: Vec<Range<usize>>,
    leaping: bool,
}

impl Stepping {
    /// Async-signal-safe: yes, but for failures, which end the process.
    fn set_leaping(&mut self, leaping: bool) {
        self.leaping = leaping;
        let protection = if leaping { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_EXEC };
        for pages in &self.pages {
            let address = std::ptr::with_exposed_provenance_mut(pages.start);
            // SAFETY: the pages hold guests' code and nothing else, which no other thread executes.
            if unsafe { libc::mprotect(address, pages.len(), protection) } != 0 {
                std::process::abort();
            }
        }
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        // The next trap finds this and takes the flag down.
        CURRENT.set(std::ptr::null_mut());
        if self.leaping {
            self.set_leaping(false);
        }
    }
}

/// Runs `run` and shows `observer` the boundaries that it asks for.
///
/// Nothing in `run` may block `SIGTRAP`, as starting a thread does: the kernel would end the process. No other thread may
/// run code in `texts`, which must be that of guests, mapped page by page.
pub(super) fn step_through<R>(
    observer: &mut (impl Observer + 'static),
    texts: impl Iterator<Item = Range<usize>>,
    run: impl FnOnce() -> R,
) -> R {
    install();
    signal_stack();
    let pages = texts.map(|text| text.start..text.end.next_multiple_of(PAGE)).collect();
    let mut stepping = Stepping { observer, pages, leaping: false };
    let before = CURRENT.replace(&raw mut stepping);
    assert!(before.is_null(), "stepping does not nest");
    // SAFETY: sets the trap flag and changes nothing else.
    unsafe {
        std::arch::asm!("pushfq", "or qword ptr [rsp], {flag}", "popfq", flag = const TRAP_FLAG);
    }
    let result = run();
    drop(stepping);
    result
}

/// The handler of `SIGSEGV` that was there before: Wasmtime's.
static PREVIOUS: OnceLock<SigAction> = OnceLock::new();

/// Installs the handlers. There must have been an engine, whose handlers ours must come before.
fn install() {
    PREVIOUS.get_or_init(|| {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
        let handler = |handle| SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
        // SAFETY: `on_trap` and `on_fault` are async-signal-safe if the observer is, which its trait demands.
        unsafe {
            sigaction(Signal::SIGTRAP, &handler(on_trap)).expect("SIGTRAP can be handled");
            sigaction(Signal::SIGSEGV, &handler(on_fault)).expect("SIGSEGV can be handled")
        }
    });
}

/// Gives the calling thread a signal stack, for as long as the process.
fn signal_stack() {
    thread_local!(static STACK: () = {
        let memory = Box::leak(vec![0u8; SIGNAL_STACK].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
        // SAFETY: the memory is never freed and used for nothing else.
        assert_eq!(unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) }, 0);
    });
    STACK.with(|()| ());
}

extern "C" fn on_trap(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `step_through` keeps it while it is set, and uses it only when this thread is not in a handler.
    match unsafe { CURRENT.get().as_mut() } {
        Some(stepping) => boundary(stepping, context),
        // SAFETY: the kernel passes a valid `ucontext_t` to a handler with SA_SIGINFO.
        None => unsafe { *flags(context) &= !TRAP_FLAG },
    }
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` and `ucontext_t` to a handler with SA_SIGINFO; for `CURRENT` see
    // `on_trap`.
    let (address, registers, stepping) =
        unsafe { ((*info).si_addr().addr(), registers(context), CURRENT.get().as_mut()) };
    let landed = |stepping: &Stepping| {
        stepping.leaping
            && address == registers.pc
            && stepping.pages.iter().any(|pages| pages.contains(&address))
    };
    match stepping {
        Some(stepping) if landed(stepping) => {
            stepping.set_leaping(false);
            boundary(stepping, context);
        }
        _ => match PREVIOUS.get().map(SigAction::handler) {
            Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
            Some(SigHandler::Handler(handler)) => handler(signal),
            _ => std::process::abort(),
        },
    }
}

fn boundary(stepping: &mut Stepping, context: *mut libc::c_void) {
    // SAFETY: `step_through` has the observer borrowed while `stepping` is set, and handlers do not nest. For the context
    // see `on_trap`.
    let (next, flags) = unsafe { ((*stepping.observer).boundary(&registers(context)), &mut *flags(context)) };
    match next {
        Next::Step => *flags |= TRAP_FLAG,
        Next::Leap => {
            *flags &= !TRAP_FLAG;
            stepping.set_leaping(true);
        }
    }
}

/// # Safety
///
/// `context` must be what the kernel passed to a handler.
unsafe fn registers(context: *const libc::c_void) -> Registers {
    // SAFETY: the caller's promise.
    let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |index: i32| machine[index as usize].cast_unsigned() as usize;
    Registers { pc: register(libc::REG_RIP), sp: register(libc::REG_RSP), fp: register(libc::REG_RBP), lr: 0 }
}

/// # Safety
///
/// As of [`registers`].
unsafe fn flags(context: *mut libc::c_void) -> *mut i64 {
    // SAFETY: the caller's promise.
    unsafe { &raw mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_EFL as usize] }
}

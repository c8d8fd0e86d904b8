//! The signal's handler: passed on to, put back, and never the end of the process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use flamewalk::{Options, Profiler};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, raise, sigaction,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::support::{KnownAnswer, alone, options, stop};

static CALLS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn count_with_information(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

fn action(handler: SigHandler) -> SigAction {
    let with_information = matches!(handler, SigHandler::SigAction(_));
    let flags = if with_information { SaFlags::SA_SIGINFO } else { SaFlags::empty() };
    SigAction::new(handler, flags | SaFlags::SA_RESTART, SigSet::empty())
}

/// Installs and returns what was there.
fn install(signal: Signal, action: &SigAction) -> SigAction {
    // SAFETY: what is installed here counts, or is what was there before.
    unsafe { sigaction(signal, action) }.unwrap()
}

/// What is installed, as [`address`] gives it.
fn installed(signal: Signal) -> usize {
    let now = install(signal, &action(SigHandler::SigIgn));
    install(signal, &now);
    address(now.handler())
}

/// What tells one handler from another.
fn address(handler: SigHandler) -> usize {
    match handler {
        SigHandler::SigDfl => libc::SIG_DFL,
        SigHandler::SigIgn => libc::SIG_IGN,
        SigHandler::Handler(handler) => handler as usize,
        SigHandler::SigAction(handler) => handler as usize,
    }
}

fn on(signal: Signal) -> Options {
    let mut options = options("cpu", 4_999);
    options.signal = signal;
    options
}

#[test]
fn the_handler_before_is_passed_on_to_and_comes_back() {
    let _alone = alone();
    for before in [SigHandler::Handler(count), SigHandler::SigAction(count_with_information)] {
        let original = install(Signal::SIGUSR2, &action(before));
        for _ in 0..3 {
            let profiler = Profiler::new(on(Signal::SIGUSR2)).unwrap();
            for _ in 0..2 {
                profiler.start().unwrap();
                assert_ne!(installed(Signal::SIGUSR2), address(before));
                let calls = CALLS.load(Ordering::Relaxed);
                raise(Signal::SIGUSR2).unwrap();
                assert_eq!(CALLS.load(Ordering::Relaxed), calls + 1, "while sampling");
                stop(&profiler);
                raise(Signal::SIGUSR2).unwrap();
                assert_eq!(CALLS.load(Ordering::Relaxed), calls + 2, "after sampling");
            }
            drop(profiler);
            assert_eq!(installed(Signal::SIGUSR2), address(before));
        }
        install(Signal::SIGUSR2, &original);
    }
}

#[test]
fn the_default_comes_back() {
    let _alone = alone();
    for signal in [Signal::SIGPROF, Signal::SIGUSR1] {
        assert_eq!(installed(signal), libc::SIG_DFL);
        let profiler = Profiler::new(on(signal)).unwrap();
        assert_eq!(installed(signal), libc::SIG_DFL, "nothing is installed before the start");
        profiler.start().unwrap();
        assert_ne!(installed(signal), libc::SIG_DFL);
        drop(profiler);
        assert_eq!(installed(signal), libc::SIG_DFL);
    }
}

#[test]
fn a_handler_that_came_later_stays() {
    const SIGNAL: Signal = Signal::SIGVTALRM;
    let later = SigHandler::Handler(count);
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Profiler::new(on(SIGNAL)).unwrap();
    profiler.start().unwrap();
    install(SIGNAL, &action(later));
    drop(profiler);
    assert_eq!(installed(SIGNAL), address(later));

    // It may pass signals on, or not: the profile says so.
    let profiler = Profiler::new(on(SIGNAL)).unwrap();
    profiler.start().unwrap();
    assert_eq!(installed(SIGNAL), address(later));
    let notices = stop(&profiler).metadata.notices;
    assert!(notices.iter().any(|notice| notice.contains("another handler of SIGVTALRM")), "{notices:?}");

    // Once it is gone, ours is installed again, and sampling goes on.
    install(SIGNAL, &action(SigHandler::SigDfl));
    let (mut store, run) = guest.attached_to(&profiler);
    profiler.start().unwrap();
    run.call(&mut store, 100).unwrap();
    assert!(stop(&profiler).total().samples > 0);
    drop(profiler);
    assert_eq!(installed(SIGNAL), libc::SIG_DFL);
}

/// A tick that a thread has blocked is still to come when the profiler goes. The default action would end the process.
#[test]
fn a_tick_that_is_on_its_way_is_discarded() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let ways = ["cpu", "cpu-timer", "wall"].map(|event| (event, Signal::SIGPROF));
    for (event, signal) in ways.into_iter().chain([("cpu", Signal::SIGTRAP)]) {
        let mut options = options(event, 4_999);
        options.signal = signal;
        let profiler = Profiler::new(options).unwrap();
        let (mut store, run) = guest.attached_to(&profiler);
        profiler.start().unwrap();
        let (blocked, is_blocked) = mpsc::channel();
        let (gone, is_gone) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let set = SigSet::from(signal);
            pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None).unwrap();
            run.call(&mut store, 100).unwrap();
            assert!(is_pending(signal), "{event}: no tick in a tenth of a second");
            blocked.send(()).unwrap();
            is_gone.recv().unwrap();
            pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None).unwrap();
            run.call(&mut store, 1).unwrap();
        });
        is_blocked.recv().unwrap();
        drop(profiler);
        gone.send(()).unwrap();
        thread.join().unwrap();
    }
}

/// It once was that a breakpoint of the host had no effect while its signal was the profiler's.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_breakpoint_ends_the_process_as_it_would_without_a_profiler() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let mut options = options("cpu", 4_999);
    options.signal = Signal::SIGTRAP;
    let profiler = Profiler::new(options).unwrap();
    let (mut store, run) = guest.attached_to(&profiler);
    profiler.start().unwrap();
    run.call(&mut store, 100).unwrap();
    // SAFETY: the child makes system calls and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // Nobody is to look at this breakpoint later.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            // SAFETY: a breakpoint touches nothing; neither does what ends the child without anything of the parent's.
            unsafe {
                std::arch::asm!("int3");
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).unwrap();
            assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGTRAP, _)), "{status:?}");
        }
    }
    assert!(stop(&profiler).total().samples > 0);
}

fn is_pending(signal: Signal) -> bool {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: written by the first call, and read if that succeeded.
    unsafe { libc::sigpending(set.as_mut_ptr()) == 0 && libc::sigismember(set.as_ptr(), signal as i32) == 1 }
}

//! The handler makes no system call and allocates nothing: shown on real signals, with each event source.
//!
//! The thread that runs the guest gives up all system calls (seccomp) but the return from a signal handler, then runs
//! guest code and host code that need none, under 9,997 samples a second. A single system call in the handler would
//! end the process. The allocator counts by thread meanwhile. A control makes one system call in the same place and
//! has to be killed for it; another one allocates and has to be counted.
//!
//! A program of its own (no test harness), since it ends with a thread that cannot even exit.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flamewalk::profile::Metadata;
use flamewalk::{Event, Guest, Options, Profiler};
use flamewalk_guests::{Guest as TestGuest, chain};
use wasmtime::{Caller, Engine, Linker, Module, Store};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the guest's thread does besides running the guest.
#[derive(Clone, Copy, PartialEq)]
enum Control {
    None,
    SystemCall,
    Allocation,
}

const SCENARIOS: &[(&str, &str, Control)] = &[
    ("cpu", "cpu", Control::None),
    ("wall", "wall", Control::None),
    ("cpu-timer", "cpu-timer", Control::None),
    ("control: a system call", "cpu", Control::SystemCall),
    ("control: an allocation", "cpu", Control::Allocation),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, name] = arguments.as_slice()
        && flag == "--scenario"
    {
        let (_, event, control) =
            SCENARIOS.iter().find(|(known, ..)| known == name).expect("a known scenario");
        run(event.parse().expect("a known event"), *control);
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut failed = 0;
    for (name, _, control) in SCENARIOS {
        let output =
            Command::new(&program).args(["--scenario", name]).output().expect("this program can run");
        let expected = match control {
            Control::None => output.status.code() == Some(0),
            Control::SystemCall => output.status.signal() == Some(libc::SIGSYS),
            Control::Allocation => output.status.code() == Some(3),
        };
        println!("test {name} ... {}", if expected { "ok" } else { "FAILED" });
        if !expected {
            failed += 1;
            println!("{:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
    }
    println!("\n{} passed, {failed} failed", SCENARIOS.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends the process: with 0 if the handler did neither, 3 if there were allocations, 1 if too little was sampled.
fn run(event: Event, control: Control) -> ! {
    let mut options = Options::default();
    options.event = event;
    options.rate = 9_997;
    let profiler = Profiler::new(options).expect("the only profiler");
    let engine = Engine::default();
    let wasm = std::fs::read(TestGuest::KnownAnswerHost.path()).expect("a committed guest");
    let module = Module::new(&engine, &wasm).expect("a valid guest");
    profiler.register_module(&module, Guest::named("guest").binary(wasm)).expect("a new module");

    let ended = Arc::new(AtomicBool::new(false));
    let allocations = Arc::new(AtomicU64::new(u64::MAX));
    let (guest_ended, guest_allocations) = (Arc::clone(&ended), Arc::clone(&allocations));
    let (attached, wait_for_attached) = std::sync::mpsc::channel();
    let (start, started) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let profiler = &profiler;
        scope.spawn(move || {
            let mut linker = Linker::new(&engine);
            let mut store = Store::new(&engine, Cell::new(true));
            let burn = move |caller: Caller<'_, Cell<bool>>, steps: i32| {
                if caller.data().replace(false) {
                    give_up_system_calls();
                    ALLOCATIONS.set(0);
                    match control {
                        Control::None => {}
                        // SAFETY: a system call without arguments.
                        Control::SystemCall => _ = black_box(unsafe { libc::syscall(libc::SYS_getppid) }),
                        Control::Allocation => drop(black_box(Box::new(1u64))),
                    }
                }
                black_box(chain(black_box(1), steps.unsigned_abs().into()));
            };
            linker.func_wrap("env", "burn", burn).expect("a new import");
            profiler.attach(&mut store).expect("a fresh store");
            let instance = linker.instantiate(&mut store, &module).expect("all imports");
            let run = instance.get_typed_func::<i32, i64>(&mut store, "run").expect("the export");
            attached.send(()).expect("the main thread waits");
            started.recv().expect("the main thread starts it");
            // About a second.
            let result = run.call(&mut store, black_box(1000));
            guest_allocations.store(ALLOCATIONS.get(), Ordering::Relaxed);
            // Pair: the load below.
            guest_ended.store(result.is_ok(), Ordering::Release);
            // Not even the end of the thread is possible any more.
            loop {
                spin_loop();
            }
        });
        wait_for_attached.recv().expect("the guest's thread gets there");
        profiler.start().expect("a valid plan");
        start.send(()).expect("the guest's thread waits");
        // Pair: the store above. The thread cannot wake anybody, so that this has to ask.
        while !ended.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let profile = profiler.stop(Metadata::default()).expect("it was started");
        let samples = profile.total().samples;
        let allocations = allocations.load(Ordering::Relaxed);
        eprintln!("{samples} samples, {allocations} allocations; {:?}", profile.metadata.statistics);
        // The slowest timer follows a kernel tick of at least 100 Hz.
        let status = match () {
            () if allocations != 0 => 3,
            () if samples < 50 => 1,
            () => 0,
        };
        std::process::exit(status);
    })
}

/// Has the kernel end the process at the next system call of this thread, other than the return from a handler.
fn give_up_system_calls() {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        // The system call's number, the first word of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_rt_sigreturn as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: calls that change only what this thread may ask of the kernel; the filter lives through its call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
    }
}

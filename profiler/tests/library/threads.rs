//! Threads: set up when they first run a guest, accounted for one by one, and gone without a trace.

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use flamewalk::Profiler;
use flamewalk::profile::Resources;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, SysconfVar, Uid, setgid, setuid, sysconf};

use crate::support::{
    KnownAnswer, alone, assert_between, clock_of, in_child, options, share, stop, switching_time,
    thread_cpu_time,
};

const EVENTS: [&str; 3] = ["cpu", "cpu-timer", "wall"];

/// What the process holds: open files, timers, tasks.
fn held() -> [usize; 3] {
    // Of a file or thread that goes meanwhile there is nothing to count.
    let entries = |folder: &str| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_perf_event =
        |file: &PathBuf| file.read_link().is_ok_and(|of| of.ends_with("anon_inode:[perf_event]"));
    let is_ours = |thread: &PathBuf| {
        std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "flamewalk")
    };
    let timers = std::fs::read_to_string("/proc/self/timers")
        .expect("the kernel lists timers (CONFIG_CHECKPOINT_RESTORE)");
    let timers = timers.lines().filter(|line| line.starts_with("ID:")).count();
    let events = entries("/proc/self/fd").filter(is_perf_event).count();
    [events, timers, entries("/proc/self/task").filter(is_ours).count()]
}

fn resources(profiler: &Profiler) -> Resources {
    profiler.statistics().unwrap().resources
}

/// It counted all threads and files of the process, also those of a test that was just ending; and where that was wrong, it
/// waited for its own threads for good.
#[test]
fn threads_that_run_no_guest_pay_nothing() {
    const IDLE: usize = 50;
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for event in EVENTS {
        let (ready, done) = (Barrier::new(IDLE + 1), Mutex::new(()));
        thread::scope(|scope| {
            let not_done = done.lock();
            for _ in 0..IDLE {
                scope.spawn(|| {
                    // A store that is not attached is none of the profiler's.
                    let (mut store, run) = guest.instantiate(|| {});
                    run.call(&mut store, 1).unwrap();
                    ready.wait();
                    run.call(&mut store, 1).unwrap();
                    drop(done.lock());
                });
            }
            ready.wait();
            let profiler = Profiler::new(options(event, 997)).unwrap();
            guest.register(&profiler);
            profiler.start().unwrap();
            let before = held();
            let nothing = resources(&profiler);
            assert_eq!((nothing.threads, nothing.stores, nothing.memory.rings), (0, 0, 0), "{event}");
            profiler.attach_thread().unwrap();
            let after = held();
            let grown: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            // A file for a perf event, or a timer, for this thread alone.
            let expected = if event == "cpu" && perf_is_used(&profiler) { [1, 0, 0] } else { [0, 1, 0] };
            assert_eq!(grown, expected, "{event}");
            let resources = resources(&profiler);
            assert_eq!((resources.threads, resources.stores), (1, 0), "{event}");
            assert_eq!(resources.memory.rings, resources.ring_size, "{event}: more than one ring");
            drop(not_done);
            stop(&profiler);
        });
    }
}

/// Perf events can be refused; then there are timers.
fn perf_is_used(profiler: &Profiler) -> bool {
    let profile = profiler.snapshot(Default::default()).unwrap();
    profile.metadata.engine.unwrap().starts_with("perf")
}

#[test]
fn a_thread_can_be_set_up_by_hand_and_goes_when_it_ends() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    // Wasmtime keeps a file for the guest's memory from its first instance on.
    guest.truth(0);
    let profiler = Profiler::new(options("cpu", 997)).unwrap();
    guest.register(&profiler);
    profiler.start().unwrap();
    let before = held();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (mut store, run) = guest.instantiate(|| {});
            profiler.attach(&mut store).unwrap();
            assert_eq!((resources(&profiler).threads, resources(&profiler).stores), (0, 1));
            profiler.attach_thread().unwrap();
            let set_up = held();
            profiler.attach_thread().unwrap();
            run.call(&mut store, 1).unwrap();
            assert_eq!(held(), set_up, "set up again");
            assert_eq!(resources(&profiler).threads, 1);
        });
        thread.join().unwrap();
    });
    assert_eq!((resources(&profiler).threads, resources(&profiler).stores), (0, 0));
    assert_eq!(held(), before);
    stop(&profiler);
}

/// What a thread leaves behind would be there ten thousand times.
#[test]
fn ten_thousand_threads_leave_nothing_behind() {
    const THREADS: u32 = 10_000;
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for (event, threads) in [("cpu", THREADS), ("wall", THREADS / 10), ("cpu-timer", THREADS / 10)] {
        let mut options = options(event, 4_999);
        options.ring_words = 512;
        let profiler = Profiler::new(options).unwrap();
        guest.register(&profiler);
        profiler.start().unwrap();
        let (mut store, run) = guest.instantiate(|| {});
        profiler.attach(&mut store).unwrap();
        let before = held();
        for _ in 0..threads {
            thread::scope(|scope| scope.spawn(|| run.call(&mut store, 1)).join()).unwrap().unwrap();
        }
        drop(store);
        assert_eq!((resources(&profiler).threads, resources(&profiler).stores), (0, 0), "{event}");
        // The collector has answered, and so does not hold a source any more.
        assert_eq!(held(), before, "{event}");
        let profile = stop(&profiler);
        // A round takes about a millisecond, which is five ticks; the CPU timer's ticks are rarer than that.
        assert!(profile.total().samples > u64::from(threads) / 100, "{event}: {:?}", profile.total());
        let notices = &profile.metadata.notices;
        assert!(!notices.iter().any(|notice| notice.contains("not sampled")), "{event}: {notices:?}");
    }
}

/// It once was that threads for which there were no files or no locked memory left were not sampled at all, and that rights were
/// said to be missing.
#[test]
fn threads_beyond_the_limits_of_perf_events_are_sampled_by_timers() {
    // Half of eight threads get a file.
    let few_files = || {
        let open: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let fifth = open[4].as_raw_fd() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, fifth, fifth).unwrap();
    };
    sampled_all("Too many open files", few_files, 8);
    // What perf events may lock nevertheless, for each processor, is shared by all processes of a user: this is nobody else.
    let little_memory = || {
        setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).unwrap();
        let (_, most_files) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most_files, most_files).unwrap();
        // A user namespace does not have all users, and root there has no right to lock more.
        let _ = setgid(Gid::from_raw(NOBODY)).and_then(|()| setuid(Uid::from_raw(NOBODY)));
    };
    let number = |name: &str| -> i64 {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
        text.trim().parse().unwrap()
    };
    if number("perf_event_paranoid") < 0 {
        println!("NOT RUN: perf_event_paranoid is below 0, and memory has no limit");
        return;
    }
    let processors = sysconf(SysconfVar::_NPROCESSORS_ONLN).unwrap().unwrap();
    // Each thread takes two pages of 4 KiB.
    let most = number("perf_event_mlock_kb") * processors / 8;
    if most > MOST_THREADS {
        println!("NOT RUN: it takes {most} threads to lock all of the memory that perf events may lock");
        return;
    }
    sampled_all("no more memory can be locked", little_memory, most as usize + 20);
}

/// So many get their ticks on a few processors, before the test is given up.
const MOST_THREADS: i64 = 600;
/// A user that has no processes.
const NOBODY: u32 = 61_003;

/// Has so many threads run a guest, under a limit, of which a notice says that it was reached.
fn sampled_all(notice: &str, limit: impl FnOnce(), threads: usize) {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    // Wasmtime keeps a file for the guest's memory from its first instance on, too.
    guest.check();
    in_child(|| {
        limit();
        let mut options = options("cpu", 97);
        options.ring_words = 1 << 12;
        let profiler = Profiler::new(options).unwrap();
        guest.register(&profiler);
        profiler.start().unwrap();
        if !perf_is_used(&profiler) {
            println!("NOT RUN: perf events are refused");
            return;
        }
        let (ready, done) = (Barrier::new(threads), Barrier::new(threads));
        let run = || {
            let (mut store, run) = guest.instantiate(|| {});
            // Without compiling, which Wasmtime cannot do there.
            let _attached = profiler.hook_with(&mut store, run.func()).unwrap();
            profiler.attach_thread().unwrap();
            ready.wait();
            let begun = thread_cpu_time();
            // Some ten ticks.
            while thread_cpu_time() - begun < 0.1 {
                run.call(&mut store, 10).unwrap();
            }
            done.wait();
        };
        thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(run)));
        let profile = stop(&profiler);
        let notices = &profile.metadata.notices;
        assert!(notices.iter().any(|said| said.contains(notice)), "{notices:?}");
        assert!(!notices.iter().any(|said| said.contains("not sampled")), "{notices:?}");
        assert_eq!(profile.threads().len(), threads, "threads that have samples");
    });
}

/// A host call that panics takes its guest and, if nobody catches it, its thread with it.
#[test]
fn threads_that_panic_in_a_host_call_leave_the_others_alone() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let truth = guest.truth(20);
    for event in EVENTS {
        let profiler = Profiler::new(options(event, 9_973)).unwrap();
        guest.register(&profiler);
        profiler.start().unwrap();
        let panics = || {
            // Without a message: the hook would print one for each.
            let (mut store, run) = guest.instantiate(|| std::panic::resume_unwind(Box::new(())));
            profiler.attach(&mut store).unwrap();
            run.call(&mut store, 1).unwrap()
        };
        for _ in 0..20 {
            let ended = thread::scope(|scope| scope.spawn(panics).join());
            assert!(ended.is_err());
            // The same, caught: the thread goes on with other guests.
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            let (mut store, run) = guest.instantiate(|| {});
            profiler.attach(&mut store).unwrap();
            assert_eq!(run.call(&mut store, 20).unwrap(), truth);
        }
        assert_eq!(resources(&profiler).threads, 1, "{event}: only this one is left");
        let profile = stop(&profiler);
        assert_eq!(profile.metadata.statistics.total_lost().samples, 0, "{event}");
        assert_eq!(share(&profile, |stack| stack[0] == "run"), 1.0, "{event}");
    }
}

/// The process ends while threads are in guests and ticks arrive, on another thread or in a host call of the guest's own.
#[test]
fn the_process_can_exit_while_guests_are_sampled() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    guest.check();
    for (event, in_host_call) in EVENTS.into_iter().flat_map(|event| [(event, false), (event, true)]) {
        // Profiled in the child, which is the process that exits.
        in_child(|| {
            let profiler = Profiler::new(options(event, 20_000)).unwrap();
            guest.register(&profiler);
            profiler.start().unwrap();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let calls = AtomicU32::new(0);
                        let (mut store, run) = guest.instantiate(move || {
                            if in_host_call && calls.fetch_add(1, Ordering::Relaxed) == 500 {
                                std::process::exit(0);
                            }
                        });
                        let _attached = profiler.hook_with(&mut store, run.func()).unwrap();
                        profiler.attach_thread().unwrap();
                        loop {
                            run.call(&mut store, 10).unwrap();
                        }
                    });
                }
                while profiler.statistics().unwrap().delivered.samples == 0 {
                    thread::yield_now();
                }
                if !in_host_call {
                    std::process::exit(0);
                }
            });
            panic!("the process goes on");
        });
    }
}

/// Each thread's weight in the profile is the time that it has had.
#[test]
fn totals_are_exact_for_each_thread() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    for event in ["cpu", "cpu-timer"] {
        let profiler = Profiler::new(options(event, 997)).unwrap();
        guest.register(&profiler);
        profiler.start().unwrap();
        let times: Vec<_> = thread::scope(|scope| {
            let work = |rounds| {
                let (mut store, run) = guest.instantiate(|| {});
                profiler.attach(&mut store).unwrap();
                // The first entry makes the thread known, and starts its clock.
                let (clock, switching) = (clock_of(event), switching_time(event));
                let around = clock();
                run.call(&mut store, 0).unwrap();
                let within = clock();
                run.call(&mut store, rounds).unwrap();
                let after = clock();
                let switching = switching_time(event) - switching;
                (nix::unistd::gettid().as_raw().unsigned_abs(), after - within, after - around + switching)
            };
            let threads = [900, 300, 600, 100].map(|rounds| scope.spawn(move || work(rounds)));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let profile = stop(&profiler);
        let outside = profile.metadata.statistics.outside.weight as f64 / 1e9;
        let threads: Vec<_> = profile.threads().collect();
        assert_eq!(threads.len(), times.len(), "{event}: {threads:?}");
        for (id, least, most) in times {
            let (thread, _) = threads.iter().find(|thread| thread.1.id == u64::from(id)).unwrap();
            let samples = profile.samples().filter(|sample| sample.origin.thread == Some(*thread));
            let counted = samples.map(|sample| sample.tally.weight).sum::<u64>() as f64 / 1e9;
            println!("{event}, thread {id}: {counted:.4} of {least:.4} to {most:.4} s");
            assert_between(event, 997, counted, least - outside, most);
        }
    }
}

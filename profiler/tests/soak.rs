//! Everything at once: threads that come and go, asynchronous guests, modules that are loaded and dropped, starts, stops,
//! pauses, rates, snapshots, windows and labels from several threads, and signals of other libraries, some of them ours by
//! number. Once in time on a processor, and once in time that passes, with suspended guests.
//!
//! Nothing may crash, hang or leak, and the sums of every profile must agree. `FLAMEWALK_SOAK_SECONDS` says for how long
//! both together: ten seconds unless it is set; CI takes two minutes, and half an hour is
//!
//! ```text
//! FLAMEWALK_SOAK_SECONDS=1800 cargo test --workspace --test soak -- --nocapture
//! ```

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flamewalk::profile::{Metadata, Profile};
use flamewalk::{Error, Event, Guest, Options, ProfiledCodeMemory, Profiler};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use wasmtime::{Config, Engine, Linker, Module, Store};

const GUEST: &str = r#"(module $NAME
  (import "env" "pause" (func $pause))
  (func $spin_NAME (param $turns i32)
    (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
  (func $trap_NAME (param i32) (if (i32.eqz (i32.rem_u (local.get 0) (i32.const 7))) (then unreachable)))
  (func (export "run") (param $turns i32)
    (call $spin_NAME (local.get $turns))
    (call $pause)
    (call $trap_NAME (local.get $turns))
    (call $spin_NAME (local.get $turns))))"#;

/// What all threads share.
struct Soak {
    profiler: Profiler,
    engine: Engine,
    module: Module,
    /// `pause` that suspends, and `pause` that returns at once.
    asynchronous: Linker<()>,
    synchronous: Linker<()>,
    ended: AtomicBool,
    seed: AtomicU64,
    guests: AtomicU64,
    profiles: AtomicU64,
    foreign_signals: AtomicU64,
}

impl Soak {
    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    fn random(&self, below: u64) -> u64 {
        let seed = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        ((seed ^ (seed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % below
    }

    fn check(&self, profile: Result<Profile, Error>) {
        match profile {
            Ok(profile) => {
                let statistics = &profile.metadata.statistics;
                statistics.check().unwrap();
                assert_eq!(statistics.delivered, profile.total(), "{statistics:?}");
                self.profiles.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::NotRunning | Error::AlreadyRunning) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// One guest of `module` on this thread.
    fn run(&self, module: &Module) {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        let labels = self.profiler.attach(&mut store).unwrap();
        labels.set([("tenant", self.random(5).to_string())].into_iter().collect());
        let instance = self.synchronous.instantiate(&mut store, module).unwrap();
        let run = instance.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
        // Some of them trap.
        let _ = run.call(&mut store, 5_000 + self.random(200_000) as i32);
        self.guests.fetch_add(1, Ordering::Relaxed);
    }

    async fn run_asynchronously(&self) {
        let mut store = Store::new(&self.engine, ());
        let labels = self.profiler.attach(&mut store).unwrap();
        store.epoch_deadline_async_yield_and_update(1);
        let instance = self.asynchronous.instantiate_async(&mut store, &self.module).await.unwrap();
        let run = instance.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
        for _ in 0..3 {
            labels.set([("request", self.random(1_000).to_string())].into_iter().collect());
            let _ = run.call_async(&mut store, 5_000 + self.random(100_000) as i32).await;
        }
        self.guests.fetch_add(1, Ordering::Relaxed);
    }

    /// Does something to the profiler.
    fn control(&self) {
        let profiler = &self.profiler;
        let ignore = |result: Result<(), Error>| match result {
            Ok(()) | Err(Error::NotRunning | Error::AlreadyRunning) => {}
            Err(error) => panic!("{error}"),
        };
        match self.random(13) {
            0 => self.check(profiler.stop(Metadata::default())),
            1..=3 => ignore(profiler.start()),
            4 => ignore(profiler.pause()),
            5..=6 => ignore(profiler.resume()),
            7 => ignore(profiler.set_rate(97 + self.random(9_900) as u32)),
            8 => self.check(profiler.take(Metadata::default())),
            9 => {
                let tenant = [("tenant", self.random(5).to_string())].into_iter().collect();
                match profiler.snapshot_labelled(tenant, Metadata::default()) {
                    Ok(_) | Err(Error::NotRunning) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            10 => drop(profiler.statistics()),
            11 => {
                let window = profiler.window(None).unwrap();
                std::thread::sleep(Duration::from_micros(self.random(5_000)));
                self.check(window.finish(Metadata::default()));
            }
            _ => self.check(profiler.snapshot(Metadata::default())),
        }
        std::thread::sleep(Duration::from_micros(self.random(5_000)));
    }
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn of_another_library(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Resident memory in bytes, and open files.
fn resources() -> (u64, usize) {
    let resident = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = resident.split(' ').nth(1).unwrap().parse().unwrap();
    (resident * 4096, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

fn soak(options: Options) -> Soak {
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(ProfiledCodeMemory::new())));
    config.epoch_interruption(true);
    let engine = Engine::new(&config).unwrap();
    let profiler = Profiler::new(options).unwrap();
    let binary = wat::parse_str(GUEST.replace("NAME", "steady")).unwrap();
    let module = Module::new(&engine, &binary).unwrap();
    profiler.register_module(&module, Guest::named("steady").binary(binary)).unwrap();
    let mut asynchronous = Linker::new(&engine);
    asynchronous.func_wrap_async("env", "pause", |_, ()| Box::new(tokio::task::yield_now())).unwrap();
    let mut synchronous = Linker::new(&engine);
    synchronous.func_wrap("env", "pause", || ()).unwrap();
    let zero = AtomicU64::default;
    Soak {
        profiler,
        engine,
        module,
        asynchronous,
        synchronous,
        ended: AtomicBool::new(false),
        seed: AtomicU64::new(1),
        guests: zero(),
        profiles: zero(),
        foreign_signals: zero(),
    }
}

#[test]
fn everything_at_once_in_time_on_a_processor() {
    everything_at_once(Options::default());
}

#[test]
fn everything_at_once_in_time_that_passes() {
    let mut options = Options::default();
    options.event = Event::Wall;
    options.suspended = true;
    everything_at_once(options);
}

/// One profiler is in a process at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn everything_at_once(options: Options) {
    let _only = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    HANDLED.store(0, Ordering::Relaxed);
    let seconds = std::env::var("FLAMEWALK_SOAK_SECONDS").map_or(10, |seconds| seconds.parse().unwrap()) / 2;
    let begin = Instant::now();
    let length = Duration::from_secs(seconds);
    // SIGUSR2 is another library's; signals of our number that are not from our sources go to its handler as well.
    let action =
        SigAction::new(SigHandler::Handler(of_another_library), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGUSR2, Signal::SIGPROF] {
        // SAFETY: the handler adds to an atomic.
        unsafe { sigaction(signal, &action) }.unwrap();
    }
    let soak = Arc::new(soak(options));
    let thread = |act: fn(&Soak)| {
        let soak = Arc::clone(&soak);
        std::thread::spawn(move || {
            while soak.goes_on() {
                act(&soak);
            }
        })
    };
    let steady = [thread(|soak| soak.run(&soak.module)), thread(|soak| soak.run(&soak.module))];
    let others = [
        // Threads that live for one guest.
        thread(|soak| std::thread::scope(|scope| drop(scope.spawn(|| soak.run(&soak.module))))),
        // Modules that live for one guest.
        thread(|soak| {
            let name = format!("g{}", soak.random(1_000_000));
            let module = Module::new(&soak.engine, GUEST.replace("NAME", &name)).unwrap();
            soak.run(&module);
        }),
        thread(Soak::control),
        thread(Soak::control),
        thread(|soak| {
            soak.engine.increment_epoch();
            std::thread::sleep(Duration::from_micros(500));
        }),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let soak = Arc::clone(&soak);
            runtime.spawn(async move {
                while soak.goes_on() {
                    soak.run_asynchronously().await;
                }
            })
        })
        .collect();

    let mut early = None;
    while begin.elapsed() < length {
        for thread in &steady {
            for signal in [Signal::SIGUSR2, Signal::SIGPROF] {
                nix::sys::pthread::pthread_kill(thread.as_pthread_t(), signal).unwrap();
                soak.foreign_signals.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        if early.is_none() && begin.elapsed() > length / 2 {
            early = Some(resources());
        }
    }
    let late = resources();
    soak.ended.store(true, Ordering::Relaxed);
    for thread in steady.into_iter().chain(others) {
        thread.join().unwrap();
    }
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    drop(runtime);
    soak.check(soak.profiler.stop(Metadata::default()));
    let (guests, profiles) = (soak.guests.load(Ordering::Relaxed), soak.profiles.load(Ordering::Relaxed));
    let (sent, handled) = (soak.foreign_signals.load(Ordering::Relaxed), HANDLED.load(Ordering::Relaxed));
    let early = early.expect("half of the time has passed");
    println!(
        "{guests} guests, {profiles} profiles, {handled} of {sent} foreign signals, {early:?} then {late:?}"
    );
    assert!(guests > 20 && profiles > 5, "{guests} {profiles}");
    // Equal signals that wait for a thread merge, and none is made up.
    assert!((1..=sent).contains(&handled), "{handled} of {sent}");
    // Threads come and go, so that some files do; what is allocated reaches its peak by chance.
    assert!(late.1 < early.1 + 40, "{early:?} {late:?}");
    assert!(late.0 < early.0 + (64 << 20), "{early:?} {late:?}");
}

//! Asynchronous guests: thousands of stores on a few threads, suspended in host calls and at epochs, going on on other
//! threads, with every kind of stack that Wasmtime can give a fiber.
//!
//! Each of several modules has functions of its own names, and each store has the number of its module as a label. What
//! each tenant does is fixed by construction, so that its share of the time is known; and a stack with the functions of
//! two modules, or with labels of another, would show that stores were mixed up.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flamewalk::profile::{Metadata, Names, Profile};
use flamewalk::{Guest, Options, Profiler};
use tokio::sync::Semaphore;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, Linker, Module, PoolingAllocationConfig, StackCreator,
    StackMemory, Store,
};

/// Modules; a tenant has those whose number has the tenant's remainder.
const MODULES: usize = 24;
/// The tenants' work in each round, as turns of a loop; the shares of the time are in the same proportion.
const TURNS: [(&str, i32); 3] = [("large", 450_000), ("medium", 270_000), ("small", 180_000)];
const ROUNDS: i32 = 8;
const WORKERS: usize = 4;

/// `run` calls, `rounds` times, `inner` that calls `spin`, and the host, which may suspend it.
fn guest(number: usize) -> String {
    format!(
        r#"(module $m{number}
          (import "env" "pause" (func $pause))
          (func $spin_{number} (param $turns i32)
            (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
          (func $inner_{number} (param $turns i32) (call $spin_{number} (local.get $turns)))
          (func $run_{number} (export "run") (param $rounds i32) (param $turns i32)
            (loop
              (call $inner_{number} (local.get $turns))
              (call $pause)
              (br_if 0 (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))))"#
    )
}

/// What is to be run.
struct Plan {
    config: Config,
    stores: usize,
    /// How many stores may be alive at once.
    at_once: usize,
}

struct Outcome {
    profile: Profile,
    /// How often a guest went on on another thread than it was suspended on.
    moves: usize,
}

fn run(plan: Plan) -> Outcome {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Plan { mut config, stores, at_once } = plan;
    config.epoch_interruption(true);
    config.max_wasm_stack(128 << 10);
    config.async_stack_size(256 << 10);
    let engine = Engine::new(&config).unwrap();
    let mut options = Options::default();
    options.rate = 997;
    let profiler = Arc::new(Profiler::new(options).unwrap());
    let mut registrations = Vec::new();
    let modules: Vec<Module> = (0..MODULES)
        .map(|number| {
            let binary = wat::parse_str(guest(number)).unwrap();
            let module = Module::new(&engine, &binary).unwrap();
            let guest = Guest::named(format!("m{number}")).binary(binary);
            registrations.push(profiler.register_module(&module, guest).unwrap());
            module
        })
        .collect();
    let moves = Arc::new(AtomicUsize::new(0));
    let seed = Arc::new(AtomicU64::new(1));
    let mut linker = Linker::<()>::new(&engine);
    let of_host = Arc::clone(&moves);
    linker
        .func_wrap_async("env", "pause", move |_, ()| {
            let (moves, seed) = (Arc::clone(&of_host), Arc::clone(&seed));
            Box::new(async move {
                let random = seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                let random = (random ^ (random >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
                let before = std::thread::current().id();
                match random % 4 {
                    0 => {}
                    1 => tokio::task::yield_now().await,
                    2 => tokio::time::sleep(Duration::from_micros(random % 2_000)).await,
                    _ => {
                        tokio::task::yield_now().await;
                        tokio::task::yield_now().await;
                    }
                }
                if std::thread::current().id() != before {
                    moves.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .unwrap();
    let linker = Arc::new(linker);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let ticker = std::thread::spawn({
        let (engine, ended) = (engine.clone(), Arc::clone(&ended));
        move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(100));
                engine.increment_epoch();
            }
        }
    });

    profiler.start().unwrap();
    runtime.block_on(async {
        let room = Arc::new(Semaphore::new(at_once));
        let tasks: Vec<_> = (0..stores)
            .map(|index| {
                let module = modules[index % MODULES].clone();
                let (profiler, linker, room) =
                    (Arc::clone(&profiler), Arc::clone(&linker), Arc::clone(&room));
                tokio::spawn(async move {
                    let _room = room.acquire().await.unwrap();
                    let number = index % MODULES;
                    let (tenant, turns) = TURNS[number % TURNS.len()];
                    let mut store = Store::new(module.engine(), ());
                    let labels = profiler.attach(&mut store).unwrap();
                    labels.set(
                        [("tenant", tenant.to_owned()), ("module", number.to_string())].into_iter().collect(),
                    );
                    store.epoch_deadline_async_yield_and_update(1);
                    let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
                    let run = instance.get_typed_func::<(i32, i32), ()>(&mut store, "run").unwrap();
                    run.call_async(&mut store, (ROUNDS, turns)).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let profile = profiler.stop(Metadata::default()).unwrap();
    ended.store(true, Ordering::Relaxed);
    ticker.join().unwrap();
    Outcome { profile, moves: moves.load(Ordering::Relaxed) }
}

/// Nothing lost, nothing mixed, and each tenant's share what its work says, within `tolerance` of the whole: with the
/// number of samples that there are, about four standard deviations of a share of a half.
fn check(outcome: &Outcome, tolerance: f64) {
    let Outcome { profile, moves } = outcome;
    let statistics = &profile.metadata.statistics;
    statistics.check().unwrap();
    assert_eq!(statistics.total_lost().samples, 0, "{statistics:?}");
    assert!(*moves > 100, "only {moves} times a guest went on on another thread");

    let names = Names::new(profile);
    let mut tenants = BTreeMap::<String, u64>::new();
    for sample in profile.samples() {
        let stack = profile.stack(sample.stack);
        let names: Vec<_> = stack.frames.iter().map(|&frame| names.of(frame)).collect();
        let labels = profile.labels(sample.origin.labels);
        let module = labels.get("module").expect("every store has labels");
        let own = |name: &str| {
            name.strip_prefix(&format!("m{module}!"))
                .and_then(|name| name.rsplit_once('_'))
                .map(|parts| parts.1)
                == Some(module)
        };
        let all_own = names
            .iter()
            .all(|name| own(name) || *name == "[host] env.pause" || name.starts_with("[builtin]"));
        assert!(all_own && names[0] == format!("m{module}!run_{module}"), "{module}: {names:?}");
        *tenants.entry(labels.get("tenant").unwrap().to_owned()).or_default() += sample.tally.weight;
    }
    let total = profile.total();
    let work: i32 = TURNS.iter().map(|(_, turns)| turns).sum();
    for (tenant, turns) in TURNS {
        let (truth, found) =
            (f64::from(turns) / f64::from(work), tenants[tenant] as f64 / total.weight as f64);
        println!("{tenant}: {found:.4}, truth {truth:.4}, {} samples, {moves} moves", total.samples);
        assert!((found - truth).abs() < tolerance, "{tenant}: {found:.4}, truth {truth:.4}, {total}");
    }
}

#[test]
fn ten_thousand_stores_on_stacks_made_on_demand() {
    let outcome = run(Plan { config: Config::new(), stores: 10_000, at_once: 10_000 });
    check(&outcome, 0.02);
}

#[test]
fn pooled_stacks() {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_stacks(200).total_core_instances(1_000).total_memories(1).total_tables(1);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let outcome = run(Plan { config, stores: 4_000, at_once: 200 });
    check(&outcome, 0.03);
}

/// An embedder's own stacks, which say nothing of a guard.
struct OwnStacks;

#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "memory for others")] [u8; 4096]);

struct OwnStack(Box<[Page]>);

// SAFETY: the memory is the box's, as large as was asked for, and there is no guard that it could be said to have.
unsafe impl StackMemory for OwnStack {
    fn top(&self) -> *mut u8 {
        self.0.as_ptr_range().end.cast_mut().cast()
    }

    fn range(&self) -> Range<usize> {
        self.0.as_ptr_range().start.addr()..self.0.as_ptr_range().end.addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        std::ptr::null_mut()..std::ptr::null_mut()
    }
}

// SAFETY: as above.
unsafe impl StackCreator for OwnStacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        Ok(Box::new(OwnStack(vec![Page([0; 4096]); size.div_ceil(4096)].into())))
    }
}

#[test]
fn an_embedders_own_stacks() {
    let mut config = Config::new();
    config.with_host_stack(Arc::new(OwnStacks));
    let outcome = run(Plan { config, stores: 4_000, at_once: 300 });
    check(&outcome, 0.03);
}

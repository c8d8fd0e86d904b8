//! Guests that come and go: found by themselves, told about, dropped.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flamewalk::profile::{FrameKind, Metadata, Profile};
use flamewalk::{Error, Guest, Options, ProfiledCodeMemory, Profiler};
use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{Config, CustomCodeMemory, Engine, Instance, Module, Store};

use crate::support::{KnownAnswer, alone, options, stop};

pub(crate) fn engine() -> Engine {
    engine_with(ProfiledCodeMemory::new())
}

fn engine_with(memory: ProfiledCodeMemory) -> Engine {
    Engine::new(Config::new().with_custom_code_memory(Some(Arc::new(memory)))).unwrap()
}

/// A module that knows its own name and is busy for a while.
pub(crate) fn guest(name: &str) -> String {
    format!(
        "(module ${name} (func $work_of_{name} (export \"run\") (result i32) (local i32 i32)
           (loop
             (local.set 1 (i32.rotl (i32.mul (local.get 1) (i32.const 1664525)) (i32.const 5)))
             (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 20000000))))
           local.get 1))"
    )
}

fn run(profiler: &Profiler, module: &Module) {
    let mut store = Store::new(module.engine(), ());
    profiler.attach(&mut store).unwrap();
    let instance = Instance::new(&mut store, module, &[]).unwrap();
    instance.get_typed_func::<(), i32>(&mut store, "run").unwrap().call(&mut store, ()).unwrap();
}

/// The module and the name of each guest function that was sampled.
pub(crate) fn guests(profile: &Profile) -> BTreeSet<(String, String)> {
    let frames = profile.frames().filter(|(_, frame)| frame.kind == FrameKind::Guest);
    frames
        .map(|(_, frame)| (frame.module.as_deref().unwrap_or_default().to_owned(), frame.name.to_string()))
        .collect()
}

fn expected<const N: usize>(names: [&str; N]) -> BTreeSet<(String, String)> {
    names.map(|name| (name.to_owned(), format!("work_of_{name}"))).into()
}

#[test]
fn modules_are_found_however_they_are_loaded() {
    let _alone = alone();
    let before = engine();
    let compiled_before = Module::new(&before, guest("before")).unwrap();
    let dropped = Module::new(&before, guest("dropped")).unwrap();
    drop(dropped);
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let after = engine();
    let compiled = Module::new(&after, guest("after")).unwrap();
    let precompiled = |name: &str| after.precompile_module(guest(name).as_bytes()).unwrap();
    // SAFETY: bytes that Wasmtime has just made.
    let deserialized = unsafe { Module::deserialize(&after, precompiled("bytes")) }.unwrap();
    let file = std::env::temp_dir().join(format!("flamewalk-loading-{}.cwasm", std::process::id()));
    std::fs::write(&file, precompiled("file")).unwrap();
    // SAFETY: as above; nobody changes the file.
    let mapped = unsafe { Module::deserialize_file(&after, &file) }.unwrap();
    std::fs::remove_file(&file).unwrap();

    profiler.start().unwrap();
    for module in [&compiled_before, &compiled, &deserialized, &mapped] {
        run(&profiler, module);
    }
    // While sampling, too.
    run(&profiler, &Module::new(&before, guest("later")).unwrap());
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0, "{:?}", profile.metadata.statistics);
    assert_eq!(guests(&profile), expected(["before", "after", "bytes", "file", "later"]));

    // The next profiler finds what is still there, and lets go of what it has found so.
    drop(profiler);
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    profiler.start().unwrap();
    run(&profiler, &mapped);
    let code = text(&compiled_before);
    drop(compiled_before);
    let again = load_at(&before, &code);
    run(&profiler, &again);
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0, "{:?}", profile.metadata.statistics);
    assert_eq!(guests(&profile), expected(["again", "file"]));
}

/// A module that comes to lie where other code has been.
fn load_at(engine: &Engine, code: &Range<usize>) -> Module {
    let mut elsewhere = Vec::new();
    for _ in 0..1_000 {
        let module = Module::new(engine, guest("again")).unwrap();
        if text(&module).start < code.end && code.start < text(&module).end {
            return module;
        }
        elsewhere.push(module);
    }
    panic!("{code:x?} is not used again");
}

#[test]
fn components_are_found() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let text = format!(
        "(component (core module $m {}) (core instance $i (instantiate $m))
           (func (export \"run\") (result s32) (canon lift (core func $i \"run\"))))",
        guest("core").strip_prefix("(module $core").unwrap().strip_suffix(')').unwrap()
    );
    let engine = engine();
    let component = Component::new(&engine, text).unwrap();
    let mut store = Store::new(&engine, ());
    profiler.attach(&mut store).unwrap();
    let instance = ComponentLinker::new(&engine).instantiate(&mut store, &component).unwrap();
    let run = instance.get_typed_func::<(), (i32,)>(&mut store, "run").unwrap();
    profiler.start().unwrap();
    run.call(&mut store, ()).unwrap();
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
    let names: Vec<String> = guests(&profile).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["work_of_core"]);
}

/// Whether the addresses are mapped as code.
fn is_mapped(text: &Range<usize>) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        rest.starts_with("r-x") && address(start) <= text.start && text.end <= address(end)
    })
}

fn text(module: &Module) -> Range<usize> {
    let start = module.text().as_ptr().addr();
    start..start + module.text().len()
}

#[test]
fn what_an_embedder_tells_is_added_and_keeps_nothing_in_memory() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let binary = wat::parse_str(guest("own")).unwrap();
    let module = Module::new(&engine(), &binary).unwrap();
    let registration =
        profiler.register_module(&module, Guest::named("told").binary(binary.clone())).unwrap();
    let again = profiler.register_module(&module, Guest::named("again"));
    assert!(matches!(again, Err(Error::Register(_))), "{again:?}");
    profiler.start().unwrap();
    run(&profiler, &module);
    let code = text(&module);
    assert!(is_mapped(&code));
    drop(module);
    assert!(!is_mapped(&code));
    registration.end();
    // Sampled before it was dropped, shown after.
    let profile = stop(&profiler);
    assert_eq!(guests(&profile), [("told".to_owned(), "work_of_own".to_owned())].into());
    assert!(profile.frames().any(|(_, frame)| frame.bytecode_offset.is_some()));
}

/// Of an engine as any other: the registration keeps the module, until it ends.
#[test]
fn a_registration_that_ends_lets_go_of_the_module() {
    let _alone = alone();
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let module = Module::new(&Engine::default(), guest("own")).unwrap();
    let code = text(&module);
    profiler.start().unwrap();
    let registration = profiler.register_module(&module, Guest::named("told")).unwrap();
    run(&profiler, &module);
    drop(module);
    assert!(is_mapped(&code));
    registration.end();
    assert!(!is_mapped(&code));
    assert_eq!(guests(&stop(&profiler)), [("told".to_owned(), "work_of_own".to_owned())].into());

    let module = Module::new(&Engine::default(), guest("own")).unwrap();
    let code = text(&module);
    let registration = profiler.register_module(&module, Guest::named("told")).unwrap();
    drop((module, profiler));
    assert!(!is_mapped(&code), "the profiler is gone");
    registration.end();
}

/// An embedder's own, which counts.
#[derive(Default)]
struct Counting {
    inner: ProfiledCodeMemory,
    published: AtomicUsize,
    unpublished: AtomicUsize,
    texts: Mutex<BTreeSet<usize>>,
}

impl CustomCodeMemory for Counting {
    fn required_alignment(&self) -> usize {
        self.inner.required_alignment() * 2
    }

    fn publish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        self.published.fetch_add(1, Ordering::Relaxed);
        assert!(self.texts.lock().unwrap().insert(start.addr()));
        self.inner.publish_executable(start, length)
    }

    fn unpublish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        self.unpublished.fetch_add(1, Ordering::Relaxed);
        assert!(self.texts.lock().unwrap().remove(&start.addr()));
        self.inner.unpublish_executable(start, length)
    }
}

#[test]
fn an_embedders_own_code_memory_does_its_work_within() {
    let _alone = alone();
    let own = Arc::new(Counting::default());
    let around = ProfiledCodeMemory::around(Arc::clone(&own) as Arc<dyn CustomCodeMemory>);
    assert_eq!(around.required_alignment(), own.required_alignment());
    // Wasmtime aligns code to one page, which is what it would insist on.
    let aligned = Arc::new(Aligned(Arc::clone(&own)));
    let engine = engine_with(ProfiledCodeMemory::around(aligned));
    let profiler = Profiler::new(options("cpu", 4_999)).unwrap();
    let module = Module::new(&engine, guest("own")).unwrap();
    profiler.start().unwrap();
    run(&profiler, &module);
    assert_eq!(guests(&stop(&profiler)), expected(["own"]));
    let code = text(&module);
    assert!(own.texts.lock().unwrap().contains(&code.start));
    drop((module, profiler));
    drop(engine);
    let counts = [&own.published, &own.unpublished].map(|count| count.load(Ordering::Relaxed));
    assert!(counts[0] > 0 && counts[0] == counts[1], "{counts:?}");
}

/// As its inner one, with the alignment that code has.
struct Aligned(Arc<Counting>);

impl CustomCodeMemory for Aligned {
    fn required_alignment(&self) -> usize {
        self.0.inner.required_alignment()
    }

    fn publish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        self.0.publish_executable(start, length)
    }

    fn unpublish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        self.0.unpublish_executable(start, length)
    }
}

/// Profiles one after the other hold what a single one would.
#[test]
fn taken_profiles_follow_each_other() {
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let profiler = Arc::new(Profiler::new(options("cpu", 4_999)).unwrap());
    let (mut store, run) = guest.attached_to(&profiler);
    assert!(matches!(profiler.take(Metadata::default()), Err(Error::NotRunning)));
    profiler.start().unwrap();
    let mut taken = Vec::new();
    for _ in 0..3 {
        run.call(&mut store, 100).unwrap();
        taken.push(profiler.take(Metadata::default()).unwrap());
    }
    run.call(&mut store, 100).unwrap();
    taken.push(stop(&profiler));
    for profile in &taken {
        crate::support::check_sums(profile);
        assert!(!profile.is_empty());
        assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
    }
    // Equal work, in equal parts; half is left for the machine's moods.
    let weights: Vec<f64> = taken.iter().map(|profile| profile.total().weight as f64).collect();
    assert!(weights.iter().all(|weight| (0.5..2.0).contains(&(weight / weights[0]))), "{weights:?}");
    assert!(taken.windows(2).all(|pair| pair[0].metadata.start < pair[1].metadata.start));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Threads that ran a guest and ended leave their sums and nothing else.
#[test]
fn threads_that_have_ended_are_let_go_of() {
    const THREADS: usize = 200;
    let _alone = alone();
    let guest = KnownAnswer::compile();
    let mut options = options("cpu", 4_999);
    options.ring_words = 1 << 11;
    let profiler = Profiler::new(options).unwrap();
    guest.register(&profiler);
    let run_on = |name: String| {
        let (mut store, run) = guest.instantiate(|| {});
        profiler.attach(&mut store).unwrap();
        let thread = std::thread::Builder::new().name(name);
        thread.spawn(move || run.call(&mut store, 2).unwrap()).unwrap().join().unwrap();
    };
    // The first opens what stays open: the image of the guest's memory.
    run_on("first".to_owned());
    profiler.start().unwrap();
    let before = descriptors();
    (0..THREADS).for_each(|index| run_on(format!("pool {index}")));
    // Drains the rings.
    profiler.statistics().unwrap();
    assert_eq!(descriptors(), before);
    let profile = stop(&profiler);
    assert_eq!(profile.metadata.statistics.total_lost().samples, 0);
    let names: BTreeSet<&str> = profile.threads().filter_map(|(_, thread)| thread.name.as_deref()).collect();
    assert_eq!(names.len(), profile.threads().len());
    assert!(names.len() > THREADS / 2 && names.iter().all(|name| name.starts_with("pool ")), "{names:?}");
}

#[test]
fn without_a_profiler_engines_work_as_ever() {
    let _alone = alone();
    let module = Module::new(&engine(), guest("own")).unwrap();
    let mut store = Store::new(module.engine(), ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let run = instance.get_typed_func::<(), i32>(&mut store, "run").unwrap();
    let answer = run.call(&mut store, ()).unwrap();
    // Nor does a profiler that comes and goes change them.
    drop(Profiler::new(Options::default()).unwrap());
    assert_eq!(run.call(&mut store, ()).unwrap(), answer);
}

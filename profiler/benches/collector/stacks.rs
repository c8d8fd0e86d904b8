//! The stacks that samples are drawn from: those of a run of SQLite, as the handler recorded them.

use std::sync::Arc;

use flamewalk::profile::{FrameKind, Metadata, Profile};
use flamewalk::{Guest, Options, Profiler};
use flamewalk_handler::record::Frame;
use flamewalk_symbolizer::registry::CodeRegistry;
use flamewalk_symbolizer::{CodeImage, Symbolizer};
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};

/// Where the guest's code is taken to be.
pub(crate) const TEXT: usize = 1 << 32;
/// Fast enough to see rare stacks, too, in the seconds that the guest runs for.
const RATE: u32 = 9_997;

/// Of the guest, to record its stacks.
pub(crate) const ROUNDS: u32 = 3;

/// SQLite, compiled, and its stacks.
pub(crate) struct Sqlite {
    pub(crate) module: Module,
    pub(crate) binary: Arc<[u8]>,
    image: Arc<CodeImage>,
    /// The words of each stack, youngest frame first, and how often it was seen.
    pub(crate) stacks: Vec<(Vec<u64>, u64)>,
}

impl Sqlite {
    /// Runs it once.
    pub(crate) fn record() -> Self {
        let binary: Arc<[u8]> =
            std::fs::read(flamewalk_guests::sqlite().expect("SQLite is built")).expect("a file").into();
        let module = Module::new(&Engine::default(), &binary).expect("it compiles");
        let image = Arc::new(CodeImage::parse(&module.serialize().expect("its code")).expect("an image"));
        let mut options = Options::default();
        options.rate = RATE;
        let (profile, _) = run(&module, &binary, options, ROUNDS, |_| ());
        let stacks = profile.stacks().map(|stack| (words(&profile, stack.frames), stack.tally.samples));
        let stacks = stacks.filter(|(words, samples)| !words.is_empty() && *samples > 0).collect();
        Self { module, binary, image, stacks }
    }

    pub(crate) fn describe(&self) -> String {
        let samples: u64 = self.stacks.iter().map(|(_, samples)| samples).sum();
        let frames: u64 = self.stacks.iter().map(|(words, samples)| words.len() as u64 * samples).sum();
        let depth = frames as f64 / samples as f64;
        format!("SQLite: {samples} samples on {} stacks, {depth:.1} frames deep", self.stacks.len())
    }

    /// A registry that knows the guest's code at [`TEXT`].
    pub(crate) fn registry(&self) -> Arc<CodeRegistry> {
        let registry = Arc::new(CodeRegistry::default());
        let binary = Arc::clone(&self.binary);
        let symbolizer = Symbolizer::new(Arc::clone(&self.image), "sqlite", Some(binary.into()), None);
        registry.register(TEXT, &self.image, symbolizer.expect("its binary")).expect("the only one");
        registry
    }

    /// Return addresses of the guest, as words of records.
    pub(crate) fn callers(&self) -> Vec<u64> {
        let is_caller = |word: &u64| matches!(Frame::decode(*word), Some(Frame::ReturnAddress(_)));
        let words = self.stacks.iter().flat_map(|(words, _)| words.iter().copied());
        let mut callers: Vec<u64> = words.filter(is_caller).collect();
        callers.sort_unstable();
        callers.dedup();
        callers
    }
}

/// Runs the guest with a profiler for so many of its rounds. `around` is called when it has just ended, before the
/// profile is made.
pub(crate) fn run<R>(
    module: &Module,
    binary: &Arc<[u8]>,
    options: Options,
    rounds: u32,
    around: impl FnOnce(&Profiler) -> R,
) -> (Profile, R) {
    let profiler = Profiler::new(options).expect("a profiler");
    let guest = Guest::named("sqlite").binary(Arc::clone(binary));
    profiler.register_module(module, guest).expect("it is known");
    let mut linker = Linker::new(module.engine());
    add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi).expect("WASI");
    let wasi = WasiCtxBuilder::new().arg("sqlite").arg(rounds.to_string()).build_p1();
    let mut store = Store::new(module.engine(), wasi);
    profiler.attach(&mut store).expect("it is attached");
    let instance = linker.instantiate(&mut store, module).expect("it starts");
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").expect("a command");
    profiler.start().expect("a session");
    start.call(&mut store, ()).expect("it ends well");
    let result = around(&profiler);
    (profiler.stop(Metadata::default()).expect("a profile"), result)
}

/// The words of a record of a stack: one for each frame of the machine, youngest first.
fn words(profile: &Profile, stack: &[flamewalk::profile::FrameId]) -> Vec<u64> {
    let frames: Vec<_> = stack.iter().map(|id| profile.frame(*id)).collect();
    let machine = frames.chunk_by(|_, younger| younger.inlined).rev();
    let mut words = Vec::new();
    for (index, frame) in machine.map(|inlined| inlined[inlined.len() - 1]).enumerate() {
        let word = match (frame.kind, frame.text_offset) {
            (FrameKind::HostCall | FrameKind::Builtin, _) => Frame::HostCall(0),
            (FrameKind::Guest, Some(offset)) if index == 0 => Frame::Instruction(TEXT + offset as usize),
            (FrameKind::Guest, Some(offset)) => Frame::ReturnAddress(TEXT + offset as usize + 1),
            _ => continue,
        };
        words.push(word.encode());
    }
    words
}

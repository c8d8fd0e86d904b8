//! One case in one configuration: its guests, its stores, and its run under the checker.

use std::ops::Range;
use std::sync::Arc;

use flamewalk_symbolizer::{CodeImage, Symbolizer};
use object::{Object, ObjectSymbol};
use wasmtime::component::Component;
use wasmtime::{Engine, Instance, Module, Store, UpdateDeadline};

use super::checker::{Checker, Counts, Mismatch};
use super::matrix::{Configuration, Metering};
use super::shadow::Broken;
use super::stepper::step_through;
use crate::layout::ActivationList;
use crate::options::Options;
use crate::shared::Shared;
use crate::store::StoreHook;
use crate::thread;

/// An instance in every store, to find the store's context by.
const PROBE: &str = r#"(module (func (export "")))"#;

/// A guest whose code is registered.
enum Code {
    Module(Module),
    Component(Component),
}

impl Code {
    fn text(&self) -> Range<usize> {
        let text = match self {
            Self::Module(module) => module.text(),
            Self::Component(component) => component.text(),
        };
        text.as_ptr_range().start.addr()..text.as_ptr_range().end.addr()
    }

    fn image(&self) -> &[u8] {
        let range = match self {
            Self::Module(module) => module.image_range(),
            Self::Component(component) => component.image_range(),
        };
        // SAFETY: the guest keeps its image mapped, and is borrowed.
        unsafe { std::slice::from_raw_parts(range.start, range.end.addr() - range.start.addr()) }
    }
}

/// Where a case makes its guests and runs them.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) metering: Option<Metering>,
    shared: Arc<Shared>,
    probe: Module,
    code: Vec<Code>,
    pub(super) counts: Counts,
    pub(super) complaints: Vec<String>,
}

impl Bench {
    pub(super) fn new(configuration: &Configuration, engine: &Engine) -> Self {
        let mut bench = Self {
            engine: engine.clone(),
            metering: configuration.metering,
            shared: Arc::new(Shared::new(Options::default())),
            probe: Module::new(engine, PROBE).expect("the probe compiles"),
            code: Vec::new(),
            counts: Counts::default(),
            complaints: Vec::new(),
        };
        bench.register(Code::Module(bench.probe.clone()), "probe");
        bench
    }

    /// Compiles a module.
    pub(super) fn module(&mut self, name: &str, text: &str) -> Module {
        let module = Module::new(&self.engine, text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        self.register(Code::Module(module.clone()), name);
        module
    }

    /// Compiles a component.
    pub(super) fn component(&mut self, name: &str, text: &str) -> Component {
        let component =
            Component::new(&self.engine, text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        self.register(Code::Component(component.clone()), name);
        component
    }

    fn register(&mut self, code: Code, name: &str) {
        let image = Arc::new(CodeImage::parse(code.image()).expect("an image of this version of Wasmtime"));
        let symbolizer = Symbolizer::new(Arc::clone(&image), name, None, None).expect("a symbolizer");
        self.shared.registry.register(code.text().start, &image, symbolizer).expect("code of its own");
        self.code.push(code);
    }

    /// A store that is attached, as `Profiler::attach` does it, and never stopped by what the engine meters.
    pub(super) fn store<T: 'static>(&self, data: T) -> Store<T> {
        let mut store = Store::new(&self.engine, data);
        match self.metering {
            Some(Metering::Fuel) => store.set_fuel(u64::MAX).expect("the engine meters fuel"),
            Some(Metering::Epochs) => {
                store.set_epoch_deadline(u64::MAX / 2);
                store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(0)));
            }
            None => {}
        }
        let instance = Instance::new(&mut store, &self.probe, &[]).expect("the probe needs nothing");
        let probe = instance.get_func(&mut store, "").expect("the probe's export");
        let hook = StoreHook::new(Arc::clone(&self.shared), &mut store, &probe).expect("a store of ours");
        store.call_hook(move |_, event| {
            hook.call(event);
            Ok(())
        });
        store
    }

    /// Runs `run`, which may not start threads, and compares at each of its boundaries.
    pub(super) fn step<R>(&mut self, run: impl FnOnce() -> R) -> R {
        // Not the whole start-up check: some of the engines would not pass, and the walks are right all the same.
        let find = || ActivationList::find(&self.engine).map(|_| ());
        std::thread::scope(|scope| scope.spawn(find).join())
            .expect("no panic")
            .expect("a list of activations");
        let thread = thread::with_current(&self.shared, std::ptr::from_ref);
        let thread = thread.expect("this thread can be sampled").expect("and goes on");
        let texts = self.code.iter().map(Code::text);
        // SAFETY: the thread's own, which lives until it enters another profiler's store.
        let mut checker = Checker::new(&self.shared, unsafe { &*thread }, texts);
        let result = step_through(&mut checker, self.code.iter().map(Code::text), run);
        self.counts += checker.counts();
        let complaints = checker.mismatches.iter().map(|mismatch| self.describe(mismatch));
        let complaints: Vec<_> =
            complaints.chain(checker.broken.iter().map(|broken| self.describe_broken(broken))).collect();
        self.complaints.extend(complaints);
        result
    }

    fn describe(&self, mismatch: &Mismatch) -> String {
        let Mismatch { registers, kind, end, differs_at, expected, found } = mismatch;
        let frames = |frames: &mut dyn Iterator<Item = flamewalk_handler::record::Frame>| {
            frames.map(|frame| format!("\n      {}", self.describe_frame(frame))).collect::<String>()
        };
        format!(
            "at {} ({kind:?}), sp {:#x}, fp {:#x}: frame {differs_at} differs, walk ended with {end:?}\n    expected{}\n    found{}\n    code{}",
            self.name(registers.pc),
            registers.sp,
            registers.fp,
            frames(&mut expected.frames()),
            frames(&mut found.frames()),
            self.disassemble(registers.pc),
        )
    }

    fn describe_broken(&self, broken: &Broken) -> String {
        let Broken { what, from, to } = broken;
        format!(
            "the shadow stack is broken: {what}, from {} to {}{}",
            self.name(*from),
            self.name(*to),
            self.disassemble(*from)
        )
    }

    fn describe_frame(&self, frame: flamewalk_handler::record::Frame) -> String {
        use flamewalk_handler::record::Frame;
        match frame {
            Frame::Instruction(address) => format!("instruction {}", self.name(address)),
            Frame::ReturnAddress(address) => format!("return address {}", self.name(address)),
            Frame::HostCall(address) => format!("host call {}", self.name(address)),
            host => format!("{host:?}"),
        }
    }

    /// The symbol and the offset of an address in compiled code.
    fn name(&self, address: usize) -> String {
        self.symbol(address).map_or_else(
            || format!("{address:#x}"),
            |(name, start, _)| format!("{name}+{:#x}", address - start),
        )
    }

    fn symbol(&self, address: usize) -> Option<(String, usize, usize)> {
        let code = self.code.iter().find(|code| code.text().contains(&address))?;
        let elf = object::File::parse(code.image()).ok()?;
        let offset = (address - code.text().start) as u64;
        let symbol = elf
            .symbols()
            .find(|symbol| (symbol.address()..symbol.address() + symbol.size()).contains(&offset))?;
        let start = code.text().start + symbol.address() as usize;
        Some((symbol.name().ok()?.to_owned(), start, start + symbol.size() as usize))
    }

    /// Some instructions around `pc`.
    fn disassemble(&self, pc: usize) -> String {
        let Some((_, start, end)) = self.symbol(pc) else { return String::new() };
        // SAFETY: the code of a guest that `self` keeps.
        let code = unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start), end - start)
        };
        let mut decoder = iced_x86::Decoder::with_ip(64, code, start as u64, iced_x86::DecoderOptions::NONE);
        let mut lines = Vec::new();
        let mut here = 0;
        while decoder.can_decode() {
            let at = decoder.position();
            let instruction = decoder.decode();
            if start + at <= pc {
                here = lines.len();
            }
            let bytes: String =
                code[at..decoder.position()].iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push(format!("{at:#6x} {bytes:24} {:?}", instruction.code()));
        }
        let first = here.saturating_sub(8);
        let shown = lines.iter().enumerate().skip(first).take(14);
        shown
            .map(|(index, line)| format!("\n     {} {line}", if index == here { '>' } else { ' ' }))
            .collect()
    }
}

//! The start-up check: proves on this process, engine and build of Wasmtime what every walk relies on.
//!
//! It runs a tiny guest in the embedder's engine, up to a host call three functions deep, and walks it there as the
//! signal handler would. The frames must be those that Wasmtime's own backtrace has: same functions, same bytecode
//! offsets. So the layout of the store's context, the frame pointers, the symbols and the address map are as they
//! are expected to be, or the profiler refuses to run instead of giving wrong stacks.

use std::ops::ControlFlow;
use std::sync::Arc;

use flamewalk_handler::arch::{Architecture, Native, Registers};
use flamewalk_handler::code::{CodeImage as CodeAddresses, CodeTable};
use flamewalk_handler::host::NoHostFrames;
use flamewalk_handler::memory::LiveStack;
use flamewalk_handler::record::Frame;
use flamewalk_handler::{stack, walk::WalkEnd};
use flamewalk_symbolizer::{CodeAddress, CodeImage, Symbolizer};
use wasmtime::{Caller, Engine, Func, Instance, Module, Store, WasmBacktrace};

use crate::error::Error;
use crate::layout::ActivationList;
use crate::{registration, thread};

/// `check.wat`: three functions that call each other with arguments of their own, and calls of the host in the
/// innermost. As a binary, since an embedder's Wasmtime need not read text.
pub(crate) const GUEST: &[u8] = include_bytes!("check.wasm");

/// What a frame is for the comparison: the function's index and the offset of its call in the binary.
type Seen = (Option<u32>, Option<u32>);

/// Checks `engine`.
///
/// # Errors
///
/// [`Error::Unexpected`] says what is not as it has to be; [`Error::Store`] if the guest could not be run.
pub(crate) fn check(engine: &Engine) -> Result<(), Error> {
    // On a thread of its own: no guest is running there, and its stack is not a fiber's.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("flamewalk check".into());
        let thread = thread
            .spawn_scoped(scope, || check_here(engine))
            .map_err(|source| Error::System { action: "start a thread for the start-up check", source })?;
        let panicked = |_| Err(Error::Unexpected { what: "the start-up check has panicked".to_owned() });
        thread.join().unwrap_or_else(panicked)
    })
}

fn check_here(engine: &Engine) -> Result<(), Error> {
    let list = ActivationList::find(engine)?;
    let word = list.word_of_this_thread()?;
    let refused = |error: wasmtime::Error| Error::Store { message: format!("{error:#}") };
    let module = Module::new(engine, GUEST).map_err(refused)?;
    // SAFETY: the module is borrowed until the end of this function and keeps its image mapped.
    let image = Arc::new(CodeImage::parse(unsafe { registration::image_bytes(module.image_range()) })?);
    check_prologues(&module, &image)?;

    let mut store = self::store(engine, Vec::<Result<(), String>>::new());
    let text = module.text().as_ptr().addr();
    let stack = thread::stack_bounds()?;
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, Vec<Result<(), String>>>, _: i64| {
        let result = compare(&caller, &image, text, &|registers, visit| {
            let images = [CodeAddresses::new(text..text + image.text().len(), image.functions())];
            // SAFETY: this thread's own word, and no guest is entered or left meanwhile.
            let mut activations = unsafe { list.activations(word) };
            // SAFETY: what is read lies between the stack pointer and the top of this thread's stack; code is that of a
            // module that is borrowed by the caller.
            let memory = unsafe { LiveStack::new() };
            let table = CodeTable::new(&images, 0);
            let thread =
                stack::Thread { memory: &memory, table, stack: stack.clone(), activations: &mut activations };
            stack::walk::<Native, _>(registers, thread, &mut NoHostFrames, 64, &mut |frame| {
                visit(frame);
                ControlFlow::Continue(())
            })
            .end
        });
        caller.data_mut().push(result);
    });
    let instance = Instance::new(&mut store, &module, &[host.into()]).map_err(refused)?;
    let outer = instance.get_typed_func::<(), ()>(&mut store, "outer").map_err(refused)?;
    outer.call(&mut store, ()).map_err(refused)?;
    let results = store.into_data();
    if results.len() != 4 {
        return Err(Error::Unexpected { what: format!("the guest called the host {} times", results.len()) });
    }
    results.into_iter().collect::<Result<(), String>>().map_err(|what| Error::Unexpected { what })
}

/// A store whose guests are not stopped by what the engine meters.
pub(crate) fn store<T: 'static>(engine: &Engine, data: T) -> Store<T> {
    let mut store = Store::new(engine, data);
    // Engines that meter their guests stop them at once unless told otherwise; others refuse to be told.
    let _ = store.set_fuel(u64::MAX);
    store.set_epoch_deadline(u64::MAX / 2);
    store
}

/// Every function must begin with a prologue that the walker knows.
fn check_prologues(module: &Module, image: &CodeImage) -> Result<(), Error> {
    let text = module.text();
    for function in image.functions() {
        let code = text.get(function.start as usize..function.end() as usize).unwrap_or_default();
        let at_start = Registers { pc: function.start as usize, ..Registers::default() };
        if Native::caller(&at_start, function.start as usize, code).is_none() {
            let what =
                format!("the code at {:#x} has an unknown prologue: {:02x?}", function.start, code.get(..8));
            return Err(Error::Unexpected { what });
        }
    }
    Ok(())
}

/// Walks the calling thread.
type Walk<'a> = &'a dyn Fn(&Registers, &mut dyn FnMut(Frame)) -> WalkEnd;

/// In the host call: our frames and Wasmtime's.
fn compare(
    caller: &Caller<'_, Vec<Result<(), String>>>,
    image: &Arc<CodeImage>,
    text: usize,
    walk: Walk<'_>,
) -> Result<(), String> {
    let ours = seen(image, text, walk)?;
    let theirs: Vec<Seen> = WasmBacktrace::force_capture(caller)
        .frames()
        .iter()
        .map(|frame| {
            (Some(frame.func_index()), frame.module_offset().and_then(|offset| offset.try_into().ok()))
        })
        .collect();
    if theirs.iter().any(|(_, offset)| offset.is_none()) {
        return Err("compiled code has no address map (Config::generate_address_map)".to_owned());
    }
    if ours == theirs && theirs.len() == 3 {
        return Ok(());
    }
    Err(format!(
        "the walk gives {ours:x?} (function, bytecode offset) where Wasmtime's backtrace has {theirs:x?}"
    ))
}

fn seen(image: &Arc<CodeImage>, text: usize, walk: Walk<'_>) -> Result<Vec<Seen>, String> {
    let here = 0u8;
    // In host code the walk uses nothing but the stack pointer, for which an address in this frame will do.
    let registers = Registers { sp: (&raw const here).addr(), ..Registers::default() };
    let mut symbolizer =
        Symbolizer::new(Arc::clone(image), "check", None, None).map_err(|error| error.to_string())?;
    let mut seen = Vec::new();
    let end = walk(&registers, &mut |frame| {
        if let Frame::ReturnAddress(address) = frame {
            let offset = u32::try_from(address.wrapping_sub(text)).unwrap_or_default();
            // The physical function is the last of those that the address lies in.
            let frames = symbolizer.frames(CodeAddress::ReturnAddress(offset));
            seen.extend(frames.last().map(|frame| (frame.function_index, frame.bytecode_offset)));
        }
    });
    if end != WalkEnd::EntryTrampoline {
        return Err(format!("the walk ended early: {}", end.describe()));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use wasmtime::{
        Config, Inlining, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    };

    use super::*;

    fn engine(configure: impl FnOnce(&mut Config) -> &mut Config) -> Engine {
        let mut config = Config::new();
        configure(&mut config);
        Engine::new(&config).unwrap()
    }

    #[test]
    fn the_binary_is_that_of_the_text() {
        assert_eq!(GUEST, wat::parse_str(include_str!("check.wat")).unwrap());
    }

    #[test]
    fn engines_of_every_kind_pass() {
        check(&Engine::default()).unwrap();
        check(&engine(|config| config.strategy(Strategy::Winch))).unwrap();
        check(&engine(|config| config.cranelift_opt_level(OptLevel::None))).unwrap();
        check(&engine(|config| config.consume_fuel(true))).unwrap();
        check(&engine(|config| config.epoch_interruption(true))).unwrap();
        check(&engine(|config| config.native_unwind_info(false))).unwrap();
        check(&engine(|config| config.wasm_backtrace_max_frames(None))).unwrap();
        check(&engine(|config| config.debug_info(true))).unwrap();
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(4).total_memories(4).total_tables(4).total_gc_heaps(4);
        let pooling = InstanceAllocationStrategy::Pooling(pool);
        check(&engine(|config| config.allocation_strategy(pooling))).unwrap();
    }

    /// The check's own guest was inlined into one function, and engines that inline were refused since its calls, as all
    /// code that Wasmtime inlines, have no bytecode offset.
    #[test]
    fn an_engine_that_inlines_passes() {
        check(&engine(|config| config.compiler_inlining(Inlining::Yes))).unwrap();
    }

    #[test]
    fn an_engine_without_address_map_is_refused() {
        let error = check(&engine(|config| config.generate_address_map(false))).unwrap_err();
        assert!(error.to_string().contains("no address map"), "{error}");
    }

    #[test]
    fn an_engine_without_symbols_is_refused() {
        let error = check(&engine(|config| config.debug_symbols(false))).unwrap_err();
        assert!(matches!(error, Error::Code(_)), "{error}");
    }
}

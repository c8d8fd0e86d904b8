//! Finds Wasmtime's list of activations by what its words hold.
//!
//! On a thread of its own, a guest of store A calls the host, which enters the same store again, whose guest calls the
//! host, which enters store B, whose guest calls the host. In each of the three host calls the thread-local word must be
//! the address of a record on the stack between the entry of this guest and the exit of the one before; before and after
//! it must be null. The three records must hold their stores and each other, and what the store held before. Exactly
//! one word has to fit, or no guest is profiled: then this is not a Wasmtime that the profiler understands.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use flamewalk_handler::activation::{ActivationLayout, ExitState, ExitStateLayout};
use wasmtime::{AsContextMut, Caller, Engine, Extern, Func, Instance, Module};

use super::{ActivationList, Block, WORD, known_layout, store_context, thread_local_blocks};
use crate::check;
use crate::error::Error;
use crate::thread;

/// How far behind the address of an activation its words are looked for; its record has some 100 bytes.
const MOST_ACTIVATION_BYTES: usize = 256;
/// The same for what the store held before.
const MOST_SAVED_BYTES: usize = 128;
/// How deep guests are entered.
const LEVELS: usize = 3;

/// What was seen in one of the nested host calls.
struct Level {
    store: usize,
    exit: ExitState,
    /// The values of all thread-local words.
    words: Vec<usize>,
}

/// What the nested guests share with the search.
struct Search {
    blocks: Vec<Block>,
    stack: Range<usize>,
    /// The values of all thread-local words before any guest.
    outside: Vec<usize>,
    levels: Vec<Level>,
    result: Option<Result<ActivationList, String>>,
}

type Shared = Arc<Mutex<Search>>;

/// Finds the list, on a thread on which no guest runs.
pub(super) fn find(engine: &Engine) -> Result<ActivationList, Error> {
    let blocks = thread_local_blocks();
    let outside = read_all(&blocks);
    let stack = thread::stack_bounds()?;
    let search = Search { blocks, stack, outside, levels: Vec::new(), result: None };
    let search = Arc::new(Mutex::new(search));
    let refused = |error: wasmtime::Error| Error::Store { message: format!("{error:#}") };
    let module = Module::new(engine, check::GUEST).map_err(refused)?;
    enter_new_store(&module, &search).map_err(refused)?;

    let result =
        lock(&search).result.take().unwrap_or_else(|| Err("the guests did not call the host".to_owned()));
    let list = result.map_err(|what| Error::Unexpected { what })?;
    // SAFETY: this thread's own word.
    let after = unsafe { read(list.word_of_this_thread()?) };
    if ActivationList::youngest(after) != 0 {
        return Err(Error::Unexpected { what: format!("an activation is left behind at {after:#x}") });
    }
    Ok(list)
}

fn lock(search: &Shared) -> std::sync::MutexGuard<'_, Search> {
    search.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the guest in a store of its own.
fn enter_new_store(module: &Module, search: &Shared) -> wasmtime::Result<()> {
    let mut store = check::store(module.engine(), ());
    let (module, search) = (module.clone(), Arc::clone(search));
    let host = Func::wrap(&mut store, {
        let module = module.clone();
        move |caller: Caller<'_, ()>, _: i64| in_host_call(caller, &module, &search)
    });
    let instance = Instance::new(&mut store, &module, &[host.into()])?;
    instance.get_typed_func::<(), ()>(&mut store, "outer")?.call(&mut store, ())
}

/// Notes what there is to see, and enters the next guest.
fn in_host_call(mut caller: Caller<'_, ()>, module: &Module, search: &Shared) -> wasmtime::Result<()> {
    let export = |caller: &mut Caller<'_, ()>, name| caller.get_export(name).and_then(Extern::into_func);
    let context =
        export(&mut caller, "context").ok_or_else(|| wasmtime::Error::msg("an export is missing"))?;
    let store = store_context(&mut caller, &context)?;
    let level = {
        let mut search = lock(search);
        if search.levels.len() == LEVELS {
            return Ok(());
        }
        let words = read_all(&search.blocks);
        // SAFETY: the context of the store that this host function was called from.
        let exit = unsafe { read_exit_state(store, &known_layout().current) };
        search.levels.push(Level { store, exit, words });
        search.levels.len()
    };
    match level {
        1 => match export(&mut caller, "outer") {
            Some(outer) => outer.typed::<(), ()>(&caller)?.call(caller.as_context_mut(), ()),
            None => Err(wasmtime::Error::msg("an export is missing")),
        },
        LEVELS => {
            let mut search = lock(search);
            let result = search.list();
            search.result = Some(result);
            Ok(())
        }
        _ => enter_new_store(module, search),
    }
}

/// The values of all words, in order.
fn read_all(blocks: &[Block]) -> Vec<usize> {
    // SAFETY: words of this thread's own blocks, which stay mapped while it runs.
    blocks.iter().flat_map(Block::words).map(|address| unsafe { read(address) }).collect()
}

/// # Safety
///
/// `address` must be that of a word that can be read.
unsafe fn read(address: usize) -> usize {
    // SAFETY: the caller's promise. Volatile, since what writes the word is unknown to the compiler.
    unsafe { std::ptr::with_exposed_provenance::<usize>(address).read_volatile() }
}

/// # Safety
///
/// `address` must be that of something with an exit state of this layout.
unsafe fn read_exit_state(address: usize, layout: &ExitStateLayout) -> ExitState {
    // SAFETY: the caller's promise.
    unsafe {
        ExitState {
            exit_fp: read(address + layout.exit_fp),
            exit_pc: read(address + layout.exit_pc),
            entry_fp: read(address + layout.entry_fp),
        }
    }
}

impl Search {
    /// The list, in the innermost host call: all activations are live.
    fn list(&self) -> Result<ActivationList, String> {
        let mut fitting = self.blocks.iter().flat_map(|block| {
            block.words().map(move |address| (block.object, address - block.addresses.start))
        });
        let places: Vec<_> = fitting.by_ref().collect();
        let mut found = Vec::new();
        for (index, (object, offset)) in places.into_iter().enumerate() {
            if let Some(layout) = self.activations(index).and_then(|activations| self.layout(activations)) {
                found.push(ActivationList { object, offset, layout });
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            count => Err(format!("{count} thread-local words could be the list of activations")),
        }
    }

    /// The addresses of the three activations, oldest first, if the thread-local word with this index has them.
    fn activations(&self, index: usize) -> Option<[usize; LEVELS]> {
        let value = |words: &[usize]| words.get(index).map(|word| ActivationList::youngest(*word));
        if value(&self.outside)? != 0 {
            return None;
        }
        let mut top = self.stack.end;
        let mut addresses = [0; LEVELS];
        for (level, address) in self.levels.iter().zip(&mut addresses) {
            *address = value(&level.words)?;
            if !address.is_multiple_of(WORD) || !(level.exit.entry_fp..top).contains(address) {
                return None;
            }
            top = level.exit.exit_fp;
        }
        Some(addresses)
    }

    /// The layout by which the activations at these addresses hold what they have to.
    fn layout(&self, [first, second, third]: [usize; LEVELS]) -> Option<ActivationLayout> {
        let [a, again, b] = &self.levels[..] else { return None };
        let holds = |offset: usize, values: [usize; LEVELS]| {
            [first, second, third]
                .into_iter()
                .zip(values)
                .all(|(at, value)| self.word(at + offset) == Some(value))
        };
        let offsets = || (0..MOST_ACTIVATION_BYTES).step_by(WORD);
        let store = offsets().find(|offset| holds(*offset, [a.store, again.store, b.store]))?;
        let older = offsets().find(|offset| holds(*offset, [0, first, second]))?;
        // The second entry of store A has overwritten where its guest was left first; the other two found nothing.
        let saved = |before: [usize; LEVELS]| {
            let word = |values: [usize; LEVELS]| {
                (0..MOST_SAVED_BYTES).step_by(WORD).find(|offset| {
                    before.into_iter().zip(values).all(|(at, value)| self.word(at + offset) == Some(value))
                })
            };
            Some(ExitStateLayout {
                exit_fp: word([0, a.exit.exit_fp, 0])?,
                exit_pc: word([0, a.exit.exit_pc, 0])?,
                entry_fp: word([0, a.exit.entry_fp, 0])?,
            })
        };
        let (before, saved) = offsets().find_map(|offset| {
            let [first, second, third] = [first, second, third].map(|at| self.word(at + offset));
            saved([first?, second?, third?]).map(|saved| (offset, saved))
        })?;
        Some(ActivationLayout { store, older, before, saved, ..known_layout() })
    }

    /// A word of the stack; `None` outside of it.
    fn word(&self, address: usize) -> Option<usize> {
        let here = 0_usize;
        let live = (&raw const here).addr()..self.stack.end - WORD;
        if !address.is_multiple_of(WORD) || !live.contains(&address) {
            return None;
        }
        // SAFETY: a word of the live part of this thread's stack.
        Some(unsafe { read(address) })
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{
        Config, Inlining, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    };

    use super::*;

    /// A process searches once, in the first engine that it profiles, whichever that is.
    #[test]
    fn every_kind_of_engine_finds_the_same_list() {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(4).total_memories(4).total_tables(4).total_gc_heaps(4);
        let pooling = InstanceAllocationStrategy::Pooling(pool);
        let configure: [&dyn Fn(&mut Config) -> &mut Config; 6] = [
            &|config| config,
            &|config| config.compiler_inlining(Inlining::Yes),
            &|config| config.compiler_inlining(Inlining::Yes).cranelift_opt_level(OptLevel::None),
            &|config| config.strategy(Strategy::Winch),
            &|config| config.allocation_strategy(pooling.clone()),
            &|config| config.signals_based_traps(false).native_unwind_info(false),
        ];
        let found = configure.map(|configure| {
            let mut config = Config::new();
            let engine = Engine::new(configure(&mut config)).unwrap();
            let list = std::thread::spawn(move || find(&engine)).join().unwrap().unwrap();
            (list.offset, list.layout)
        });
        assert!(found.iter().all(|list| *list == found[0]), "{found:?}");
    }
}

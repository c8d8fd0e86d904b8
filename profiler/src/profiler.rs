//! The profiler, as an embedder uses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flamewalk_collector::Extent;
use flamewalk_profile::{Labels, Metadata, Profile, Statistics};
use wasmtime::component::Component;
use wasmtime::{AsContextMut, Engine, Func, Instance, Module, Store};

use crate::error::Error;
use crate::layout::ActivationList;
use crate::options::Options;
use crate::registration::{Code, Guest, KeptCode, Registration};
use crate::shared::Shared;
use crate::store::{StoreHook, StoreLabels};
use crate::window::Window;
use crate::{check, code_memory, thread};

/// Whether there is a profiler in this process.
static EXISTS: AtomicBool = AtomicBool::new(false);

/// `(module (func (export "")))`: a function to find a store's context by.
pub(crate) const PROBE: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x04\x01\0\0\0\x0a\x04\x01\x02\0\x0b";

/// How many engines a profiler keeps.
const MAX_PROBES: usize = 4;

/// A sampling profiler for the guests of this process.
///
/// ```text
///                      start                      pause
///   new ──▶ ┌─────────┐ ──▶ ┌──────────────────┐ ──────▶ ┌──────────────────┐
///           │ stopped │     │ sampling         │         │ paused           │
///           └─────────┘ ◀── └──────────────────┘ ◀────── └──────────────────┘
///                │     stop   snapshot, statistics resume  snapshot, statistics
///                │                                                   │
///                └◀──────────────────── stop ───────────────────────┘
///
///   at any time: register guests, attach stores and threads, set_rate, window, drop
/// ```
///
/// Everything can be called at any time and from any thread, while guests run or from within a host call. What does not
/// fit the state is an error that changes nothing; pausing what is paused and resuming what is not change nothing
/// either.
///
/// There is one in a process at a time. Dropping it stops sampling and puts the handler of the signal back that was
/// there before, unless another one was installed meanwhile; stores that are attached stay usable. In a process that was
/// forked from this one's, sampling ends without a trace, control is refused with [`Error::Forked`], and guests run on;
/// the parent is not disturbed. After dropping its copy, the child can create a profiler of its own. (Not ours to change:
/// Wasmtime cannot compile there, which [`Profiler::attach`] needs, unless its parallel compilation is off;
/// [`Profiler::hook_with`] does without.)
#[derive(Debug)]
pub struct Profiler {
    shared: Arc<Shared>,
    /// The code of registered guests.
    code: Arc<KeptCode>,
    /// The probe, compiled for each of the engines that stores were attached of last, which have been checked; the last one
    /// first. An engine lives for as long as a module of its own.
    probes: Mutex<Vec<Module>>,
    /// Makes room for the next profiler when it is dropped, which is last.
    _only: OnlyOne,
}

#[derive(Debug)]
struct OnlyOne;

impl OnlyOne {
    fn new() -> Result<Self, Error> {
        // Pair: the store in `drop`.
        if EXISTS.swap(true, Ordering::AcqRel) { Err(Error::AlreadyExists) } else { Ok(Self) }
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        // Pair: the swap in `new`.
        EXISTS.store(false, Ordering::Release);
    }
}

impl Profiler {
    /// A profiler that does not sample yet.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] if there is one in this process; [`Error::Rate`], [`Error::FrameLimit`] or
    /// [`Error::Signal`] for options out of range.
    pub fn new(options: Options) -> Result<Self, Error> {
        crate::source::check_rate(options.rate)?;
        crate::signal::check(options.signal)?;
        if options.frame_limit == 0 {
            return Err(Error::FrameLimit);
        }
        let only = OnlyOne::new()?;
        let shared = Shared::new(options);
        code_memory::begin(&shared.registry);
        Ok(Self {
            code: Arc::new(KeptCode::new(Arc::clone(&shared.registry))),
            shared: Arc::new(shared),
            probes: Mutex::default(),
            _only: only,
        })
    }

    /// Makes the functions of a module known. Frames in code that is not registered cannot be shown.
    ///
    /// The module stays in memory for as long as the profiler, or until [`Registration::end`]. An engine with a
    /// [`ProfiledCodeMemory`](crate::ProfiledCodeMemory) has its modules known without this, and none is kept in
    /// memory: there, this adds what `guest` says.
    ///
    /// # Errors
    ///
    /// [`Error::Code`] if the image is not one that this version understands; [`Error::Register`] if it is registered
    /// already; [`Error::Symbols`] if the symbols are not those of the binary.
    pub fn register_module(&self, module: &Module, guest: Guest) -> Result<Registration, Error> {
        self.code.register(Code::Module(module.clone()), guest)
    }

    /// Makes the functions of all modules of a component known; see [`Profiler::register_module`].
    ///
    /// # Errors
    ///
    /// As for [`Profiler::register_module`].
    pub fn register_component(&self, component: &Component, guest: Guest) -> Result<Registration, Error> {
        self.code.register(Code::Component(component.clone()), guest)
    }

    /// Attaches a store through its call hook: the guests that it runs, on whatever thread, are sampled.
    ///
    /// Replaces the store's call hook; an embedder that has one calls [`Profiler::hook`]'s from its own. An
    /// instance of a tiny module is added to the store, which has to be done before it is told to yield at epochs or
    /// when fuel runs out, and which counts: for the store's limiter, and as a core instance of the pooling allocator, whose
    /// slots a store that ends gives back. Or use [`Profiler::hook_with`]. The result sets the store's labels.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the store does not let the instance be made; [`Error::Unexpected`] or [`Error::Code`]
    /// if the engine is not one whose stacks can be walked, which is checked when an engine is not among the four that were
    /// used last and that the profiler keeps for that; [`Error::Forked`].
    pub fn attach<T: 'static>(&self, store: &mut Store<T>) -> Result<StoreLabels, Error> {
        let hook = Arc::new(self.hook(&mut *store)?);
        let labels = StoreLabels::of(&hook);
        store.call_hook(move |_, event| {
            hook.call(event);
            Ok(())
        });
        Ok(labels)
    }

    /// What [`Profiler::attach`] puts into the store's call hook, for embedders with a call hook of their own,
    /// and for those who want none: the store is attached for as long as the result lives, on threads that are attached
    /// with [`Profiler::attach_thread`].
    ///
    /// # Errors
    ///
    /// As for [`Profiler::attach`].
    pub fn hook(&self, mut store: impl AsContextMut) -> Result<StoreHook, Error> {
        self.shared.check_process()?;
        let probe = self.probe(store.as_context_mut().engine())?;
        let instance = Instance::new(&mut store, &probe, &[]).map_err(refused)?;
        let func = instance
            .get_func(&mut store, "")
            .ok_or_else(|| Error::Store { message: "the probe has no function".to_owned() })?;
        self.hook_with(store, &func)
    }

    /// As [`Profiler::hook`], without adding an instance: by way of any function that an instance in this store
    /// exports.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the function is one of the host; [`Error::Forked`].
    pub fn hook_with(&self, store: impl AsContextMut, func: &Func) -> Result<StoreHook, Error> {
        StoreHook::new(Arc::clone(&self.shared), store, func)
    }

    /// Makes the calling thread known, as running a guest of an attached store through its call hook does: for stores
    /// whose call hook is not used, and for the threads of a pool as they start. A thread that is known already stays so.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the thread cannot be sampled; [`Error::Unexpected`] if no engine was checked yet and a new one
    /// does not pass; [`Error::Forked`].
    pub fn attach_thread(&self) -> Result<(), Error> {
        self.shared.check_process()?;
        if ActivationList::of_process().is_err() {
            check::check(&Engine::default())?;
        }
        thread::attach_current(&self.shared)
    }

    fn probe(&self, engine: &Engine) -> Result<Module, Error> {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        match probes.iter().position(|probe| Engine::same(probe.engine(), engine)) {
            Some(known) => probes[..=known].rotate_right(1),
            None => {
                check::check(engine)?;
                probes.truncate(MAX_PROBES - 1);
                probes.insert(0, Module::new(engine, PROBE).map_err(refused)?);
            }
        }
        Ok(probes[0].clone())
    }

    /// Begins sampling.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyRunning`], also if paused; [`Error::NoEvent`] or [`Error::EventRefused`] if the event cannot be had;
    /// [`Error::System`]; [`Error::Forked`].
    pub fn start(&self) -> Result<(), Error> {
        self.shared.start()
    }

    /// Whether the profiler is sampling, or paused. What only a [`Window`] is open for does not count.
    pub fn is_running(&self) -> bool {
        self.shared.is_running()
    }

    /// Stops all ticks, those of other windows as well, and keeps what was collected. The profile tells how long it was paused.
    ///
    /// Weight that was counted since a thread's last tick falls on its first one after the pause. A tick that is on its
    /// way can still arrive.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Forked`].
    pub fn pause(&self) -> Result<(), Error> {
        self.shared.pause()
    }

    /// Ends a pause.
    ///
    /// # Errors
    ///
    /// As for [`Profiler::pause`].
    pub fn resume(&self) -> Result<(), Error> {
        self.shared.resume()
    }

    /// Whether the profiler is paused.
    pub fn is_paused(&self) -> bool {
        self.shared.is_paused()
    }

    /// The rate in Hz at which is sampled, now or after the next start.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`].
    pub fn rate(&self) -> Result<u32, Error> {
        self.shared.rate()
    }

    /// Changes the rate, in Hz, at once if the profiler is sampling. No weight is lost; the profile names the rates.
    ///
    /// # Errors
    ///
    /// [`Error::Rate`] if it is out of range; [`Error::NoEvent`] or [`Error::EventRefused`] if the kernel does not have
    /// the event at this rate; [`Error::Forked`]. The rate is then what it was.
    pub fn set_rate(&self, rate: u32) -> Result<(), Error> {
        self.shared.set_rate(rate)
    }

    /// The profile so far, while sampling goes on. What the guest is and how it ended can be given in
    /// `metadata`; the rest of it is filled in.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Forked`].
    pub fn snapshot(&self, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.snapshot(None, metadata, Extent::All)
    }

    /// As [`Profiler::snapshot`], of what was sampled in stores that had all of `labels` at the time, and of nothing
    /// else: no name, number or thread of others. Its statistics hold what was delivered of it and no more.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Forked`].
    pub fn snapshot_labelled(&self, labels: Labels, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.snapshot(None, metadata, Extent::Labelled(labels))
    }

    /// As [`Profiler::snapshot`], and begins anew: for a profile each few seconds. Each sample is in one of them, or in
    /// the one that [`Profiler::stop`] returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Forked`].
    pub fn take(&self, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.snapshot(None, metadata, Extent::Rest)
    }

    /// What became of the ticks so far, and what the profiler takes, without the work of making a profile.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Forked`].
    pub fn statistics(&self) -> Result<Statistics, Error> {
        self.shared.statistics(None)
    }

    /// Opens a window: a profile of what is sampled from now on, whether or not the profiler is started, stopped or read
    /// meanwhile, and without disturbing that. Several can be open at once. If nothing else is sampling, it is sampled for
    /// as long as the window is open, at `rate` Hz, or at the profiler's own rate.
    ///
    /// Sampling costs the guests what it costs for one; each window costs the collector memory and work.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRate`] if sampling is under way at another rate than `rate`; [`Error::Rate`] if that is out of range;
    /// [`Error::NoEvent`] or [`Error::EventRefused`] if the event cannot be had; [`Error::System`]; [`Error::Forked`].
    pub fn window(&self, rate: Option<u32>) -> Result<Window, Error> {
        Window::open(Arc::clone(&self.shared), rate)
    }

    /// Ends sampling and returns the profile; see [`Profiler::snapshot`]. The profiler can be started again.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Forked`].
    pub fn stop(&self, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.finish(None, metadata, Extent::All)
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        if !self.shared.process.is_current() {
            // The parent's, down to locks that are never released here and a thread that never ends: all of it stays.
            std::mem::forget((Arc::clone(&self.code), Arc::clone(&self.shared)));
            return;
        }
        self.shared.end();
        // No source is left, and none can be made any more.
        crate::signal::restore(self.shared.options.signal);
        // Threads that are still in a guest may be sampled by the next profiler only; the code goes now.
        code_memory::end();
        self.code.forget_all();
    }
}

pub(crate) fn refused(error: wasmtime::Error) -> Error {
    Error::Store { message: format!("{error:#}") }
}

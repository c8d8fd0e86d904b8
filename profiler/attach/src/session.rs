//! Sampling one process: from the first tick to the profile.
//!
//! One thread drains the rings of the kernel, puts what happened in order, walks the samples and hands them to the
//! collector, which is the one that collects from inside: a channel for each thread of the target takes the place of
//! the one that a handler writes to.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use flamewalk_collector::{Collector, Extent, Sampling, Window};
use flamewalk_profile::{Event, Metadata, Profile, Statistics};
use flamewalk_symbolizer::registry::CodeRegistry;
use flamewalk_symbolizer::{GuestBinary, HostSymbolizer};

use crate::Error;
use crate::host::HostObjects;
use crate::images::{Images, SymbolSource};
use crate::sampler::{Event as SampledEvent, Sampler, monotonic_time};
use crate::target::Target;
use stack_copy::StackCopy;
use worker::{Parts, Worker};

mod stack_copy;
mod worker;

/// The default values of [`Options`], for those who show them in a help text.
pub mod defaults {
    /// Rate in Hz: a prime, so that it does not beat with periods of the guest.
    pub const RATE: u32 = 997;
    /// Frames that a sample holds at most.
    pub const FRAME_LIMIT: usize = 1024;
    /// What is copied of a stack at most: 32 KiB.
    pub const STACK_BYTES: u32 = 32 << 10;
}

/// How to sample. Start from [`Options::default`] and change what is to be different.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Ticks per second of CPU time of each thread, from 1 to 20,000. Default: [`defaults::RATE`].
    pub rate: u32,
    /// How many frames a sample holds at most; of longer stacks the youngest frames are kept. Default:
    /// [`defaults::FRAME_LIMIT`].
    pub frame_limit: usize,
    /// Whether stacks hold the native functions of the host, too. They are unwound in any case. Default: no.
    pub host_frames: bool,
    /// How many bytes of a stack the kernel copies at most at each tick, from 1 KiB to 63 KiB, a multiple of 8. What is copied
    /// costs the target time: it begins with 8 KiB, and is doubled whenever walks run out of it in one sample of 100. What
    /// lies deeper is missing. Default: [`defaults::STACK_BYTES`].
    pub stack_bytes: u32,
    /// The threads to sample, without those that they start; all threads, present and future, if empty. Default: all.
    pub threads: Vec<i32>,
    /// Binaries to take names and lines from, each with the name that its guest is to have. A binary is used for the images
    /// that can have been compiled from it.
    pub symbols: Vec<(String, Vec<u8>)>,
    /// Whether to begin although the process has no code of a guest yet. Default: no.
    pub wait_for_guests: bool,
    /// How long to sample. Default: until it is stopped.
    pub duration: Option<Duration>,
    /// How the collector works.
    pub collector: flamewalk_collector::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: defaults::RATE,
            frame_limit: defaults::FRAME_LIMIT,
            host_frames: false,
            stack_bytes: defaults::STACK_BYTES,
            threads: Vec::new(),
            symbols: Vec::new(),
            wait_for_guests: false,
            duration: None,
            collector: flamewalk_collector::Options::default(),
        }
    }
}

/// A process that is being sampled. Dropping it ends that, and leaves nothing behind in the process.
#[derive(Debug)]
pub struct Attachment {
    window: Window,
    state: Arc<State>,
    worker: Option<JoinHandle<Duration>>,
    started: Instant,
    metadata: Metadata,
    /// The collector reads symbols through it until the last profile is made.
    _target_root: Arc<File>,
}

/// What the sampling thread and the attachment share.
#[derive(Debug, Default)]
struct State {
    /// Set to have the thread end.
    stop: AtomicBool,
    /// Set by the thread when it ends.
    has_ended: AtomicBool,
    notices: Mutex<Vec<String>>,
}

impl Attachment {
    /// Begins to sample a process.
    ///
    /// # Errors
    ///
    /// [`Error`], if it cannot be sampled or an option is out of its bounds. Nothing has happened to the process then.
    pub fn start(pid: i32, options: Options) -> Result<Self, Error> {
        check(&options)?;
        let target = Target::open(pid)?;
        let threads = target.threads()?;
        if let Some(thread) = options.threads.iter().find(|thread| !threads.contains(thread)) {
            return Err(Error::NoThread { pid, thread: *thread });
        }
        let symbols = symbols(&options.symbols)?;
        let mappings = target.mappings()?;
        let probe = mappings.first().map_or(0, |mapping| mapping.range.start);
        match target.read(probe, &mut [0]) {
            Err(nix::errno::Errno::EPERM) => return Err(target.memory_refused()),
            Err(nix::errno::Errno::ENOSYS) => return Err(target.memory_refused()),
            _ => {}
        }
        // What takes long and seldom changes is read before the target pays for anything. What is new is read below.
        let mut host_objects = HostObjects::default();
        host_objects.load(&target, &mappings);
        // What is mapped after this is on record.
        let (first, most) = (StackCopy::up_to(options.stack_bytes).bytes(), options.stack_bytes);
        let mut waiting = Vec::new();
        let mut sampler = Sampler::open(&target, &options.threads, options.rate, first, most, &mut waiting)?;
        let registry = Arc::<CodeRegistry>::default();
        let mut images = Images::new(Arc::clone(&registry), symbols);
        let host = draining(&sampler, &mut waiting, || {
            let mappings = target.mappings()?;
            images.scan(&target, &mappings, monotonic_time());
            Ok(host_objects.load(&target, &mappings))
        })?;
        if images.found() == 0 && !options.wait_for_guests {
            return Err(match images.notices().first() {
                Some(reason) => Error::UnknownImage { pid, reason: reason.clone() },
                None => Error::NoWasmtime { pid },
            });
        }
        let symbolizer = HostSymbolizer::new(host.objects().to_vec());
        let system = |action| move |source| Error::System { action, source };
        let collector =
            Collector::start(Arc::clone(&registry), Arc::default(), symbolizer, &options.collector)
                .map_err(system("start the collector thread"))?;
        let collector = Arc::new(collector);
        let window = collector.open()?;
        let metadata = describe(&target, &options, sampler.is_user_only());
        let target_root = target.root();
        let state = Arc::<State>::default();
        let (began, started) = (sampler.begin(&mut waiting), Instant::now());
        let parts = Parts { target, sampler, began, waiting, images, registry, host_objects, host };
        let worker = Worker::new(parts, collector, &options);
        let shared = Arc::clone(&state);
        let worker = std::thread::Builder::new()
            .name("flamewalk-attach".into())
            .spawn(move || worker.run(&shared))
            .map_err(system("start the sampling thread"))?;
        Ok(Self { window, state, worker: Some(worker), started, metadata, _target_root: target_root })
    }

    /// Whether nothing more will be sampled: the process or all of the chosen threads have ended, it has begun another program,
    /// or [`Options::duration`] is over.
    pub fn has_ended(&self) -> bool {
        // Pair: the store at the end of the thread, which orders nothing but itself. One that panics does not get there.
        self.state.has_ended.load(Ordering::Relaxed)
            || self.worker.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What became of the ticks so far.
    ///
    /// # Errors
    ///
    /// [`Error::Collector`] if the collector has failed.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        Ok(self.window.statistics()?)
    }

    /// What was sampled so far, while sampling goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Collector`] and [`Error::Profile`].
    pub fn snapshot(&self) -> Result<Profile, Error> {
        self.profile(None)
    }

    /// Ends sampling and returns what was sampled.
    ///
    /// # Errors
    ///
    /// [`Error::Collector`], [`Error::Profile`] and [`Error::SamplerGone`].
    pub fn stop(mut self) -> Result<Profile, Error> {
        let ended = self.end_worker()?;
        self.profile(ended)
    }

    /// Of all that was sampled, for so long, or of what was sampled so far.
    fn profile(&self, ended: Option<Duration>) -> Result<Profile, Error> {
        let mut metadata = self.metadata.clone();
        let notices = self.state.notices.lock().unwrap_or_else(PoisonError::into_inner);
        metadata.notices.extend(notices.iter().cloned());
        drop(notices);
        let started = self.started;
        let describe = move |drained: Instant| {
            metadata.duration = Some(ended.unwrap_or_else(|| drained.saturating_duration_since(started)));
            metadata
        };
        let sampling = if ended.is_some() { Sampling::Ended } else { Sampling::Ongoing };
        let mut profile = self.window.snapshot(describe, sampling, Extent::All)??;
        let ticks = profile.metadata.statistics.ticks;
        let seconds = ticks.weight as f64 / 1e9;
        profile.metadata.real_rate = (seconds > 0.0).then(|| ticks.samples as f64 / seconds);
        Ok(profile)
    }

    /// Returns for how long it was sampled, the first time.
    fn end_worker(&mut self) -> Result<Option<Duration>, Error> {
        // Pair: the load in the thread's loop, which orders nothing but itself; joining orders the rest.
        self.state.stop.store(true, Ordering::Relaxed);
        let Some(worker) = self.worker.take() else { return Ok(None) };
        worker.thread().unpark();
        worker.join().map(Some).map_err(|_| Error::SamplerGone)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Err(error) = self.end_worker() {
            tracing::error!("{error}");
        }
    }
}

/// Does something that takes long while the rings are drained, so that none of them runs over.
fn draining<T: Send>(
    sampler: &Sampler,
    events: &mut Vec<SampledEvent>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let this = std::thread::current();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work();
            this.unpark();
            result
        });
        while !worker.is_finished() {
            sampler.drain(events);
            std::thread::park_timeout(sampler.drain_interval());
        }
        worker.join().unwrap_or(Err(Error::SamplerGone))
    })
}

fn check(options: &Options) -> Result<(), Error> {
    let rate = u64::from(options.rate);
    if !(1..=20_000).contains(&rate) {
        return Err(Error::Setting { what: "the rate", value: rate, bounds: "1 to 20000 Hz" });
    }
    let bytes = u64::from(options.stack_bytes);
    if !(1 << 10..=63 << 10).contains(&bytes) || !bytes.is_multiple_of(8) {
        let bounds = "1024 to 64512 bytes, a multiple of 8";
        return Err(Error::Setting { what: "the copied part of the stack", value: bytes, bounds });
    }
    if options.frame_limit == 0 {
        return Err(Error::Setting { what: "the frame limit", value: 0, bounds: "1 or more" });
    }
    Ok(())
}

fn symbols(files: &[(String, Vec<u8>)]) -> Result<Vec<SymbolSource>, Error> {
    let source = |(name, bytes): &(String, Vec<u8>)| {
        let binary = GuestBinary::from(bytes.clone());
        binary.check().map_err(|source| Error::Symbols { name: name.clone(), source })?;
        Ok(SymbolSource { name: name.as_str().into(), binary })
    };
    files.iter().map(source).collect()
}

/// What is known of the profile from the start.
fn describe(target: &Target, options: &Options, user_only: bool) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.event = Event::time("cpu");
    metadata.engine = Some(match user_only {
        true => "perf cpu-clock of user code, from outside".to_owned(),
        false => "perf cpu-clock, from outside".to_owned(),
    });
    metadata.asked_rate = Some(f64::from(options.rate));
    metadata.period = Some(1_000_000_000 / u64::from(options.rate));
    metadata.command = target.command();
    metadata.guest = Some(format!("process {}", target.pid()));
    metadata.start = Some(SystemTime::now());
    metadata
}

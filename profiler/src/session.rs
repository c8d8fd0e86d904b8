//! What all parts of one profiler share: its code, its threads, and the session that is running.

use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_collector::{Channel, Collector, Extent, LabelTable, Sampling};
use flamewalk_handler::stores::Stores;
use flamewalk_profile::{Metadata, Profile, Statistics};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::CodeRegistry;

use crate::error::Error;
use crate::fork::Process;
use crate::host::{HostCode, HostFrames};
use crate::options::Options;
use crate::source::{Plan, check_rate};
use crate::thread::{Armed, Thread};
use crate::timeline::Timeline;

/// Notices that a session keeps at most: as many threads as like can fail to be sampled.
const MAX_NOTICES: usize = 64;

/// Shared by the profiler, the stores that are attached to it and the threads that enter them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<CodeRegistry>,
    /// The stores that are attached.
    pub(crate) stores: Stores,
    /// The sets of labels that attached stores have had.
    pub(crate) labels: Arc<LabelTable>,
    pub(crate) options: Options,
    /// Where this was made. Nowhere else may anything be done with it.
    pub(crate) process: Process,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In Hz, of this session or the next one.
    rate: u32,
    threads: Vec<Arc<Thread>>,
    session: Option<Session>,
}

/// From a start to the next stop. A clone is the same session, for work on it that takes longer than the lock should.
#[derive(Clone, Debug)]
struct Session {
    plan: Plan,
    /// The host's own code, if its frames are wanted.
    host: Option<Arc<HostCode>>,
    collector: Arc<Collector>,
    timeline: Timeline,
    notices: Vec<String>,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            registry: Arc::default(),
            stores: Stores::default(),
            labels: Arc::default(),
            process: Process::current(),
            state: State { rate: options.rate, threads: Vec::new(), session: None }.into(),
            options,
        }
    }

    /// # Errors
    ///
    /// [`Error::Forked`] in a process that was forked from this one's, where locks might never be free.
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if self.process.is_current() { Ok(()) } else { Err(Error::Forked) }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.check_process()?;
        // Nothing is left half changed by a panic.
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a thread, which is sampled at once if a session is running.
    pub(crate) fn add_thread(&self, thread: Arc<Thread>) {
        let Ok(mut state) = self.state() else { return };
        if let Some(session) = &mut state.session {
            session.arm(&thread, &self.options);
        }
        state.threads.push(thread);
    }

    /// Removes a thread, for which nothing is left to be done afterwards.
    pub(crate) fn remove_thread(&self, thread: &Arc<Thread>) {
        let Ok(mut state) = self.state() else { return };
        thread.disarm();
        state.threads.retain(|known| !Arc::ptr_eq(known, thread));
    }

    /// Leaves a notice in the profile of the session that is running.
    pub(crate) fn note(&self, notice: String) {
        tracing::warn!("{notice}");
        if let Ok(mut state) = self.state()
            && let Some(session) = &mut state.session
        {
            session.note(notice);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state().is_ok_and(|state| state.session.is_some())
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state()
            .is_ok_and(|state| state.session.as_ref().is_some_and(|session| session.timeline.is_paused()))
    }

    pub(crate) fn start(&self) -> Result<(), Error> {
        let mut state = self.state()?;
        if state.session.is_some() {
            return Err(Error::AlreadyRunning);
        }
        let options = &self.options;
        let (plan, mut notices) = Plan::choose(options.event, state.rate, options.signal)?;
        notices.extend(crate::signal::install(plan.signal)?);
        let host = options.host_frames.then(|| Arc::new(HostCode::loaded()));
        let symbols =
            HostSymbolizer::new(host.as_ref().map_or_else(Vec::new, |host| host.objects().to_vec()));
        let (registry, labels) = (Arc::clone(&self.registry), Arc::clone(&self.labels));
        let collector = Collector::start(registry, labels, symbols, &options.collector)
            .map_err(|source| Error::System { action: "start the collector thread", source })?;
        let timeline = Timeline::begin(plan.rate);
        let mut session = Session { plan, host, collector: Arc::new(collector), timeline, notices };
        for thread in &state.threads {
            session.arm(thread, options);
        }
        state.session = Some(session);
        Ok(())
    }

    pub(crate) fn pause(&self) -> Result<(), Error> {
        let mut state = self.state()?;
        let State { threads, session, .. } = &mut *state;
        let session = session.as_mut().ok_or(Error::NotRunning)?;
        if !session.timeline.is_paused() {
            session.timeline.pause();
            threads.iter().for_each(|thread| _ = thread.with_source(|source| source.stop()));
        }
        Ok(())
    }

    pub(crate) fn resume(&self) -> Result<(), Error> {
        let mut state = self.state()?;
        let State { threads, session, .. } = &mut *state;
        let session = session.as_mut().ok_or(Error::NotRunning)?;
        if session.timeline.is_paused() {
            session.timeline.resume();
            session.change(threads, |source| source.start());
        }
        Ok(())
    }

    pub(crate) fn rate(&self) -> Result<u32, Error> {
        Ok(self.state()?.rate)
    }

    pub(crate) fn set_rate(&self, rate: u32) -> Result<(), Error> {
        check_rate(rate)?;
        let mut state = self.state()?;
        let State { threads, session, rate: current } = &mut *state;
        if let Some(session) = session {
            session.plan = session.plan.at_rate(rate)?;
            session.timeline.set_rate(rate);
            session.change(threads, |source| source.set_rate(rate));
        }
        *current = rate;
        Ok(())
    }

    /// What was collected so far, while sampling goes on.
    pub(crate) fn snapshot(&self, metadata: Metadata, extent: Extent) -> Result<Profile, Error> {
        self.session()?.profile(self, metadata, Sampling::Ongoing, extent)
    }

    /// What was collected since the last time, while sampling goes on.
    pub(crate) fn take(&self, metadata: Metadata) -> Result<Profile, Error> {
        let mut state = self.state()?;
        let current = state.session.as_mut().ok_or(Error::NotRunning)?;
        let session = current.clone();
        current.timeline.begin_anew();
        drop(state);
        session.profile(self, metadata, Sampling::Ongoing, Extent::Rest)
    }

    pub(crate) fn statistics(&self) -> Result<Statistics, Error> {
        let mut statistics = self.session()?.collector.statistics()?;
        self.add_to(&mut statistics)?;
        Ok(statistics)
    }

    fn session(&self) -> Result<Session, Error> {
        self.state()?.session.clone().ok_or(Error::NotRunning)
    }

    pub(crate) fn stop(&self, metadata: Metadata) -> Result<Profile, Error> {
        let mut state = self.state()?;
        let session = state.session.take().ok_or(Error::NotRunning)?;
        state.threads.iter().for_each(|thread| thread.disarm());
        // Symbols can take a while, in which threads may come and go.
        drop(state);
        session.profile(self, metadata, Sampling::Ended, Extent::All)
    }

    /// Ends the session, if there is one, without a profile.
    pub(crate) fn abandon(&self) {
        let Ok(mut state) = self.state() else { return };
        let session = state.session.take();
        state.threads.iter().for_each(|thread| thread.disarm());
        drop(state);
        // Waits for the collector's thread.
        drop(session);
    }

    /// Adds to the statistics what the collector does not know.
    fn add_to(&self, statistics: &mut Statistics) -> Result<(), Error> {
        let resources = &mut statistics.resources;
        resources.threads = self.state()?.threads.len() as u64;
        resources.ring_size = ring_bytes(self.options.ring_words);
        resources.stores = self.stores.len() as u64;
        resources.memory.tables = resources.memory.tables.saturating_add(self.stores.bytes() as u64);
        Ok(())
    }
}

impl Session {
    fn note(&mut self, notice: String) {
        if self.notices.contains(&notice) {
            return;
        }
        match self.notices.len() {
            ..MAX_NOTICES => self.notices.push(notice),
            MAX_NOTICES => self.notices.push("there were further notices, which are left out".to_owned()),
            _ => {}
        }
    }

    fn arm(&mut self, thread: &Thread, options: &Options) {
        let armed = self.plan.arm(thread.id).and_then(|source| {
            let source = Arc::new(source);
            // The source goes when the thread is disarmed; the channel lives until it is drained.
            let vary = Arc::downgrade(&source);
            let on_drain = move || vary.upgrade().iter().for_each(|source| source.vary_period());
            let channel = Arc::new(Channel::new(options.ring_words, thread.id, on_drain));
            self.collector.add(Arc::clone(&channel));
            let host = self.host.clone().map(|code| UnsafeCell::new(HostFrames::new(code)));
            let armed = Armed { source, channel, frame_limit: options.frame_limit, host };
            thread.arm(armed, self.timeline.is_paused())
        });
        if let Err(error) = armed {
            self.note(format!("thread {} is not sampled: {error}", thread.id));
        }
    }

    /// Changes something of the sources of all threads.
    fn change(
        &mut self,
        threads: &[Arc<Thread>],
        change: impl Fn(&crate::source::Source) -> Result<(), Error>,
    ) {
        for thread in threads {
            if let Some(Err(error)) = thread.with_source(&change) {
                self.note(format!("thread {} is not sampled as asked: {error}", thread.id));
            }
        }
    }

    fn profile(
        &self,
        shared: &Shared,
        mut metadata: Metadata,
        sampling: Sampling,
        extent: Extent,
    ) -> Result<Profile, Error> {
        let plan = &self.plan;
        metadata.event = plan.event.of_profile();
        metadata.engine = Some(plan.engine.describe());
        let sampled = self.timeline.describe(&mut metadata);
        let is_time = metadata.event.unit == flamewalk_profile::Unit::Nanoseconds;
        metadata.period = is_time.then(|| plan.period());
        // Both can be about threads and stores of others.
        let is_of_all = !matches!(extent, Extent::Labelled(_));
        if is_of_all {
            metadata.notices.extend(self.notices.iter().cloned());
        }
        let mut profile = self.collector.snapshot(metadata, sampling, extent)??;
        if is_of_all {
            shared.add_to(&mut profile.metadata.statistics)?;
        }
        let ticks = profile.metadata.statistics.ticks;
        // Per second of what is sampled: of CPU time, or of time that passes.
        let seconds = if is_time { ticks.weight as f64 / 1e9 } else { sampled.as_secs_f64() };
        profile.metadata.real_rate = (seconds > 0.0).then(|| ticks.samples as f64 / seconds);
        Ok(profile)
    }
}

/// How many bytes of a ring of so many words are used: a power of two.
fn ring_bytes(words: usize) -> u64 {
    words.checked_ilog2().map_or(0, |log| (size_of::<u64>() as u64) << log)
}

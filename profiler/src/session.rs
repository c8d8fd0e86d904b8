//! What all parts of one profiler share: its code, its threads, and the session that is running.

use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use flamewalk_collector::{Channel, Collector, Extent, LabelTable, Sampling, Snapshot};
use flamewalk_handler::stores::Stores;
use flamewalk_profile::{Metadata, Profile, Statistics};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::CodeRegistry;

use crate::error::Error;
use crate::host::{HostCode, HostFrames};
use crate::options::Options;
use crate::source::Plan;
use crate::thread::{Armed, Thread};

/// Shared by the profiler, the stores that are attached to it and the threads that enter them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<CodeRegistry>,
    /// The stores that are attached.
    pub(crate) stores: Stores,
    /// The sets of labels that attached stores have had.
    pub(crate) labels: Arc<LabelTable>,
    pub(crate) options: Options,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
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
    started: Instant,
    started_at: SystemTime,
    notices: Vec<String>,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            registry: Arc::default(),
            stores: Stores::default(),
            labels: Arc::default(),
            options,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half changed by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a thread, which is sampled at once if a session is running.
    pub(crate) fn add_thread(&self, thread: Arc<Thread>) {
        let mut state = self.state();
        if let Some(session) = &mut state.session {
            session.arm(&thread, &self.options);
        }
        state.threads.push(thread);
    }

    pub(crate) fn remove_thread(&self, thread: &Arc<Thread>) {
        let mut state = self.state();
        thread.disarm();
        state.threads.retain(|known| !Arc::ptr_eq(known, thread));
    }

    /// Leaves a notice in the profile of the session that is running.
    pub(crate) fn note(&self, notice: String) {
        tracing::warn!("{notice}");
        if let Some(session) = &mut self.state().session
            && !session.notices.contains(&notice)
        {
            session.notices.push(notice);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state().session.is_some()
    }

    pub(crate) fn start(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.session.is_some() {
            return Err(Error::AlreadyRunning);
        }
        let options = &self.options;
        let (plan, notices) = Plan::choose(options.event, options.rate, options.signal)?;
        crate::signal::install(plan.signal)?;
        let host = options.host_frames.then(|| Arc::new(HostCode::loaded()));
        let symbols =
            HostSymbolizer::new(host.as_ref().map_or_else(Vec::new, |host| host.objects().to_vec()));
        let (registry, labels) = (Arc::clone(&self.registry), Arc::clone(&self.labels));
        let collector = Collector::start(registry, labels, symbols, &options.collector)
            .map_err(|source| Error::System { action: "start the collector thread", source })?;
        let mut session = Session {
            plan,
            host,
            collector: Arc::new(collector),
            started: Instant::now(),
            started_at: SystemTime::now(),
            notices,
        };
        for thread in &state.threads {
            session.arm(thread, options);
        }
        state.session = Some(session);
        Ok(())
    }

    /// What was collected so far, while sampling goes on.
    pub(crate) fn snapshot(&self, metadata: Metadata, extent: Extent) -> Result<Profile, Error> {
        self.session()?.profile(metadata, Sampling::Ongoing, extent)
    }

    /// What was collected since the last time, while sampling goes on.
    pub(crate) fn take(&self, metadata: Metadata) -> Result<Profile, Error> {
        let mut state = self.state();
        let current = state.session.as_mut().ok_or(Error::NotRunning)?;
        let session = current.clone();
        (current.started, current.started_at) = (Instant::now(), SystemTime::now());
        drop(state);
        session.profile(metadata, Sampling::Ongoing, Extent::Rest)
    }

    pub(crate) fn statistics(&self) -> Result<Statistics, Error> {
        Ok(self.session()?.collector.statistics()?)
    }

    fn session(&self) -> Result<Session, Error> {
        self.state().session.clone().ok_or(Error::NotRunning)
    }

    pub(crate) fn stop(&self, metadata: Metadata) -> Result<Profile, Error> {
        let mut state = self.state();
        let session = state.session.take().ok_or(Error::NotRunning)?;
        state.threads.iter().for_each(|thread| thread.disarm());
        // Symbols can take a while, in which threads may come and go.
        drop(state);
        session.profile(metadata, Sampling::Ended, Extent::All)
    }

    /// Ends the session, if there is one, without a profile.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.session = None;
        state.threads.iter().for_each(|thread| thread.disarm());
    }
}

impl Session {
    fn arm(&mut self, thread: &Thread, options: &Options) {
        let armed = self.plan.arm(thread.id).and_then(|source| {
            let source = Arc::new(source);
            let vary = Arc::clone(&source);
            let channel = Arc::new(Channel::new(options.ring_words, thread.id, move || vary.vary_period()));
            self.collector.add(Arc::clone(&channel));
            let host = self.host.clone().map(|code| UnsafeCell::new(HostFrames::new(code)));
            thread.arm(Armed { source, channel, frame_limit: options.frame_limit, host })
        });
        if let Err(error) = armed {
            self.notices.push(format!("thread {} is not sampled: {error}", thread.id));
        }
    }

    fn profile(&self, mut metadata: Metadata, sampling: Sampling, extent: Extent) -> Result<Profile, Error> {
        let duration = self.started.elapsed();
        let plan = &self.plan;
        metadata.event = plan.event.of_profile();
        metadata.engine = Some(plan.engine.describe());
        metadata.asked_rate = Some(f64::from(plan.rate));
        metadata.start = Some(self.started_at);
        metadata.duration = Some(duration);
        // They can be about threads that others' guests run on.
        if !matches!(extent, Extent::Labelled(_)) {
            metadata.notices.extend(self.notices.iter().cloned());
        }
        let is_time = metadata.event.unit == flamewalk_profile::Unit::Nanoseconds;
        metadata.period = is_time.then(|| plan.period());
        let Snapshot { mut profile, .. } = self.collector.snapshot(metadata, sampling, extent)??;
        let ticks = profile.metadata.statistics.ticks;
        // Per second of what is sampled: of CPU time, or of time that passes.
        let seconds = if is_time { ticks.weight as f64 / 1e9 } else { duration.as_secs_f64() };
        profile.metadata.real_rate = (seconds > 0.0).then(|| ticks.samples as f64 / seconds);
        Ok(profile)
    }
}

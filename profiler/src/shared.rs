//! What all parts of one profiler share: its code, its threads, and the session that is running.
//!
//! A session samples; what is seen of it are windows. The first that is opened begins the session, and the last that is
//! closed ends it. One of them, at most, is the profiler's own, from its start to its stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_collector::{Extent, LabelTable, Sampling};
use flamewalk_handler::stores::Stores;
use flamewalk_profile::{Metadata, Profile, Statistics};
use flamewalk_symbolizer::registry::CodeRegistry;

use crate::error::Error;
use crate::fork::Process;
use crate::options::Options;
use crate::session::{Session, Window};
use crate::source::check_rate;
use crate::suspended::HostCalls;
use crate::thread::Thread;

/// Shared by the profiler, the stores that are attached to it and the threads that enter them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<CodeRegistry>,
    /// The stores that are attached.
    pub(crate) stores: Stores,
    /// The host calls that guests of attached stores are in, if suspended guests are to be seen.
    pub(crate) host_calls: Arc<HostCalls>,
    /// The sets of labels that attached stores have had.
    pub(crate) labels: Arc<LabelTable>,
    pub(crate) options: Options,
    /// Where this was made. Nowhere else may anything be done with it.
    pub(crate) process: Process,
    /// Whether the profiler is gone, and only stores are left that were attached to it.
    has_ended: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In Hz, of the profiler's own window, or of the next one.
    rate: u32,
    threads: Vec<Arc<Thread>>,
    session: Option<Session>,
    /// The profiler's own window.
    started: Option<WindowId>,
    /// How many windows there have been.
    opened: u64,
}

/// The number of a window, of which no other one has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WindowId(u64);

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            registry: Arc::default(),
            stores: Stores::default(),
            host_calls: Arc::default(),
            labels: Arc::default(),
            process: Process::current(),
            has_ended: AtomicBool::new(false),
            state: State { rate: options.rate, threads: Vec::new(), session: None, started: None, opened: 0 }
                .into(),
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
        self.state().is_ok_and(|state| state.started.is_some())
    }

    pub(crate) fn is_paused(&self) -> bool {
        let is_paused = |state: &State| state.session.as_ref().is_some_and(|session| session.is_paused);
        self.state().is_ok_and(|state| state.started.is_some() && is_paused(&state))
    }

    pub(crate) fn start(&self) -> Result<(), Error> {
        let is_stopped = |state: &State| match state.started {
            Some(_) => Err(Error::AlreadyRunning),
            None => Ok(()),
        };
        let mut state = self.state()?;
        is_stopped(&state)?;
        let State { rate, threads, session, .. } = &mut *state;
        let rate = *rate;
        if let Some(session) = session {
            // That of other windows, whose profiles tell that it changes.
            session.set_rate(rate, threads)?;
        }
        let (mut state, window) = self.open(state, rate, is_stopped)?;
        state.started = Some(window);
        Ok(())
    }

    /// Opens a window beside that of the profiler.
    pub(crate) fn open_window(&self, rate: Option<u32>) -> Result<WindowId, Error> {
        rate.map_or(Ok(()), check_rate)?;
        let state = self.state()?;
        let is_possible = |state: &State| match (rate, &state.session) {
            (Some(rate), Some(session)) if session.plan.rate != rate => {
                Err(Error::OtherRate { rate, current: session.plan.rate })
            }
            _ => Ok(()),
        };
        is_possible(&state)?;
        let rate = rate.unwrap_or(state.rate);
        Ok(self.open(state, rate, is_possible)?.1)
    }

    /// Opens a window of the session, which begins at `rate` if there is none, if it `is_possible` at that moment.
    fn open<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        rate: u32,
        is_possible: impl Fn(&State) -> Result<(), Error>,
    ) -> Result<(MutexGuard<'s, State>, WindowId), Error> {
        let window = loop {
            let Some(session) = &state.session else {
                let session = Session::begin(self, rate)?;
                let window = session.open()?;
                let State { threads, session: current, .. } = &mut *state;
                let session = current.insert(session);
                threads.iter().for_each(|thread| session.arm(thread, &self.options));
                break window;
            };
            let session = session.clone();
            // The collector can be busy with a profile of another window, and threads must not wait for that.
            drop(state);
            let window = session.open()?;
            state = self.state()?;
            is_possible(&state)?;
            let collector = &session.collector;
            if state.session.as_ref().is_some_and(|current| Arc::ptr_eq(&current.collector, collector)) {
                break window;
            }
        };
        let id = WindowId(state.opened);
        state.opened += 1;
        // There is one, with this window's collector.
        if let Some(session) = &mut state.session {
            // The lock was not held since the window began.
            window.timeline().set_rate(session.plan.rate);
            window.timeline().set_paused(session.is_paused);
            session.windows.insert(id, window);
        }
        Ok((state, id))
    }

    pub(crate) fn pause(&self) -> Result<(), Error> {
        let mut state = self.state()?;
        let (session, threads) = state.started_session()?;
        session.pause(threads);
        Ok(())
    }

    pub(crate) fn resume(&self) -> Result<(), Error> {
        let mut state = self.state()?;
        let (session, threads) = state.started_session()?;
        session.resume(threads);
        Ok(())
    }

    pub(crate) fn rate(&self) -> Result<u32, Error> {
        Ok(self.state()?.rate)
    }

    pub(crate) fn set_rate(&self, rate: u32) -> Result<(), Error> {
        check_rate(rate)?;
        let mut state = self.state()?;
        if let Ok((session, threads)) = state.started_session() {
            session.set_rate(rate, threads)?;
        }
        state.rate = rate;
        Ok(())
    }

    /// What was collected in a window so far, or in the profiler's own, while sampling goes on.
    pub(crate) fn snapshot(
        &self,
        window: Option<WindowId>,
        metadata: Metadata,
        extent: Extent,
    ) -> Result<Profile, Error> {
        let (session, window) = self.state()?.window(window)?;
        session.profile(self, &window, metadata, Sampling::Ongoing, extent)
    }

    pub(crate) fn statistics(&self, window: Option<WindowId>) -> Result<Statistics, Error> {
        let (_, window) = self.state()?.window(window)?;
        let mut statistics = window.collected.statistics()?;
        self.add_to(&mut statistics)?;
        Ok(statistics)
    }

    /// Closes a window, or the profiler's own, for what it has collected.
    pub(crate) fn finish(
        &self,
        window: Option<WindowId>,
        metadata: Metadata,
        extent: Extent,
    ) -> Result<Profile, Error> {
        let (session, window, sampling) = self.close(window)?;
        // Symbols can take a while, in which threads may come and go.
        session.profile(self, &window, metadata, sampling, extent)
    }

    /// Closes a window, if it is open still.
    pub(crate) fn discard(&self, window: WindowId) {
        // May wait for the collector's thread, without holding the lock.
        drop(self.close(Some(window)));
    }

    /// Closes a window, or the profiler's own, and ends the session if it was the last.
    fn close(&self, id: Option<WindowId>) -> Result<(Session, Window, Sampling), Error> {
        let mut state = self.state()?;
        let State { threads, session, started, .. } = &mut *state;
        let id = id.or(*started).ok_or(Error::NotRunning)?;
        let current = session.as_mut().ok_or(Error::NotRunning)?;
        let window = current.windows.remove(&id).ok_or(Error::NotRunning)?;
        let is_own = started.take_if(|started| *started == id).is_some();
        if current.windows.is_empty() {
            let session = session.take().ok_or(Error::NotRunning)?;
            session.end(threads);
            return Ok((session, window, Sampling::Ended));
        }
        if is_own {
            // Who paused it does not sample any more.
            current.resume(threads);
        }
        Ok((current.clone(), window, Sampling::Ongoing))
    }

    /// Ends all: stores that stay attached have no threads sampled any more, which can be another profiler's by then.
    pub(crate) fn end(&self) {
        // Pair: the load in `has_ended`, which orders nothing but itself.
        self.has_ended.store(true, Ordering::Relaxed);
        self.abandon();
    }

    /// Whether the profiler is gone.
    pub(crate) fn has_ended(&self) -> bool {
        // Pair: the store in `end`.
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Ends the session, if there is one, with all of its windows and without a profile.
    pub(crate) fn abandon(&self) {
        let Ok(mut state) = self.state() else { return };
        let session = state.session.take();
        state.started = None;
        session.iter().for_each(|session| session.end(&state.threads));
        drop(state);
        // Waits for the collector's thread.
        drop(session);
    }

    /// Adds to the statistics what the collector does not know.
    pub(crate) fn add_to(&self, statistics: &mut Statistics) -> Result<(), Error> {
        let resources = &mut statistics.resources;
        resources.threads = self.state()?.threads.len() as u64;
        resources.ring_size = ring_bytes(self.options.ring_words);
        resources.stores = self.stores.len() as u64;
        resources.memory.tables = resources.memory.tables.saturating_add(self.stores.bytes() as u64);
        Ok(())
    }
}

impl State {
    /// The session, if the profiler samples for itself, and the threads.
    fn started_session(&mut self) -> Result<(&mut Session, &[Arc<Thread>]), Error> {
        match (&mut self.session, self.started) {
            (Some(session), Some(_)) => Ok((session, &self.threads)),
            _ => Err(Error::NotRunning),
        }
    }

    /// A window, or the profiler's own, with the session.
    fn window(&self, id: Option<WindowId>) -> Result<(Session, Window), Error> {
        let session = self.session.as_ref().ok_or(Error::NotRunning)?;
        let window = id.or(self.started).and_then(|id| session.windows.get(&id)).ok_or(Error::NotRunning)?;
        Ok((session.clone(), window.clone()))
    }
}

/// How many bytes of a ring of so many words are used: a power of two.
fn ring_bytes(words: usize) -> u64 {
    words.checked_ilog2().map_or(0, |log| (size_of::<u64>() as u64) << log)
}

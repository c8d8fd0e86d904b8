//! What stands between the pusher and a sink: a bounded queue, and a thread that sends until it has succeeded.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backoff::Retries;
use crate::sink::{SendError, Sink};
use crate::statistics::SinkStatistics;
use crate::window::Window;

/// A sink with its queue and its thread.
#[derive(Debug)]
pub(crate) struct Lane {
    name: String,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is a window to send, or the lane is to end.
    changed: Condvar,
    /// How many windows may wait.
    capacity: usize,
    retries: Retries,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    queue: VecDeque<Arc<Window>>,
    /// Whether one that is not in the queue is being sent.
    is_sending: bool,
    /// Without what can be told from the above.
    statistics: SinkStatistics,
    /// When nothing is to be sent any more, if the lane is to end.
    deadline: Option<Instant>,
}

impl Lane {
    pub(crate) fn start(sink: Box<dyn Sink>, capacity: usize, retries: Retries) -> io::Result<Self> {
        let name = sink.name();
        let shared =
            Shared { state: Mutex::default(), changed: Condvar::new(), capacity: capacity.max(1), retries };
        let shared = Arc::new(shared);
        let in_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("flamewalk-send".into()).spawn(move || in_thread.run(sink))?;
        Ok(Self { name, shared, thread: Some(thread).into() })
    }

    /// Adds a window to the queue, for which the oldest has to make room if there is none.
    pub(crate) fn give(&self, window: &Arc<Window>) {
        let mut state = self.shared.state();
        state.statistics.given += 1;
        if window.profile.is_empty() {
            state.statistics.empty += 1;
            return;
        }
        if state.queue.len() == self.shared.capacity {
            state.queue.pop_front();
            state.statistics.dropped += 1;
        }
        state.queue.push_back(Arc::clone(window));
        self.shared.changed.notify_one();
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn statistics(&self) -> SinkStatistics {
        let state = self.shared.state();
        let waiting = state.queue.len() as u64 + u64::from(state.is_sending);
        SinkStatistics { waiting, ..state.statistics.clone() }
    }

    /// Lets what is in the queue be sent until then, and nothing afterwards.
    pub(crate) fn end_by(&self, deadline: Instant) {
        self.shared.state().deadline.get_or_insert(deadline);
        self.shared.changed.notify_one();
    }

    /// Waits until the thread has ended.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(sink = self.name, "the sink has panicked");
        }
        // Nobody sends what a panic has left.
        self.shared.state().abandon_all();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.end_by(Instant::now());
        self.join();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No sink is called while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut sink: Box<dyn Sink>) {
        while let Some(window) = self.next() {
            let mut attempts = 0;
            loop {
                let was_ending = self.state().deadline.is_some();
                let sent = sink.send(&window);
                attempts += 1;
                let is_asked_to_wait = matches!(sent, Err(SendError::Temporary { retry_after: Some(_), .. }));
                match self.after(sent, attempts, &sink.name()) {
                    Some(wait) if self.wait(wait, !was_ending && !is_asked_to_wait) => {}
                    Some(_) => break self.state().abandon(),
                    None => break,
                }
            }
        }
        self.state().abandon_all();
    }

    /// The next window to send, once there is one; `None` at the end.
    fn next(&self) -> Option<Arc<Window>> {
        let mut state = self.state();
        loop {
            let is_over = state.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if is_over {
                return None;
            }
            if let Some(window) = state.queue.pop_front() {
                state.is_sending = true;
                return Some(window);
            }
            if state.deadline.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts how an attempt ended. Returns how long to wait for the next, if there is to be one.
    fn after(&self, sent: Result<(), SendError>, attempts: u32, name: &str) -> Option<Duration> {
        let mut state = self.state();
        let (error, wait) = match sent {
            Ok(()) => {
                state.statistics.delivered += 1;
                state.is_sending = false;
                return None;
            }
            Err(SendError::Refused { reason }) => {
                state.statistics.refused += 1;
                state.is_sending = false;
                (reason, None)
            }
            Err(SendError::Temporary { reason, retry_after }) => {
                let wait = self.retries.wait(attempts, retry_after);
                match wait {
                    Some(_) => state.statistics.retries += 1,
                    None => state.abandon(),
                }
                (reason, wait)
            }
        };
        drop(state);
        match wait {
            Some(wait) => tracing::info!(sink = name, error, ?wait, "a profile is sent again"),
            None => tracing::warn!(sink = name, error, "a profile is lost"),
        }
        self.state().statistics.last_error = Some(error);
        wait
    }

    /// Waits before the next attempt. Returns whether there is to be one. If the lane is to end before that, a last one is
    /// made at once if it `may_be_early`.
    fn wait(&self, wait: Duration, may_be_early: bool) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if let Some(deadline) = state.deadline.filter(|deadline| *deadline < until) {
                let is_time = may_be_early && now < deadline;
                state.statistics.retries -= u64::from(!is_time);
                return is_time;
            }
            if now >= until {
                return true;
            }
            // Windows that are given meanwhile wake it as well.
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// The window that is being sent will not be.
    fn abandon(&mut self) {
        if std::mem::take(&mut self.is_sending) {
            self.statistics.abandoned += 1;
        }
    }

    fn abandon_all(&mut self) {
        self.abandon();
        self.statistics.abandoned += self.queue.drain(..).len() as u64;
    }
}

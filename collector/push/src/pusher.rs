//! Takes a profile at the end of each window, and gives it to the sinks.

use std::error::Error;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use flamewalk_profile::Profile;

use crate::backoff::Retries;
use crate::error::PushError;
use crate::lane::Lane;
use crate::sink::Sink;
use crate::statistics::Statistics;
use crate::window::{Window, until_next};

/// How a pusher works. Start from [`Options::default`] and change what is to be different.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long a window is. They end at multiples of this length on the wall clock, counted from 1970 in UTC; the first
    /// and the last are shorter. Default: 15 s.
    pub window: Duration,
    /// How many windows may wait for each sink; then the oldest are dropped. Default: 20, which is five minutes.
    pub queue: usize,
    /// How often a window is sent again.
    pub retries: Retries,
}

impl Default for Options {
    fn default() -> Self {
        Self { window: Duration::from_secs(15), queue: 20, retries: Retries::default() }
    }
}

/// By how much a window may be longer than the wall clock says before it is thought to have been set.
const MAX_DEVIATION: Duration = Duration::from_secs(1);

/// Why there was no profile.
type NoProfile = Box<dyn Error + Send + Sync>;

/// Pushes profiles until it is stopped. Dropping it stops it without sending what waits.
#[derive(Debug)]
pub struct Pusher {
    shared: Arc<Shared>,
    /// Dropped, it ends the thread.
    running: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lanes: Vec<Lane>,
    /// Without those of the sinks.
    statistics: Mutex<Statistics>,
}

impl Pusher {
    /// Starts to push what `take` returns, which is everything since the last time, on a thread of its own.
    ///
    /// # Errors
    /// [`PushError::Window`] for windows below a second; [`PushError::Thread`].
    pub fn start(
        options: Options,
        sinks: Vec<Box<dyn Sink>>,
        take: impl FnMut() -> Result<Profile, NoProfile> + Send + 'static,
    ) -> Result<Self, PushError> {
        let Options { window, queue, retries } = options;
        if window < Duration::from_secs(1) {
            return Err(PushError::Window { window });
        }
        let lanes = sinks.into_iter().map(|sink| Lane::start(sink, queue, retries.clone()));
        let lanes = lanes.collect::<Result<_, _>>().map_err(PushError::Thread)?;
        let shared = Arc::new(Shared { lanes, statistics: Mutex::default() });
        let (running, ended) = mpsc::channel();
        let in_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("flamewalk-push".into())
            .spawn(move || in_thread.run(window, &ended, take))
            .map_err(PushError::Thread)?;
        Ok(Self { shared, running: Some(running), thread: Some(thread) })
    }

    /// What became of the windows so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.all_statistics()
    }

    /// Takes a last window, and sends what waits for up to `patience`, and for the attempts that are then under way. What
    /// waits for an attempt later than that is tried once more at once, unless the other side has asked for the wait.
    pub fn stop(mut self, patience: Duration) -> Statistics {
        self.end(patience);
        self.shared.all_statistics()
    }

    fn end(&mut self, patience: Duration) {
        self.running = None;
        let Some(thread) = self.thread.take() else { return };
        if thread.join().is_err() {
            tracing::error!("taking a profile has panicked");
        }
        let deadline = Instant::now() + patience;
        self.shared.lanes.iter().for_each(|lane| lane.end_by(deadline));
        self.shared.lanes.iter().for_each(Lane::join);
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Shared {
    fn run(
        &self,
        length: Duration,
        ended: &mpsc::Receiver<()>,
        mut take: impl FnMut() -> Result<Profile, NoProfile>,
    ) {
        let mut begin = SystemTime::now();
        let mut is_running = true;
        while is_running {
            is_running = wait(begin, length, ended);
            let taken = take();
            let end = SystemTime::now();
            let profile = match taken {
                Ok(profile) => profile,
                Err(error) => {
                    tracing::warn!(%error, "there is no profile to push");
                    let mut statistics = self.statistics();
                    statistics.missed += 1;
                    statistics.last_miss = Some(error.to_string());
                    begin = end;
                    continue;
                }
            };
            let window = Arc::new(Window::new(profile, begin, end));
            self.statistics().taken += 1;
            self.lanes.iter().for_each(|lane| lane.give(&window));
            begin = end;
        }
    }

    fn statistics(&self) -> MutexGuard<'_, Statistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_statistics(&self) -> Statistics {
        let sinks = self.lanes.iter().map(|lane| (lane.name().to_owned(), lane.statistics())).collect();
        Statistics { sinks, ..self.statistics().clone() }
    }
}

/// Waits for the end of the window that began at `begin`; `false` if that is the last one.
fn wait(begin: SystemTime, length: Duration, ended: &mpsc::Receiver<()>) -> bool {
    let whole = until_next(begin, length);
    let (start, end) = (Instant::now(), begin + whole);
    loop {
        let left = end.duration_since(SystemTime::now()).unwrap_or_default().min(whole);
        // The wall clock may be set back meanwhile, or run a little slower than the other one.
        if left.is_zero() || start.elapsed() > whole + MAX_DEVIATION {
            return true;
        }
        match ended.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

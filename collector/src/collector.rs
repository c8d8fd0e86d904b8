//! The collector, as others see it: how it is told what to do. What its thread does is in [`crate::session`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use flamewalk_profile::{Labels, Metadata, Profile, ProfileError, Statistics};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_symbolizer::registry::CodeRegistry;

use crate::channel::Channel;
use crate::labels::LabelTable;
use crate::session::{Arrivals, Session};
use crate::window::Window;

/// How the collector works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How often the rings are drained. `None`, the default: often enough that no ring can be filled by more than half
    /// in between, as told by [`Channel::expect`], and at least ten times and at most 500 times a second.
    pub drain_interval: Option<Duration>,
    /// How much memory distinct stacks and what fell on them may take in each window, in bytes. When two fifths of it are
    /// used up, the rarest stacks are cut to their youngest frames and merged, which a notice tells; no sample is lost.
    /// The rest is for tables that grow, and for the merging. Each of the
    /// [`MAX_LABEL_SETS`](crate::MAX_LABEL_SETS) keeps a sum, whatever the bound.
    pub max_stack_bytes: usize,
    /// How many sums there may be, one for each stack, thread, set of labels and slice of time, before the slices of
    /// time, of 1 ms at first, double in length.
    pub max_sums: usize,
}

impl Default for Options {
    /// As often as the rings need; 64 MiB; 65,536.
    fn default() -> Self {
        Self { drain_interval: None, max_stack_bytes: 64 << 20, max_sums: 1 << 16 }
    }
}

/// Whether handlers may be writing samples while a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// They may: ticks whose samples are not drained yet are left to the next snapshot.
    Ongoing,
    /// They have all ended: every tick has to be accounted for.
    Ended,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Everything since the window was opened, or since its last [`Extent::Rest`].
    #[default]
    All,
    /// As [`Extent::All`]; it is forgotten afterwards, so that each sample is in one such snapshot.
    Rest,
    /// What was sampled while the store had all of these labels, among others or not, and nothing else: no name, number
    /// or thread of others. Its statistics hold what was delivered and no more.
    Labelled(Labels),
}

/// The collector's thread is gone: it has panicked. What it had collected is lost.
#[derive(Debug, thiserror::Error)]
#[error("the collector thread has panicked; its samples are lost")]
pub struct CollectorGone;

/// Makes a profile's metadata once all rings are drained, and is told when that was.
pub(crate) type Describe = Box<dyn FnOnce(Instant) -> Metadata + Send>;

pub(crate) enum Message {
    Open(u64, Sender<Instant>),
    Close(u64),
    Snapshot(u64, Describe, Sampling, Extent, Sender<Result<Profile, ProfileError>>),
    Statistics(u64, Sender<Statistics>),
}

/// A running collector. Dropping it ends its thread.
#[derive(Debug)]
pub struct Collector {
    messages: Option<Sender<Message>>,
    arrivals: Arc<Arrivals>,
    thread: Option<JoinHandle<()>>,
    /// How many windows there have been.
    windows: AtomicU64,
}

impl Collector {
    /// Starts the collector's thread. `labels` are the sets that samples have the numbers of; `host` names native
    /// frames of the host, if samples have any.
    ///
    /// # Errors
    ///
    /// The system's, if it cannot start a thread.
    pub fn start(
        registry: Arc<CodeRegistry>,
        labels: Arc<LabelTable>,
        host: HostSymbolizer,
        options: &Options,
    ) -> io::Result<Self> {
        let (messages, inbox) = crossbeam_channel::unbounded();
        let arrivals = Arc::<Arrivals>::default();
        let mut session = Session::new(registry, labels, host, Arc::clone(&arrivals), options);
        let thread =
            std::thread::Builder::new().name("flamewalk".into()).spawn(move || session.run(&inbox))?;
        Ok(Self { messages: Some(messages), arrivals, thread: Some(thread), windows: AtomicU64::new(0) })
    }

    /// Drains `channel` from now on, until nobody else holds it: to be called before samples are written to it.
    pub fn add(&self, channel: Arc<Channel>) {
        self.arrivals.add(channel);
        self.wake();
    }

    /// Has the thread look again how often the rings have to be drained: to be called after [`Channel::expect`].
    pub fn follow_expectations(&self) {
        self.wake();
    }

    /// Has the rings drained at once. For those who write to a ring outside of a signal handler, where a system call may be
    /// made, when it is half full.
    pub fn drain_soon(&self) {
        self.arrivals.ask_for_drain();
        self.wake();
    }

    /// Opens a window, in which everything is that is sampled from now on. The caller waits until what was sampled before
    /// is drained, and that can be for as long as a profile of another window is being made.
    ///
    /// # Errors
    ///
    /// [`CollectorGone`] if the thread has panicked.
    pub fn open(self: &Arc<Self>) -> Result<Window, CollectorGone> {
        // Only has to be another one each time.
        let number = self.windows.fetch_add(1, Ordering::Relaxed);
        let opened = self.ask(|reply| Message::Open(number, reply))?;
        Ok(Window::new(Arc::clone(self), number, opened))
    }

    /// Sends a message that has an answer, and waits for it.
    pub(crate) fn ask<A>(&self, message: impl FnOnce(Sender<A>) -> Message) -> Result<A, CollectorGone> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.send(message(reply));
        answer.recv().map_err(|_| CollectorGone)
    }

    pub(crate) fn send(&self, message: Message) {
        if let Some(messages) = &self.messages
            && messages.send(message).is_err()
        {
            tracing::error!("{CollectorGone}");
        }
        self.wake();
    }

    /// Has the thread look for messages, or for their end.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // The thread ends when the channel is closed.
        self.messages = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("{CollectorGone}");
        }
    }
}

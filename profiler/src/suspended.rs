//! Suspended guests: the host call that each waits in, and the thread that samples them.
//!
//! A guest that is suspended runs on no thread, so that no thread's tick finds it. If asked for, the call hook of each
//! store keeps the guest's stack at every call of the host or the runtime, and a thread of the profiler looks at the stores
//! as a timer would tick. Wasmtime has the guard of the fiber that a store runs on in the store's context, and takes it out
//! while that is suspended:
//!
//! ```text
//!   guest's thread                                      sampler
//!   CallingHost        the stack is kept, call is odd   call is odd
//!   suspended          the guard is taken out           there is no guard
//!   resumed            the guard is put back            call is what it was: the stack that was kept is a sample
//!   ReturningFromHost  call is even
//! ```

use std::io::{self, IoSliceMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flamewalk_collector::{Channel, Collector};
use flamewalk_handler::record::{Header, MIXED_LABELS};
use flamewalk_handler::statistics::{Fate, LossCause};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use crate::error::Error;
use crate::layout;
use crate::source::{VaryingPeriod, monotonic_time, period_of};
use crate::thread::Thread;

/// Stores that are looked at in one tick at most. Of more, each tick takes the next ones, which then stand for all: at 1,000 Hz
/// that is samples enough, and the ring holds the stacks of a thousand frames of several ticks.
const MOST_AT_ONCE: usize = 32;
const GUARD_BYTES: usize = 2 * size_of::<usize>();

/// What a guest's stack was when it called the host.
#[derive(Debug)]
pub(crate) struct KeptStack {
    /// As of a sample, but for its weight and time.
    pub(crate) header: Header,
    /// The words of the frames.
    pub(crate) frames: Vec<u64>,
}

/// The host call that the guest of one store is in.
#[derive(Debug)]
pub(crate) struct HostCall {
    /// The address of the store's context.
    context: usize,
    /// Odd while the guest is in a host call whose stack is kept; goes up with each such call and at its end.
    call: AtomicU64,
    labels: AtomicU64,
    stack: Mutex<Option<KeptStack>>,
    /// Where it is in the list, under the lock of which this is used.
    position: AtomicUsize,
}

impl HostCall {
    /// Notes that a guest of the store has called the host, if it can be told when it is suspended: if it runs on a fiber
    /// that has a guard. To be called from the store's call hook, on the thread that runs the guest.
    pub(crate) fn begin(&self, thread: &Thread) {
        // SAFETY: the store is live: its hook is being called.
        if unsafe { layout::stack_limit(self.context) }.1.is_none() {
            return;
        }
        let mut stack = self.stack();
        let mut frames = stack.take().map(|kept| kept.frames).unwrap_or_default();
        frames.clear();
        if let Some(header) = thread.host_call(self.context, &mut frames) {
            *stack = Some(KeptStack { header, frames });
            // Pair: the acquire load in `is_in`.
            self.call.fetch_or(1, Ordering::Release);
        }
    }

    /// Notes that the host call has ended, or that a guest was entered from it.
    pub(crate) fn end(&self) {
        let call = self.call.load(Ordering::Relaxed);
        if call % 2 == 1 {
            // Pair: the acquire loads in `is_in`. One thread at a time runs guests of the store.
            self.call.store(call.wrapping_add(1), Ordering::Release);
        }
    }

    /// Sets the number of the store's labels.
    pub(crate) fn set_labels(&self, labels: u64) {
        // Locked, so that no sample is being written with the ones before when this returns.
        let _stack = self.stack();
        self.labels.store(labels, Ordering::Relaxed);
    }

    /// The call that the guest is in.
    fn is_in(&self) -> Option<u64> {
        // Pair: the stores in `begin` and `end`.
        Some(self.call.load(Ordering::Acquire)).filter(|call| call % 2 == 1)
    }

    fn stack(&self) -> MutexGuard<'_, Option<KeptStack>> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stores whose suspended guests are to be seen.
#[derive(Debug, Default)]
pub(crate) struct HostCalls(Mutex<Vec<Arc<HostCall>>>);

impl HostCalls {
    /// Adds the store with this context.
    pub(crate) fn attach(&self, context: usize) -> Arc<HostCall> {
        let mut list = self.list();
        let added = Arc::new(HostCall {
            context,
            call: AtomicU64::new(0),
            labels: AtomicU64::new(0),
            stack: Mutex::new(None),
            position: AtomicUsize::new(list.len()),
        });
        list.push(Arc::clone(&added));
        added
    }

    /// Takes a store out. When this returns, its context is not read any more.
    pub(crate) fn detach(&self, call: &HostCall) {
        let mut list = self.list();
        let position = call.position.load(Ordering::Relaxed);
        list.swap_remove(position);
        if let Some(moved) = list.get(position) {
            moved.position.store(position, Ordering::Relaxed);
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<HostCall>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Control {
    Pause,
    Resume,
    Rate(u32),
}

/// The thread that samples suspended guests during a session.
#[derive(Debug)]
pub(crate) struct SuspendedSampler {
    /// The thread ends when this is gone.
    running: Mutex<Option<(Sender<Control>, JoinHandle<()>)>>,
}

impl SuspendedSampler {
    /// Starts the thread, which ticks `rate` times a second unless it is `paused`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if it cannot be started, or may not read as it has to.
    pub(crate) fn start(
        calls: Arc<HostCalls>,
        collector: &Arc<Collector>,
        ring_words: usize,
        rate: u32,
    ) -> Result<Self, Error> {
        let probe = [0u8; GUARD_BYTES];
        let action = "read this process's own memory by process_vm_readv, to tell which guests are suspended";
        read_words(&[probe.as_ptr().addr()], &mut [0; GUARD_BYTES])
            .map_err(|source| Error::System { action, source })?;
        let (control, inbox) = mpsc::channel();
        let collector = Arc::clone(collector);
        let run = move || {
            // The samples are shown as this thread's.
            let channel = Arc::new(Channel::new(ring_words, nix::unistd::gettid().as_raw(), || ()));
            collector.add(Arc::clone(&channel));
            Sampler { calls, channel, collector, next: 0, words: Vec::new(), candidates: Vec::new() }
                .run(&inbox, rate);
        };
        let thread = std::thread::Builder::new()
            .name("suspended".into())
            .spawn(run)
            .map_err(|source| Error::System { action: "start a thread for suspended guests", source })?;
        Ok(Self { running: Mutex::new(Some((control, thread))) })
    }

    pub(crate) fn pause(&self) {
        self.send(Control::Pause);
    }

    pub(crate) fn resume(&self) {
        self.send(Control::Resume);
    }

    pub(crate) fn set_rate(&self, rate: u32) {
        self.send(Control::Rate(rate));
    }

    /// Ends the thread, and returns when it has written its last sample.
    pub(crate) fn end(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((control, thread)) = running {
            drop(control);
            if thread.join().is_err() {
                tracing::error!("the thread that samples suspended guests has panicked");
            }
        }
    }

    fn send(&self, control: Control) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((inbox, _)) = &*running {
            // A thread that has panicked is told of at the end.
            let _ = inbox.send(control);
        }
    }
}

impl Drop for SuspendedSampler {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread works with.
struct Sampler {
    calls: Arc<HostCalls>,
    channel: Arc<Channel>,
    collector: Arc<Collector>,
    /// Where in the list the next tick begins.
    next: usize,
    /// Guards as they were read; kept to reuse the memory, like the rest.
    words: Vec<u8>,
    candidates: Vec<(Arc<HostCall>, u64)>,
}

impl Sampler {
    fn run(&mut self, inbox: &Receiver<Control>, rate: u32) {
        let mut period = VaryingPeriod::new(period_of(rate));
        let mut length = period.draw();
        let mut due = Instant::now();
        // What has passed by the last tick is on samples; what has passed up to a pause is on the first one after it.
        let mut accounted = monotonic_time();
        let mut paused_at = None;
        loop {
            let message = match paused_at {
                Some(_) => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                None => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match message {
                Ok(Control::Pause) => paused_at = Some(monotonic_time()),
                Ok(Control::Resume) => {
                    let paused = paused_at.take().map_or(0, |at| monotonic_time().saturating_sub(at));
                    accounted = accounted.saturating_add(paused);
                }
                Ok(Control::Rate(rate)) => length = period.set_rate(rate),
                Err(RecvTimeoutError::Timeout) => {
                    let now = monotonic_time();
                    self.tick(now, now.saturating_sub(accounted));
                    accounted = now;
                    length = period.next().unwrap_or(length);
                    let next = due.checked_add(Duration::from_nanos(length));
                    due = next.unwrap_or(due).max(Instant::now());
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Takes a sample of each guest that is suspended at `now`, which stands for the `elapsed` nanoseconds before.
    fn tick(&mut self, now: u64, elapsed: u64) {
        self.candidates.clear();
        let calls = Arc::clone(&self.calls);
        let list = calls.list();
        let (all, taken) = (list.len(), list.len().min(MOST_AT_ONCE));
        let turn = (self.next..).take(taken).filter_map(|place| list.get(place % all));
        self.candidates.extend(turn.filter_map(|call| Some((Arc::clone(call), call.is_in()?))));
        self.next = self.next.wrapping_add(taken) % all.max(1);
        let guard = |(call, _): &(Arc<HostCall>, u64)| layout::guard_address(call.context);
        let guards: Vec<usize> = self.candidates.iter().map(guard).collect();
        self.words.resize(guards.len() * GUARD_BYTES, 0);
        // Before what is read now, the calls were seen to be going on.
        fence(Ordering::SeqCst);
        // The contexts are there: their stores are in the list, which is locked.
        let read = read_words(&guards, &mut self.words);
        fence(Ordering::SeqCst);
        drop(list);
        let weight = elapsed.saturating_mul(all as u64) / (taken.max(1) as u64);
        for ((call, number), guard) in self.candidates.iter().zip(self.words.chunks(GUARD_BYTES)) {
            // A store whose guard could not be read might not be suspended.
            if read.is_ok() && guard.iter().all(|&byte| byte == 0) {
                self.sample(call, *number, now, weight);
            }
        }
    }

    /// Takes a sample of a guest that was suspended a moment ago, if it was in this call of the host.
    fn sample(&self, call: &HostCall, number: u64, now: u64, weight: u64) {
        let stack = call.stack();
        let Some(kept) = stack.as_ref().filter(|_| call.is_in() == Some(number)) else { return };
        let labels = call.labels.load(Ordering::Relaxed) | (kept.header.labels & MIXED_LABELS);
        let header = Header { ticks: 1, weight, time: now, labels, ..kept.header };
        let mut record = self.channel.ring.begin();
        let mut words = header.encode(kept.frames.len()).into_iter().chain(kept.frames.iter().copied());
        let fate = if words.all(|word| record.push(word).is_ok()) {
            record.commit();
            Fate::Delivered
        } else {
            Fate::Lost(LossCause::RingFull)
        };
        self.channel.counters.count(fate, 1, weight);
        if self.channel.ring.is_half_full() {
            self.collector.drain_soon();
        }
    }
}

/// Reads [`GUARD_BYTES`] from each of these addresses of this process into `words`, of just that size.
///
/// By the kernel: the words are Wasmtime's own, which another thread may be writing.
fn read_words(addresses: &[usize], words: &mut [u8]) -> io::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let length = words.len();
    let remote: Vec<_> = addresses.iter().map(|&base| RemoteIoVec { base, len: GUARD_BYTES }).collect();
    let read = process_vm_readv(nix::unistd::getpid(), &mut [IoSliceMut::new(words)], &remote)?;
    if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

//! Perf events of another process's threads: at each tick, the kernel copies registers and the top of the stack into a ring.
//!
//! ```text
//!              CPU 0                CPU 1
//!   thread 1   event ─┐             event ─┐         one event for each thread and CPU,
//!   thread 2   event ─┼─▶ ring 0    event ─┼─▶ ring 1      one ring for each CPU
//!   (its own threads inherit the events)
//! ```
//!
//! A thread that is started later inherits its maker's events, so that not even short-lived threads are missed. Records of
//! several rings are put in order by their time; see [`Sampler::drain`].
//!
//! How much of a stack an event copies is fixed when it is opened. To have more copied, all threads get new events, which
//! write into the same rings, and the former ones are closed; see [`Sampler::copy_more`].

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use flamewalk_handler::arch::Registers;
use nix::time::{ClockId, clock_gettime};
use perf_event_open::config::{Cpu, Inherit, Opts, Size};
use perf_event_open::count::Counter;
use perf_event_open::sample::record::{Record, RecordId};

use crate::Error;
use crate::target::Target;
use opening::{OpenError, allow_files, needed_files, online_cpus, open_counter, open_rings, redirect};

mod opening;
#[cfg(test)]
mod tests;

/// The longest time between two drains; a ring may have to be drained more often.
const LONGEST_DRAIN_INTERVAL: Duration = Duration::from_millis(20);
/// Rounds of listing threads until there are no new ones.
const MOST_ROUNDS: usize = 8;

/// Something that happened in the target.
#[derive(Debug)]
pub(crate) struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) time: u64,
    pub(crate) process: i32,
    pub(crate) thread: i32,
    pub(crate) kind: EventKind,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum EventKind {
    Tick(Tick),
    /// Something executable was mapped, or memory has become executable.
    Mapped(Range<usize>),
    /// So many records found no room in a ring.
    Lost(u64),
    /// The thread has started this one, which has inherited an event that copies so much of a stack.
    Started {
        thread: i32,
        stack_bytes: u32,
    },
    Ended,
    /// The process has begun another program.
    Replaced,
}

/// A tick.
#[derive(Debug)]
pub(crate) struct Tick {
    /// In nanoseconds.
    pub(crate) weight: u64,
    /// `None` if the thread was never in user code.
    pub(crate) registers: Option<Registers>,
    /// The bytes from the stack pointer on.
    pub(crate) stack: Vec<u8>,
    /// Whether the kernel would have copied more of the stack if it had been asked to.
    pub(crate) is_cut: bool,
}

/// The events and rings of one target.
pub(crate) struct Sampler {
    /// One for each CPU, of the first thread.
    rings: Vec<Ring>,
    /// The others.
    counters: Vec<Counter>,
    options: Opts,
    /// The threads that were chosen; all of the target if there are none.
    chosen: Vec<i32>,
    /// The threads that were opened.
    threads: Vec<i32>,
    user_only: bool,
    ring_bytes: usize,
    rate: u32,
    /// What the events copy of a stack.
    stack_bytes: u32,
    /// Ticks that are younger than this count if they are of these events, and older ones if they are of former events.
    since: u64,
    /// What each event copies of a stack, the former ones, too, by the kernel's number of the event.
    copied: HashMap<u64, u32>,
}

struct Ring {
    cpu: Cpu,
    counter: Counter,
    sampler: perf_event_open::sample::Sampler,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sampler").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Sampler {
    /// Opens the events of these threads and what they start; without any, of all threads of the target. What happens is on
    /// record from then on, some of it in `events`, and ticks count once it [begins](Self::begin). Rings have room for stacks of
    /// `most_stack_bytes`.
    pub(crate) fn open(
        target: &Target,
        chosen: &[i32],
        rate: u32,
        stack_bytes: u32,
        most_stack_bytes: u32,
        events: &mut Vec<Event>,
    ) -> Result<Self, Error> {
        let threads = if chosen.is_empty() { target.threads()? } else { chosen.to_vec() };
        let cpus = online_cpus();
        let needed = needed_files(threads.len(), cpus.len(), stack_bytes < most_stack_bytes);
        allow_files(needed);
        let open_with = |inherit, user_only| {
            let options = opening::options(rate, stack_bytes, user_only, inherit);
            let rings = open_rings(&threads, &cpus, &options, most_stack_bytes)?;
            Ok((rings, options, user_only))
        };
        // Ticks in the kernel count for the code that called it, where we may see them.
        let open = |inherit| match open_with(inherit, false) {
            Err(OpenError::Refused(_)) => open_with(inherit, true),
            opened => opened,
        };
        let opened = match chosen.is_empty().then_some(Inherit::NewThread) {
            None => open(None),
            // Before Linux 5.13, processes that the target forks are sampled, too.
            Some(threads_only) => match open(Some(threads_only)) {
                Err(error) if error.is_unknown_option() => open(Some(Inherit::NewChild)),
                opened => opened,
            },
        };
        let ((rings, first, ring_bytes), options, user_only) =
            opened.map_err(|error| error.of(target, chosen, threads.len(), needed))?;
        let mut sampler = Self {
            rings,
            counters: Vec::new(),
            options,
            chosen: chosen.to_vec(),
            threads: vec![first],
            user_only,
            ring_bytes,
            rate,
            stack_bytes,
            since: u64::MAX,
            copied: HashMap::new(),
        };
        sampler
            .number_rings()
            .and_then(|()| sampler.open_rest(target, &threads, stack_bytes, events))
            .map_err(|error| error.of(target, chosen, threads.len(), needed))?;
        Ok(sampler)
    }

    /// Has ticks count from now on, and returns that time. What happened before is added to `events`, but for what was lost.
    pub(crate) fn begin(&mut self, events: &mut Vec<Event>) -> u64 {
        self.drain(events);
        events.retain(|event| !matches!(event.kind, EventKind::Lost(_)));
        self.since = monotonic_time();
        self.since
    }

    fn number_rings(&mut self) -> Result<(), OpenError> {
        for ring in &self.rings {
            self.copied.insert(ring.counter.id().map_err(OpenError::of_io)?, self.stack_bytes);
        }
        Ok(())
    }

    /// Has the kernel copy so many bytes of a stack from now on. Nothing is missed meanwhile, and no tick counts twice.
    ///
    /// # Errors
    ///
    /// If new events cannot be opened; the former ones go on then.
    pub(crate) fn copy_more(
        &mut self,
        target: &Target,
        stack_bytes: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let former = self.open_again(target, stack_bytes, events)?;
        self.count_from_now(former, stack_bytes);
        Ok(())
    }

    /// Has ticks of the new events count from now on, and ends the former ones.
    fn count_from_now(&mut self, former: Vec<Counter>, stack_bytes: u32) {
        self.stack_bytes = stack_bytes;
        self.since = monotonic_time();
        // Closing an event ends it. Those of the first thread are kept for their rings.
        drop(former);
        self.rings.iter().map(|ring| &ring.counter).for_each(disable);
    }

    /// Opens events that copy so many bytes, beside the former ones, which are returned.
    fn open_again(
        &mut self,
        target: &Target,
        stack_bytes: u32,
        events: &mut Vec<Event>,
    ) -> Result<Vec<Counter>, Error> {
        let threads = if self.chosen.is_empty() { target.threads()? } else { self.chosen.clone() };
        let needed = needed_files(threads.len(), self.rings.len(), true);
        allow_files(needed);
        let former = std::mem::take(&mut self.counters);
        let former_threads = std::mem::take(&mut self.threads);
        let former_options = self.options.clone();
        self.options.sample_format.user_stack = Some(Size(stack_bytes));
        let opened = self.open_rest(target, &threads, stack_bytes, events);
        match opened {
            Ok(()) => Ok(former),
            Err(error) => {
                self.counters = former;
                self.threads = former_threads;
                self.options = former_options;
                Err(error.of(target, &self.chosen, threads.len(), needed))
            }
        }
    }

    /// Opens all threads that are not open. Until there are no new ones, what happens is added to `events`.
    fn open_rest(
        &mut self,
        target: &Target,
        threads: &[i32],
        stack_bytes: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), OpenError> {
        let mut rest = threads.to_vec();
        let mut inherited: Vec<i32> = Vec::new();
        for _ in 0..MOST_ROUNDS {
            rest.retain(|thread| !self.threads.contains(thread) && !inherited.contains(thread));
            if rest.is_empty() {
                break;
            }
            for thread in &rest {
                self.open_thread(*thread, stack_bytes)?;
            }
            if !self.chosen.is_empty() {
                break;
            }
            // Threads that were started meanwhile have inherited these events if a record says so.
            let seen = events.len();
            self.drain(events);
            inherited.extend(events[seen..].iter().filter_map(|event| match event.kind {
                EventKind::Started { thread, stack_bytes: copied } if copied == stack_bytes => Some(thread),
                _ => None,
            }));
            rest = target.threads().map_err(OpenError::Target)?;
        }
        Ok(())
    }

    fn open_thread(&mut self, thread: i32, stack_bytes: u32) -> Result<(), OpenError> {
        self.threads.push(thread);
        for ring in &self.rings {
            match open_counter(thread, &ring.cpu, &self.options) {
                Ok(counter) => {
                    redirect(counter.file(), ring.counter.file()).map_err(OpenError::of_io)?;
                    self.copied.insert(counter.id().map_err(OpenError::of_io)?, stack_bytes);
                    self.counters.push(counter);
                }
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
                Err(error) => return Err(OpenError::of_io(error)),
            }
        }
        Ok(())
    }

    /// Whether ticks in the kernel are left out, since they are not ours to see.
    pub(crate) fn is_user_only(&self) -> bool {
        self.user_only
    }

    /// How many samples a ring has room for.
    fn ring_samples(&self) -> usize {
        self.ring_bytes / (self.stack_bytes as usize + 256)
    }

    /// How often it has to be drained.
    pub(crate) fn drain_interval(&self) -> Duration {
        // All threads of a CPU together make that many ticks a second there.
        let full = self.ring_samples() as f64 / f64::from(self.rate);
        Duration::from_secs_f64(full / 4.0).clamp(Duration::from_millis(1), LONGEST_DRAIN_INTERVAL)
    }

    /// Stops sampling.
    pub(crate) fn stop(&self) {
        self.rings.iter().map(|ring| &ring.counter).chain(&self.counters).for_each(disable);
    }

    /// Takes what is in the rings, in the order of each ring.
    pub(crate) fn drain(&self, events: &mut Vec<Event>) {
        for ring in &self.rings {
            // There is no other iterator.
            let Some(mut records) = ring.sampler.iter() else { continue };
            // What arrives while this runs may wait for the next time.
            let most = self.ring_samples().saturating_mul(4).saturating_add(4096);
            events.extend(records.by_ref().take(most).filter_map(|(_, record)| self.event(record)));
        }
    }

    fn event(&self, record: Record) -> Option<Event> {
        let event = |id: Option<RecordId>, kind| {
            let (task, time) = id.and_then(|id| Some((id.task?, id.time?)))?;
            Some(Event { time, process: task.pid.cast_signed(), thread: task.tid.cast_signed(), kind })
        };
        match record {
            Record::Sample(sample) => {
                let stack_bytes = self.copied_by(&sample.record_id)?;
                let is_of_these = stack_bytes == self.stack_bytes;
                if is_of_these != (sample.record_id.time? > self.since) {
                    return None;
                }
                let registers = sample.user_regs.as_ref().and_then(|(registers, _)| match registers[..] {
                    [fp, sp, pc] => {
                        Some(Registers { pc: pc as usize, sp: sp as usize, fp: fp as usize, lr: 0 })
                    }
                    _ => None,
                });
                let stack = sample.user_stack.unwrap_or_default();
                let is_cut = stack.len() >= stack_bytes as usize;
                let tick = Tick { weight: sample.period?, registers, stack, is_cut };
                event(Some(sample.record_id), EventKind::Tick(tick))
            }
            Record::Mmap(mapped) if mapped.executable => {
                let start = usize::try_from(mapped.addr).ok()?;
                let range = start..start.checked_add(usize::try_from(mapped.len).ok()?)?;
                event(mapped.record_id, EventKind::Mapped(range))
            }
            Record::LostRecords(lost) => event(lost.record_id, EventKind::Lost(lost.lost_records)),
            Record::Fork(fork) => {
                let stack_bytes = self.copied_by(fork.record_id.as_ref()?)?;
                let thread = fork.task.tid.cast_signed();
                event(fork.record_id, EventKind::Started { thread, stack_bytes })
            }
            Record::Exit(exit) => event(exit.record_id, EventKind::Ended),
            Record::Comm(comm) if comm.by_execve => event(comm.record_id, EventKind::Replaced),
            _ => None,
        }
    }

    /// What the event copies of a stack that a record is of.
    fn copied_by(&self, id: &RecordId) -> Option<u32> {
        self.copied.get(&id.id?).copied()
    }
}

fn disable(counter: &Counter) {
    if let Err(error) = counter.disable() {
        tracing::warn!("cannot stop a perf event: {error}");
    }
}

/// Nanoseconds of the clock that the kernel takes the events' times from.
pub(crate) fn monotonic_time() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

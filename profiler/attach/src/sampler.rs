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

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use flamewalk_handler::arch::Registers;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use perf_event_open::config::{
    Clock, Cpu, ExtraRecord, Inherit, Mmap, Opts, Priv, Proc, RecordIdFormat, RegsMask, SampleFormat,
    SampleOn, Size, UseBuildId,
};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;
use perf_event_open::sample::record::{Record, RecordId};

use crate::Error;
use crate::target::Target;

/// `rbp`, `rsp` and `rip` by the kernel's numbers of x86-64's registers, in whose order it copies them.
const REGISTERS: RegsMask = RegsMask(1 << 6 | 1 << 7 | 1 << 8);
/// All rings together, in bytes, if the system allows it.
const MOST_RING_BYTES: usize = 64 << 20;
/// The sizes of one ring that are tried, in bytes: a stack of 64 KiB fits the smallest twice.
const RING_BYTES: Range<u32> = 17..24;
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
    /// The thread has started this one.
    Started(i32),
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
}

/// The events and rings of one target.
pub(crate) struct Sampler {
    /// One for each CPU, of the first thread.
    rings: Vec<Ring>,
    /// The others.
    counters: Vec<Counter>,
    options: Opts,
    /// The threads that were opened.
    pub(crate) threads: Vec<i32>,
    user_only: bool,
    /// What a ring has room for, in samples.
    ring_samples: usize,
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
    /// Begins to sample these threads and what they start; without any, all threads of the target.
    pub(crate) fn open(target: &Target, chosen: &[i32], rate: u32, stack_bytes: u32) -> Result<Self, Error> {
        let threads = if chosen.is_empty() { target.threads()? } else { chosen.to_vec() };
        let cpus = online_cpus();
        allow_files(threads.len().saturating_mul(cpus.len()).saturating_add(64));
        // Ticks in the kernel count for the code that called it, where we may see them.
        let open_rings = |user_only| {
            let options = options(rate, stack_bytes, user_only, chosen.is_empty());
            open_rings(&threads, &cpus, options, stack_bytes).map(|found| (found, user_only))
        };
        let is_refused = |error: &OpenError| matches!(error, OpenError::Refused(_));
        let opened = match open_rings(false) {
            Err(error) if is_refused(&error) => open_rings(true),
            opened => opened,
        };
        let ((rings, options, first, bytes), user_only) =
            opened.map_err(|error| error.of(target, threads.len(), &cpus))?;
        let mut sampler = Self {
            rings,
            counters: Vec::new(),
            options,
            threads: vec![first],
            user_only,
            ring_samples: bytes / (stack_bytes as usize + 256),
        };
        sampler
            .open_rest(target, chosen, &threads)
            .map_err(|error| error.of(target, threads.len(), &cpus))?;
        Ok(sampler)
    }

    fn open_rest(&mut self, target: &Target, chosen: &[i32], threads: &[i32]) -> Result<(), OpenError> {
        let mut rest = threads.to_vec();
        let mut inherited: Vec<i32> = Vec::new();
        for _ in 0..MOST_ROUNDS {
            rest.retain(|thread| !self.threads.contains(thread) && !inherited.contains(thread));
            if rest.is_empty() {
                break;
            }
            for thread in &rest {
                self.open_thread(*thread)?;
            }
            if !chosen.is_empty() {
                break;
            }
            // Threads that were started meanwhile have inherited the events if a record says so.
            let mut events = Vec::new();
            self.drain(&mut events);
            inherited.extend(events.iter().filter_map(|event| match event.kind {
                EventKind::Started(thread) => Some(thread),
                _ => None,
            }));
            rest = target.threads().map_err(OpenError::Target)?;
        }
        Ok(())
    }

    fn open_thread(&mut self, thread: i32) -> Result<(), OpenError> {
        self.threads.push(thread);
        for ring in &self.rings {
            match open_counter(thread, &ring.cpu, &self.options) {
                Ok(counter) => {
                    redirect(counter.file(), ring.counter.file()).map_err(OpenError::of_io)?;
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
    pub(crate) fn ring_samples(&self) -> usize {
        self.ring_samples
    }

    /// Stops sampling.
    pub(crate) fn stop(&self) {
        for counter in self.rings.iter().map(|ring| &ring.counter).chain(&self.counters) {
            if let Err(error) = counter.disable() {
                tracing::warn!("cannot stop a perf event: {error}");
            }
        }
    }

    /// Takes what is in the rings, in the order of each ring.
    pub(crate) fn drain(&self, events: &mut Vec<Event>) {
        for ring in &self.rings {
            // There is no other iterator.
            let Some(mut records) = ring.sampler.iter() else { continue };
            // What arrives while this runs may wait for the next time.
            let most = self.ring_samples.saturating_mul(4).saturating_add(4096);
            events.extend(records.by_ref().take(most).filter_map(|(_, record)| event(record)));
        }
    }
}

fn event(record: Record) -> Option<Event> {
    let event = |id: Option<RecordId>, kind| {
        let (task, time) = id.and_then(|id| Some((id.task?, id.time?)))?;
        Some(Event { time, process: task.pid.cast_signed(), thread: task.tid.cast_signed(), kind })
    };
    match record {
        Record::Sample(sample) => {
            let registers = sample.user_regs.as_ref().and_then(|(registers, _)| match registers[..] {
                [fp, sp, pc] => Some(Registers { pc: pc as usize, sp: sp as usize, fp: fp as usize, lr: 0 }),
                _ => None,
            });
            let tick =
                Tick { weight: sample.period?, registers, stack: sample.user_stack.unwrap_or_default() };
            event(Some(sample.record_id), EventKind::Tick(tick))
        }
        Record::Mmap(mapped) if mapped.executable => {
            let start = usize::try_from(mapped.addr).ok()?;
            let range = start..start.checked_add(usize::try_from(mapped.len).ok()?)?;
            event(mapped.record_id, EventKind::Mapped(range))
        }
        Record::LostRecords(lost) => event(lost.record_id, EventKind::Lost(lost.lost_records)),
        Record::Fork(fork) => event(fork.record_id, EventKind::Started(fork.task.tid.cast_signed())),
        Record::Exit(exit) => event(exit.record_id, EventKind::Ended),
        Record::Comm(comm) if comm.by_execve => event(comm.record_id, EventKind::Replaced),
        _ => None,
    }
}

/// Why events cannot be opened.
#[derive(Debug)]
enum OpenError {
    NoThread,
    Refused(io::Error),
    TooManyFiles,
    NoRing(io::Error),
    Target(Error),
    Other(io::Error),
}

impl OpenError {
    fn of_io(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::ENOSYS) => Self::Refused(error),
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            Some(libc::ESRCH) => Self::NoThread,
            _ => Self::Other(error),
        }
    }

    fn of(self, target: &Target, threads: usize, cpus: &[u32]) -> Error {
        let pid = target.pid();
        match self {
            Self::NoThread => Error::NoProcess { pid },
            Self::Refused(source) => {
                let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                Error::PerfRefused {
                    paranoid: paranoid.ok().and_then(|level| level.trim().parse().ok()),
                    source,
                }
            }
            Self::TooManyFiles => Error::TooManyFiles { pid, threads, needed: threads * cpus.len() + 64 },
            Self::NoRing(source) => Error::NoRing { source },
            Self::Target(error) => error,
            Self::Other(source) => Error::System { action: "open a perf event", source },
        }
    }
}

fn options(rate: u32, stack_bytes: u32, user_only: bool, with_new_threads: bool) -> Opts {
    Opts {
        exclude: Priv { kernel: user_only, hv: user_only, ..Priv::default() },
        inherit: with_new_threads.then_some(Inherit::NewChild),
        enable: true,
        sample_on: SampleOn::Count(1_000_000_000 / u64::from(rate)),
        sample_format: SampleFormat {
            period: true,
            user_regs: Some(REGISTERS),
            user_stack: Some(Size(stack_bytes)),
            ..SampleFormat::default()
        },
        extra_record: ExtraRecord {
            task: true,
            comm: true,
            mmap: Mmap { code: true, data: false, ext: Some(UseBuildId(false)) },
            ..ExtraRecord::default()
        },
        record_id_all: true,
        record_id_format: RecordIdFormat { task: true, time: true, ..RecordIdFormat::default() },
        timer: Some(Clock::Monotonic),
        ..Opts::default()
    }
}

type OpenRings = (Vec<Ring>, Opts, i32, usize);

/// The events of the first thread that is still there, each with a ring of as many bytes as the system allows.
fn open_rings(
    threads: &[i32],
    cpus: &[u32],
    options: Opts,
    stack_bytes: u32,
) -> Result<OpenRings, OpenError> {
    for thread in threads {
        let largest = (MOST_RING_BYTES / cpus.len().max(1)).max(1).ilog2();
        let least = RING_BYTES.start.max((stack_bytes * 2).next_power_of_two().ilog2());
        let mut refused = None;
        for log in (least..RING_BYTES.end.min(largest + 1).max(least + 1)).rev() {
            match open_rings_of(*thread, cpus, &options, 1 << log) {
                Ok(rings) => return Ok((rings, options, *thread, 1 << log)),
                Err(OpenError::NoThread) => break,
                Err(OpenError::NoRing(error)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = refused {
            return Err(OpenError::NoRing(error));
        }
    }
    Err(OpenError::NoThread)
}

fn open_rings_of(thread: i32, cpus: &[u32], options: &Opts, bytes: usize) -> Result<Vec<Ring>, OpenError> {
    let pages = (bytes / crate::host::page_size()).ilog2();
    let ring = |cpu: &u32| {
        let cpu = Cpu(*cpu);
        let counter = open_counter(thread, &cpu, options).map_err(OpenError::of_io)?;
        let sampler = counter.sampler(pages as u8).map_err(OpenError::NoRing)?;
        Ok(Ring { cpu, counter, sampler })
    };
    cpus.iter().map(ring).collect()
}

fn open_counter(thread: i32, cpu: &Cpu, options: &Opts) -> io::Result<Counter> {
    Counter::new(Software::CpuClock, (Proc(thread.cast_unsigned()), *cpu), options)
}

/// Has the kernel write an event's records into the ring of another event of the same CPU.
fn redirect(event: &File, ring: &File) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
    // SAFETY: an `ioctl` on a descriptor that is open, whose argument is a descriptor that is open.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_OUTPUT, ring.as_raw_fd()) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// The CPUs that are online.
fn online_cpus() -> Vec<u32> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    let cpus: Vec<u32> = ranges.flatten().collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Raises the limit on open files, as far as it may be.
fn allow_files(needed: usize) {
    let needed = needed as u64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)
    {
        tracing::warn!("cannot raise the limit on open files: {error}");
    }
}

//! Opening perf events: as whom the kernel lets us, with as large rings as it lets us have, and what it means if it does not.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use perf_event_open::config::{
    Clock, Cpu, ExtraRecord, Inherit, Mmap, Opts, Priv, Proc, RecordIdFormat, RegsMask, SampleFormat,
    SampleOn, Size, UseBuildId,
};
use perf_event_open::count::Counter;
use perf_event_open::event::sw::Software;

use super::Ring;
use crate::Error;
use crate::target::Target;

/// `rbp`, `rsp` and `rip` by the kernel's numbers of x86-64's registers, in whose order it copies them.
const REGISTERS: RegsMask = RegsMask(1 << 6 | 1 << 7 | 1 << 8);
/// All rings together, in bytes, if the system allows it.
const MOST_RING_BYTES: usize = 64 << 20;
/// The sizes of one ring that are tried, in bytes: a stack of 64 KiB fits the smallest twice.
const RING_BYTES: Range<u32> = 17..24;

/// Why events cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    NoThread,
    Refused(io::Error),
    TooManyFiles,
    NoRing(io::Error),
    Target(Error),
    Other(io::Error),
}

impl OpenError {
    pub(super) fn of_io(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::ENOSYS) => Self::Refused(error),
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            Some(libc::ESRCH) => Self::NoThread,
            _ => Self::Other(error),
        }
    }

    /// Whether the kernel is older than what is asked of it.
    pub(super) fn is_unknown_option(&self) -> bool {
        matches!(self, Self::Other(error) if error.raw_os_error() == Some(libc::EINVAL))
    }

    /// The error of so many threads, which were chosen or are all, and take so many files.
    pub(super) fn of(self, target: &Target, chosen: &[i32], threads: usize, needed: usize) -> Error {
        let pid = target.pid();
        match self {
            Self::NoThread => match chosen.first() {
                Some(thread) if !target.has_ended() => Error::NoThread { pid, thread: *thread },
                _ => Error::NoProcess { pid },
            },
            Self::Refused(source) => {
                let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                Error::PerfRefused {
                    paranoid: paranoid.ok().and_then(|level| level.trim().parse().ok()),
                    source,
                }
            }
            Self::TooManyFiles => Error::TooManyFiles { pid, threads, needed },
            Self::NoRing(source) => Error::NoRing { source },
            Self::Target(error) => error,
            Self::Other(source) => Error::System { action: "open a perf event", source },
        }
    }
}

pub(super) fn options(rate: u32, stack_bytes: u32, user_only: bool, inherit: Option<Inherit>) -> Opts {
    Opts {
        exclude: Priv { kernel: user_only, hv: user_only, ..Priv::default() },
        inherit,
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
        record_id_format: RecordIdFormat { id: true, task: true, time: true, ..RecordIdFormat::default() },
        timer: Some(Clock::Monotonic),
        ..Opts::default()
    }
}

/// The rings, the thread that they are of, and their size in bytes.
type OpenRings = (Vec<Ring>, i32, usize);

/// The events of the first thread that is still there, each with a ring of as many bytes as the system allows.
pub(super) fn open_rings(
    threads: &[i32],
    cpus: &[u32],
    options: &Opts,
    most_stack_bytes: u32,
) -> Result<OpenRings, OpenError> {
    for thread in threads {
        let largest = (MOST_RING_BYTES / cpus.len().max(1)).max(1).ilog2();
        let least = RING_BYTES.start.max((most_stack_bytes * 2).next_power_of_two().ilog2());
        let mut refused = None;
        for log in (least..RING_BYTES.end.min(largest + 1).max(least + 1)).rev() {
            match open_rings_of(*thread, cpus, options, 1 << log) {
                Ok(rings) => return Ok((rings, *thread, 1 << log)),
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

pub(super) fn open_counter(thread: i32, cpu: &Cpu, options: &Opts) -> io::Result<Counter> {
    Counter::new(Software::CpuClock, (Proc(thread.cast_unsigned()), *cpu), options)
}

/// Has the kernel write an event's records into the ring of another event of the same CPU.
pub(super) fn redirect(event: &File, ring: &File) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
    // SAFETY: an `ioctl` on a descriptor that is open, whose argument is a descriptor that is open.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_OUTPUT, ring.as_raw_fd()) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// The CPUs that are online.
pub(super) fn online_cpus() -> Vec<u32> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    let cpus: Vec<u32> = ranges.flatten().collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// How many files have to be open for events of so many threads and CPUs. Where more of the stack can come to be copied, new events
/// are opened beside the former ones; and beside those of the first thread, whose rings all of them share.
pub(super) fn needed_files(threads: usize, cpus: usize, stack_can_grow: bool) -> usize {
    /// What else flamewalk has open.
    const OTHERS: usize = 64;
    let events = threads.saturating_mul(cpus);
    let beside = if stack_can_grow { events.saturating_add(cpus) } else { 0 };
    events.saturating_add(beside).saturating_add(OTHERS)
}

/// Raises the limit on open files, as far as it may be.
pub(super) fn allow_files(needed: usize) {
    let needed = needed as u64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)
    {
        tracing::warn!("cannot raise the limit on open files: {error}");
    }
}

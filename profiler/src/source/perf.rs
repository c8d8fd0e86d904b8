//! Perf events: a tick each period of something that the kernel or the processor counts.
//!
//! The event signals its thread on each overflow: as a file does (`F_SETSIG`, `F_SETOWN_EX`), or, if the signal is
//! `SIGTRAP`, by itself (`sigtrap`, see [`TRAP_SINCE`]). A file's signal is sent from an interrupt of its own, which the
//! kernel raises for that; `sigtrap` is on the way back from the interrupt that counted. Overflows also leave a record in a
//! small buffer shared with the kernel, with the time and the event's count at that moment. From the records the
//! handler learns, without a system call, how many overflows a signal stands for (signals of one number merge)
//! and how much was counted since the last one, so that no tick and no nanosecond is missed:
//!
//! ```text
//!   page 0  perf_event_mmap_page: data_head (kernel writes), data_tail (we write)
//!   page 1  header{type, misc, size} time count │ header time count │ …
//! ```
//!
//! If the kernel lets us sample user code only, time in the kernel is counted and makes no overflow. It would
//! fall on whatever user code is sampled next; the weight is then the period for each overflow instead.

use std::io;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::signal::Signal;
use nix::sys::utsname::uname;
use nix::unistd::{SysconfVar, sysconf};
use perf_event_open::config::{
    Clock, Cpu, OnExecve, Opts, Priv, Proc, RecordIdFormat, SampleFormat, SampleOn, SigData, WakeUp, WakeUpOn,
};
use perf_event_open::count::Counter;

use super::period::VaryingPeriod;
use super::{Plan, SignalInfo, Ticks};
use crate::error::Error;
use crate::event::{Kind, PerfEvent};

/// `si_code` of a file's signal: from `POLL_IN` to `POLL_HUP`.
const FILE_CODES: RangeInclusive<i32> = 1..=6;
/// `si_code` of a signal that an event sends by itself.
pub(super) const TRAP_PERF: i32 = 6;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_SAMPLE: u32 = 9;
/// Offsets in `perf_event_mmap_page` (part of the kernel's interface).
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// A perf event that signals one thread.
pub(crate) struct PerfSource {
    counter: Counter,
    descriptor: i32,
    /// What its signals carry, if it sends them by itself.
    trap: Option<usize>,
    buffer: Buffer,
    /// In nanoseconds.
    period: AtomicU64,
    /// `None` for events that are not time: there the kernel adjusts the period to the rate.
    varying: Option<Mutex<VaryingPeriod>>,
    /// Weigh by overflows instead of by count; see the module's documentation.
    by_period: bool,
    /// The event's count at the last overflow that the handler has seen. Handler only.
    counted: AtomicU64,
}

// SAFETY: `Counter` is kept for its file; after construction it is only asked to enable and disable, which are
// calls on the descriptor. The buffer's pointers stay valid until it is dropped, and only the handler of the one
// thread that is signalled reads records.
unsafe impl Send for PerfSource {}
// SAFETY: as above.
unsafe impl Sync for PerfSource {}

impl std::fmt::Debug for PerfSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerfSource").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

impl PerfSource {
    /// Whether the kernel opens the event for this thread.
    pub(super) fn probe(event: PerfEvent, rate: u32, user_only: bool, signal: Signal) -> io::Result<()> {
        if signal == Signal::SIGTRAP && kernel_version() < Some(TRAP_SINCE) {
            let (major, minor) = TRAP_SINCE;
            return Err(io::Error::other(format!("with SIGTRAP they need Linux {major}.{minor}")));
        }
        open_counter(event, rate, user_only, trap(signal), 0).map(drop)
    }

    pub(super) fn open(event: PerfEvent, plan: &Plan, user_only: bool, thread_id: i32) -> io::Result<Self> {
        let trap = trap(plan.signal);
        let counter = open_counter(event, plan.rate, user_only, trap, thread_id.unsigned_abs())?;
        let buffer = Buffer::map(&counter)?;
        let descriptor = counter.file().as_raw_fd();
        if trap.is_none() {
            signal_thread(descriptor, thread_id, plan.signal as i32)?;
        }
        Ok(Self {
            counter,
            descriptor,
            trap,
            buffer,
            period: AtomicU64::new(plan.period()),
            varying: event.is_time().then(|| VaryingPeriod::new(plan.period()).into()),
            by_period: user_only && event.is_time(),
            counted: AtomicU64::new(0),
        })
    }

    pub(super) fn start(&self) -> Result<(), Error> {
        self.counter.enable().map_err(|source| Error::System { action: "start a perf event", source })
    }

    pub(super) fn stop(&self) {
        if let Err(error) = self.counter.disable() {
            tracing::warn!("cannot stop a perf event: {error}");
        }
    }

    pub(super) fn vary_period(&self) {
        let Some(varying) = &self.varying else { return };
        // Held until the kernel has the period, so that an older one cannot follow a newer one.
        let mut varying = varying.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(period) = varying.next()
            && let Err(error) = self.set_period(period)
        {
            tracing::warn!("{error}");
        }
    }

    pub(super) fn set_rate(&self, rate: u32) -> Result<(), Error> {
        // Pair: the load in `ticks`. Overflows that are not handled yet weigh the new period, if it is used at all.
        self.period.store(super::period_of(rate), Ordering::Relaxed);
        match &self.varying {
            Some(varying) => {
                let mut varying = varying.lock().unwrap_or_else(PoisonError::into_inner);
                let period = varying.set_rate(rate);
                self.set_period(period)
            }
            // An event whose period the kernel adjusts takes a rate here.
            None => self.set_period(u64::from(rate)),
        }
    }

    fn set_period(&self, period: u64) -> Result<(), Error> {
        const PERF_EVENT_IOC_PERIOD: libc::c_ulong = 0x4008_2404;
        // SAFETY: an `ioctl` on a descriptor that is open, which reads 64 bits from the address.
        match unsafe { libc::ioctl(self.descriptor, PERF_EVENT_IOC_PERIOD, &raw const period) } {
            -1 => Err(Error::System {
                action: "change the period of a perf event",
                source: io::Error::last_os_error(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn ticks(&self, info: &SignalInfo) -> Option<Ticks> {
        // A signal that a process or another part of the kernel sends has none of a file's codes.
        let is_ours = match self.trap {
            Some(value) => info.code == TRAP_PERF && info.value == value,
            None => FILE_CODES.contains(&info.code) && info.descriptor == self.descriptor,
        };
        if !is_ours {
            return None;
        }
        let overflows = self.buffer.take_overflows();
        let Some((count, time)) = overflows.last else {
            // An earlier signal stood for these overflows already.
            return Some(Ticks { count: 0, weight: 0, time: 0 });
        };
        let before = self.counted.swap(count, Ordering::Relaxed);
        let weight = match self.by_period {
            // Pair: the store in `set_rate`.
            true => self.period.load(Ordering::Relaxed).saturating_mul(overflows.number),
            false => count.saturating_sub(before),
        };
        Some(Ticks { count: overflows.number, weight, time })
    }
}

/// The first Linux whose events may send `SIGTRAP`. From 5.13 on they could, but ended the process if the thread blocked it at
/// that moment, as it does in the signal's own handler.
const TRAP_SINCE: (u32, u32) = (5, 19);

/// Major and minor number of the kernel's version; `None` if it does not say.
fn kernel_version() -> Option<(u32, u32)> {
    let name = uname().ok()?;
    let mut numbers = name.release().to_str()?.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What an event carries that sends `signal` by itself: a number that no other of this process does.
fn trap(signal: Signal) -> Option<usize> {
    static LAST: AtomicUsize = AtomicUsize::new(0x666c_616d_6577_616c);
    (signal == Signal::SIGTRAP).then(|| LAST.fetch_add(1, Ordering::Relaxed))
}

fn open_counter(
    event: PerfEvent,
    rate: u32,
    user_only: bool,
    trap: Option<usize>,
    thread_id: u32,
) -> io::Result<Counter> {
    // A period where the event is time; elsewhere the kernel adjusts it to the rate.
    let sample_on = match event.is_time() {
        true => SampleOn::Count(1_000_000_000 / u64::from(rate)),
        false => SampleOn::Freq(u64::from(rate)),
    };
    let options = Opts {
        exclude: Priv { kernel: user_only, hv: user_only, ..Priv::default() },
        sample_on,
        sample_format: SampleFormat { stat: true, ..SampleFormat::default() },
        record_id_format: RecordIdFormat { time: true, ..RecordIdFormat::default() },
        wake_up: WakeUp {
            on: match trap {
                // Waking up is what signals as a file does.
                None => WakeUpOn::Samples(1),
                // Nobody waits; as rarely as the buffer allows.
                Some(_) => WakeUpOn::Bytes(u32::MAX),
            },
            ..WakeUp::default()
        },
        sigtrap_on_sample: trap.map(|value| SigData(value as u64)),
        // The kernel demands it of such events.
        on_execve: trap.map(|_| OnExecve::Remove),
        timer: Some(Clock::Monotonic),
        ..Opts::default()
    };
    let target = (Proc(thread_id), Cpu::ALL);
    match event.kind() {
        Kind::Software(event) => Counter::new(event, target, options),
        Kind::Hardware(event) => Counter::new(event, target, options),
    }
}

/// Has the kernel send `signal`, with the descriptor in it, to the thread on each overflow.
fn signal_thread(descriptor: i32, thread_id: i32, signal: i32) -> io::Result<()> {
    const F_SETSIG: i32 = 10;
    const F_SETOWN_EX: i32 = 15;
    const F_OWNER_TID: i32 = 0;
    #[repr(C)]
    struct Owner {
        kind: i32,
        id: i32,
    }
    let owner = Owner { kind: F_OWNER_TID, id: thread_id };
    // SAFETY: `fcntl` on a descriptor that is open, with the argument types that each command takes; `owner`
    // lives through the call.
    let results = unsafe {
        [
            libc::fcntl(descriptor, F_SETOWN_EX, &raw const owner),
            libc::fcntl(descriptor, F_SETSIG, signal),
            libc::fcntl(descriptor, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The buffer that the kernel writes overflow records to: one page of control and one of data.
struct Buffer {
    address: NonNull<u8>,
    page: usize,
}

#[derive(Default)]
struct Overflows {
    number: u64,
    /// Count and time of the last one.
    last: Option<(u64, u64)>,
}

impl Buffer {
    fn map(counter: &Counter) -> io::Result<Self> {
        let page =
            sysconf(SysconfVar::PAGE_SIZE)?.and_then(|page| usize::try_from(page).ok()).unwrap_or(4096);
        let length = NonZeroUsize::new(2 * page).unwrap_or(NonZeroUsize::MIN);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice affects no memory of ours.
        let address = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, counter.file(), 0) };
        let address = address.map_err(|errno| match errno {
            // The event itself was allowed.
            Errno::EPERM => io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "no more memory can be locked; raise `ulimit -l` or kernel.perf_event_mlock_kb",
            ),
            _ => errno.into(),
        })?;
        Ok(Self { address: address.cast(), page })
    }

    /// A word of the control page.
    fn control(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the offset is one of the two constants above, aligned and inside the control page, which is
        // mapped for as long as `self` lives. The kernel and we access the word as a whole.
        unsafe { self.address.byte_add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// An aligned word of the data page, at a position that is taken modulo the page.
    fn data(&self, position: u64) -> u64 {
        let within = position as usize & self.page.wrapping_sub(1) & !7;
        let offset = self.page.wrapping_add(within);
        // SAFETY: aligned, and inside the data page. The kernel does not write between tail and head, where this
        // is read; volatile, since it does write the page.
        unsafe { self.address.byte_add(offset).cast::<u64>().read_volatile() }
    }

    /// Reads and releases all records.
    ///
    /// Async-signal-safe: yes; memory accesses only, at most as many as the page has words.
    fn take_overflows(&self) -> Overflows {
        // Pair: the kernel's store of `data_head`, which follows its writes of the records.
        let head = self.control(DATA_HEAD).load(Ordering::Acquire);
        // Only this handler writes `data_tail`.
        let mut tail = self.control(DATA_TAIL).load(Ordering::Relaxed);
        let mut overflows = Overflows::default();
        while tail != head {
            let header = self.data(tail);
            let (kind, size) = (header as u32, header >> 48);
            match kind {
                PERF_RECORD_SAMPLE => {
                    overflows.number = overflows.number.wrapping_add(1);
                    overflows.last =
                        Some((self.data(tail.wrapping_add(16)), self.data(tail.wrapping_add(8))));
                }
                // The buffer was full: id, then how many records were lost.
                PERF_RECORD_LOST => {
                    overflows.number = overflows.number.wrapping_add(self.data(tail.wrapping_add(16)))
                }
                _ => {}
            }
            // A record has at least its header; anything else would be a broken buffer, which is skipped whole.
            tail = if size < 8 || size > head.wrapping_sub(tail) { head } else { tail.wrapping_add(size) };
        }
        // Pair: the kernel's load of `data_tail`, before it writes records there.
        self.control(DATA_TAIL).store(tail, Ordering::Release);
        overflows
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        if let Err(error) = unsafe { munmap(self.address.cast(), 2 * self.page) } {
            tracing::warn!("cannot unmap a perf buffer: {error}");
        }
    }
}

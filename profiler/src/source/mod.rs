//! Event sources: what sends a thread its ticks.
//!
//! A source belongs to one thread, which it signals. Arming can be done from any thread of the process. The
//! signal handler asks the source how many ticks a signal stands for and what they weigh.

mod perf;
mod period;
mod schedule;
mod timer;

use std::io;

use nix::sys::signal::Signal;

use crate::error::Error;
use crate::event::{Event, PerfEvent};

pub(crate) use perf::PerfSource;
pub(crate) use period::VaryingPeriod;
pub(crate) use timer::{Clock, TimerSource, monotonic_time};

/// The highest rate: above it, signals begin to starve the program that is profiled.
const MAX_RATE: u32 = 20_000;

/// What a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) count: u64,
    /// In the unit of the event.
    pub(crate) weight: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) time: u64,
}

/// A source that is armed on a thread. Dropping it ends its ticks.
#[derive(Debug)]
pub(crate) enum Source {
    Perf(PerfSource),
    Timer(TimerSource),
}

/// What a session uses for all its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) event: Event,
    pub(crate) rate: u32,
    pub(crate) signal: Signal,
    pub(crate) engine: Engine,
}

/// The mechanism behind an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Perf {
        event: PerfEvent,
        /// The kernel only lets us sample user code.
        user_only: bool,
    },
    Timer(Clock),
}

impl Engine {
    /// How the engine is called in a profile.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Perf { event, user_only: false } => format!("perf {}", event.name()),
            Self::Perf { event, user_only: true } => format!("perf {}:u", event.name()),
            Self::Timer(clock) => format!("timer {}", clock.name()),
        }
    }
}

/// Opens an event once to see whether the kernel allows it.
type Probe = fn(PerfEvent, u32, bool, Signal) -> io::Result<()>;

impl Plan {
    /// Chooses the engine for an event, by trying. The notices say what was not as asked.
    pub(crate) fn choose(event: Event, rate: u32, signal: Signal) -> Result<(Self, Vec<String>), Error> {
        Self::choose_by(event, rate, signal, PerfSource::probe)
    }

    fn choose_by(
        event: Event,
        rate: u32,
        signal: Signal,
        probe: Probe,
    ) -> Result<(Self, Vec<String>), Error> {
        check_rate(rate)?;
        let mut notices = Vec::new();
        let engine = match event {
            Event::Wall => Engine::Timer(Clock::Monotonic),
            Event::CpuTimer => Engine::Timer(Clock::ThreadCpu),
            Event::Perf(perf) => {
                open(perf, rate, signal, probe, &mut notices).map_err(|source| refused(event, source))?
            }
            Event::Cpu => match open(PerfEvent::cpu_clock(), rate, signal, probe, &mut notices) {
                Ok(engine) => engine,
                Err(refusal) => {
                    notices
                        .push(format!("perf events are refused ({refusal}): sampling with a CPU-time timer"));
                    Engine::Timer(Clock::ThreadCpu)
                }
            },
        };
        if engine == Engine::Timer(Clock::ThreadCpu) {
            notices.extend(missing_ticks(rate));
        }
        Ok((Self { event, rate, signal, engine }, notices))
    }

    /// The same at another rate.
    ///
    /// # Errors
    ///
    /// [`Error::Rate`] if it is out of range; [`Error::NoEvent`] if the kernel does not have the event at this rate.
    pub(crate) fn at_rate(self, rate: u32) -> Result<Self, Error> {
        check_rate(rate)?;
        if let Engine::Perf { event, user_only } = self.engine
            && rate > self.rate
        {
            // The kernel bounds the rates of perf events.
            match PerfSource::probe(event, rate, user_only, self.signal) {
                // Those that are armed need no other.
                Err(source) if self.event == Event::Cpu && is_exhausted(&source) => {}
                probed => probed.map_err(|source| refused(self.event, source))?,
            }
        }
        Ok(Self { rate, ..self })
    }

    /// Nanoseconds from tick to tick, for events that are time.
    pub(crate) fn period(&self) -> u64 {
        period_of(self.rate)
    }

    /// The most ticks of a thread in a second, as far as the kernel keeps to what was asked for.
    pub(crate) fn most_ticks_per_second(&self) -> u64 {
        period::most_ticks_per_second(self.rate)
    }

    /// Arms the source on a thread of this process, without starting it. A perf event takes a file and locked memory, of
    /// which there can be too little for all threads: [`Event::Cpu`] does without it then, and the notices say so.
    pub(crate) fn arm(&self, thread_id: i32) -> Result<(Source, Vec<String>), Error> {
        let timer = |clock| TimerSource::create(clock, self, thread_id).map(Source::Timer);
        let (event, user_only) = match self.engine {
            Engine::Perf { event, user_only } => (event, user_only),
            Engine::Timer(clock) => return Ok((timer(clock)?, Vec::new())),
        };
        match PerfSource::open(event, self, user_only, thread_id) {
            Ok(source) => Ok((Source::Perf(source), Vec::new())),
            Err(refusal) if self.event == Event::Cpu => {
                let notice = format!(
                    "perf events are refused to some threads ({refusal}), which are sampled with a CPU-time timer"
                );
                let notices = [Some(notice), missing_ticks(self.rate)].into_iter().flatten().collect();
                Ok((timer(Clock::ThreadCpu)?, notices))
            }
            Err(source) => Err(refused(self.event, source)),
        }
    }
}

/// What to say of CPU-time timers at a rate that they do not reach.
fn missing_ticks(rate: u32) -> Option<String> {
    let highest = timer::kernel_tick_rate().filter(|highest| f64::from(rate) > *highest)?;
    Some(format!(
        "the CPU-time timer follows the kernel's tick: {highest:.0} samples per second of the {rate} that were asked for"
    ))
}

/// # Errors
///
/// [`Error::Rate`] if the rate is out of range.
pub(crate) fn check_rate(rate: u32) -> Result<(), Error> {
    if rate == 0 || rate > MAX_RATE { Err(Error::Rate { rate, max: MAX_RATE }) } else { Ok(()) }
}

/// Nanoseconds from tick to tick at a rate in Hz.
pub(crate) fn period_of(rate: u32) -> u64 {
    1_000_000_000 / u64::from(rate)
}

fn open(
    event: PerfEvent,
    rate: u32,
    signal: Signal,
    probe: Probe,
    notices: &mut Vec<String>,
) -> io::Result<Engine> {
    match probe(event, rate, false, signal) {
        Ok(()) => Ok(Engine::Perf { event, user_only: false }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            probe(event, rate, true, signal)?;
            notices.push(format!(
                "the kernel only allows sampling of user code ({error}): time in system calls is left out"
            ));
            Ok(Engine::Perf { event, user_only: true })
        }
        Err(error) => Err(error),
    }
}

fn refused(event: Event, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::ENOSYS | libc::EINVAL) => {
            Error::NoEvent { event, source }
        }
        // Not for want of rights.
        Some(libc::ESRCH) => Error::System { action: "open a perf event", source },
        _ if is_exhausted(&source) => Error::System { action: "open a perf event", source },
        _ => Error::EventRefused { event, source },
    }
}

/// Whether there are too many of what a perf event takes.
fn is_exhausted(source: &io::Error) -> bool {
    matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
        || source.kind() == io::ErrorKind::QuotaExceeded
}

impl Source {
    /// Starts the ticks, or lets them go on after a stop. What was counted between the last tick and the stop falls on
    /// the next one.
    pub(crate) fn start(&self) -> Result<(), Error> {
        match self {
            Self::Perf(source) => source.start(),
            Self::Timer(source) => source.start(),
        }
    }

    /// Stops the ticks. Signals that are on their way may still arrive.
    pub(crate) fn stop(&self) {
        match self {
            Self::Perf(source) => source.stop(),
            Self::Timer(source) => source.stop(),
        }
    }

    /// Changes the rate, in Hz. What was counted since the last tick falls on the next one.
    pub(crate) fn set_rate(&self, rate: u32) -> Result<(), Error> {
        match self {
            Self::Perf(source) => source.set_rate(rate),
            Self::Timer(source) => source.set_rate(rate),
        }
    }

    /// Changes the period a little; see [`period`]. Called by the collector, now and then.
    pub(crate) fn vary_period(&self) {
        match self {
            Self::Perf(source) => source.vary_period(),
            Self::Timer(source) => source.vary_period(),
        }
    }

    /// What a signal stands for; `None` if it is not from this source.
    ///
    /// Async-signal-safe: yes. Called by the handler on the source's thread only.
    pub(crate) fn ticks(&self, info: &SignalInfo) -> Option<Ticks> {
        match self {
            Self::Perf(source) => source.ticks(info),
            Self::Timer(source) => source.ticks(info),
        }
    }
}

/// The parts of `siginfo_t` that tell where a signal comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignalInfo {
    /// Why the signal was sent: `SI_TIMER`, or `POLL_IN` and its like for a file descriptor.
    pub(crate) code: i32,
    /// For a file descriptor's signal: the descriptor.
    pub(crate) descriptor: i32,
    /// For a timer's signal: how many expirations it stands for beyond the first.
    pub(crate) overrun: i32,
    /// For a timer's signal, and that of a perf event that sends it by itself: the value that it was made with.
    pub(crate) value: usize,
}

impl SignalInfo {
    /// Whether a `SIGTRAP` is from the processor, and not from a perf event, a timer or another process.
    pub(crate) fn is_breakpoint(&self) -> bool {
        self.code > 0 && self.code != perf::TRAP_PERF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(event: Event, rate: u32, probe: Probe) -> Result<(Plan, Vec<String>), Error> {
        Plan::choose_by(event, rate, Signal::SIGPROF, probe)
    }

    #[test]
    fn cpu_falls_back_to_the_timer_and_says_its_rate() {
        let (plan, notices) =
            plan(Event::Cpu, 9_997, |_, _, _, _| Err(io::Error::from_raw_os_error(libc::EACCES))).unwrap();
        assert_eq!(plan.engine, Engine::Timer(Clock::ThreadCpu));
        assert_eq!(notices.len(), 2, "{notices:?}");
        assert!(notices[0].contains("refused"), "{notices:?}");
        let tick = timer::kernel_tick_rate().unwrap();
        assert!(notices[1].contains(&format!("{tick:.0} samples per second")), "{notices:?}");
    }

    #[test]
    fn without_the_right_to_the_kernel_only_user_code_is_sampled() {
        let (plan, notices) = plan(Event::Cpu, 97, |_, _, user_only, _| match user_only {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EACCES)),
        })
        .unwrap();
        assert_eq!(plan.engine, Engine::Perf { event: PerfEvent::cpu_clock(), user_only: true });
        assert!(notices[0].contains("only allows sampling of user code"), "{notices:?}");
    }

    #[test]
    fn a_refused_perf_event_is_an_error_with_its_remedy() {
        let event = "page-faults".parse().unwrap();
        let error = plan(event, 97, |_, _, _, _| Err(io::Error::from_raw_os_error(libc::EPERM))).unwrap_err();
        assert!(error.to_string().contains("perf_event_paranoid"), "{error}");
        let error =
            plan(event, 97, |_, _, _, _| Err(io::Error::from_raw_os_error(libc::ENOENT))).unwrap_err();
        assert!(error.to_string().contains("no event `page-faults`"), "{error}");
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        for rate in [0, MAX_RATE + 1, u32::MAX] {
            assert!(matches!(plan(Event::Wall, rate, |_, _, _, _| Ok(())), Err(Error::Rate { .. })));
        }
    }
}

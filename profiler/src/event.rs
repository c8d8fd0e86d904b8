//! The events that can be sampled, and their names.

use std::fmt;
use std::str::FromStr;

use perf_event_open::event::hw::{Hardware, Op, OpResult, Type};
use perf_event_open::event::sw::Software;

/// What makes a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Time that the thread spends on a processor. Uses the perf event `cpu-clock`; where the kernel refuses
    /// that, a timer on the thread's CPU time, whose rate is bounded by the kernel's own tick. A
    /// single thread has that timer, too, if there is no file or no memory that can be locked left for its perf event.
    #[default]
    Cpu,
    /// Time on a processor, always by the timer.
    CpuTimer,
    /// Time that passes, whether the thread runs or waits.
    Wall,
    /// A perf event.
    Perf(PerfEvent),
}

/// A perf event of the kernel or of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfEvent(&'static Known);

/// A name and how to ask the kernel for it. The usual name comes first.
struct Known {
    names: &'static [&'static str],
    kind: fn() -> Kind,
}

/// An event as the kernel is asked for it.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Software(Software),
    Hardware(Hardware),
}

impl From<Software> for Kind {
    fn from(event: Software) -> Self {
        Self::Software(event)
    }
}

impl From<Hardware> for Kind {
    fn from(event: Hardware) -> Self {
        Self::Hardware(event)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Known").field(&self.names).finish()
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for Known {}

macro_rules! known {
    ($([$($name:literal),+] => $event:expr;)*) => {
        &[$(Known { names: &[$($name),+], kind: || $event.into() }),*]
    };
}

/// The names that `perf list` gives the kernel's generic events.
const KNOWN: &[Known] = known! {
    ["cpu-clock"] => Software::CpuClock;
    ["task-clock"] => Software::TaskClock;
    ["page-faults", "faults"] => Software::PageFault;
    ["minor-faults"] => Software::MinorPageFault;
    ["major-faults"] => Software::MajorPageFault;
    ["context-switches", "cs"] => Software::CtxSwitch;
    ["cpu-migrations", "migrations"] => Software::CpuMigration;
    ["alignment-faults"] => Software::AlignFault;
    ["emulation-faults"] => Software::EmuFault;
    ["cycles", "cpu-cycles"] => Hardware::CpuCycle;
    ["ref-cycles"] => Hardware::RefCpuCycle;
    ["bus-cycles"] => Hardware::BusCycle;
    ["instructions"] => Hardware::Instr;
    ["branches", "branch-instructions"] => Hardware::BranchInstr;
    ["branch-misses"] => Hardware::BranchMiss;
    ["cache-references"] => Hardware::CacheAccess;
    ["cache-misses"] => Hardware::CacheMiss;
    ["stalled-cycles-frontend", "idle-cycles-frontend"] => Hardware::FrontendStalledCycle;
    ["stalled-cycles-backend", "idle-cycles-backend"] => Hardware::BackendStalledCycle;
    ["L1-dcache-loads"] => Hardware::Cache(Type::L1d, Op::Read, OpResult::Access);
    ["L1-dcache-load-misses"] => Hardware::Cache(Type::L1d, Op::Read, OpResult::Miss);
    ["L1-dcache-stores"] => Hardware::Cache(Type::L1d, Op::Write, OpResult::Access);
    ["L1-icache-load-misses"] => Hardware::Cache(Type::L1i, Op::Read, OpResult::Miss);
    ["LLC-loads"] => Hardware::Cache(Type::Ll, Op::Read, OpResult::Access);
    ["LLC-load-misses"] => Hardware::Cache(Type::Ll, Op::Read, OpResult::Miss);
    ["dTLB-loads"] => Hardware::Cache(Type::Dtlb, Op::Read, OpResult::Access);
    ["dTLB-load-misses"] => Hardware::Cache(Type::Dtlb, Op::Read, OpResult::Miss);
    ["iTLB-load-misses"] => Hardware::Cache(Type::Itlb, Op::Read, OpResult::Miss);
    ["branch-load-misses"] => Hardware::Cache(Type::Bpu, Op::Read, OpResult::Miss);
};

impl PerfEvent {
    /// The usual name.
    pub fn name(self) -> &'static str {
        self.0.names[0]
    }

    /// Whether the event counts nanoseconds.
    pub fn is_time(self) -> bool {
        matches!(self.name(), "cpu-clock" | "task-clock")
    }

    pub(crate) fn kind(self) -> Kind {
        (self.0.kind)()
    }

    pub(crate) fn cpu_clock() -> Self {
        Self(&KNOWN[0])
    }
}

impl Event {
    /// The name by which the event is chosen and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuTimer => "cpu-timer",
            Self::Wall => "wall",
            Self::Perf(event) => event.name(),
        }
    }

    /// The names of all events, one for each.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ["cpu", "cpu-timer", "wall"].into_iter().chain(KNOWN.iter().map(|known| known.names[0]))
    }

    /// The event and unit as a profile states them.
    pub(crate) fn of_profile(self) -> flamewalk_profile::Event {
        match self {
            Self::Perf(event) if !event.is_time() => flamewalk_profile::Event::count(event.name()),
            _ => flamewalk_profile::Event::time(self.name()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no event of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown event `{name}`; known are {}", Event::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownEvent {
    /// The name.
    pub name: String,
}

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        match name {
            "cpu" => return Ok(Self::Cpu),
            "cpu-timer" => return Ok(Self::CpuTimer),
            "wall" => return Ok(Self::Wall),
            _ => {}
        }
        let known = KNOWN.iter().find(|known| known.names.contains(&name));
        known.map(|known| Self::Perf(PerfEvent(known))).ok_or_else(|| UnknownEvent { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for name in Event::names() {
            assert_eq!(name.parse::<Event>().map(Event::name), Ok(name));
        }
        assert_eq!("faults".parse::<Event>().map(Event::name), Ok("page-faults"));
        assert!("cpuu".parse::<Event>().is_err());
    }
}

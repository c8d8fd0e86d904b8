//! The guests that are stepped through, and what they must compute.
//!
//! That they compute it shows that stepping leaves them alone, and that they do what they are there for.

mod builtins;
mod calls;
mod components;
mod exceptions;
mod hosts;
mod metering;
mod traps;

use super::bench::Bench;
use super::matrix::{Feature, Metering};

/// A guest, or several, and a host that runs them.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Proposals without which it does not compile.
    pub(super) needs: &'static [Feature],
    /// Only for engines that meter so.
    pub(super) metering: Option<Metering>,
    pub(super) run: fn(&mut Bench),
}

const fn case(name: &'static str, needs: &'static [Feature], run: fn(&mut Bench)) -> Case {
    Case { name, needs, metering: None, run }
}

const fn metered(name: &'static str, metering: Metering, run: fn(&mut Bench)) -> Case {
    Case { name, needs: &[], metering: Some(metering), run }
}

/// All cases.
pub(super) const CORPUS: &[Case] = &[
    case("fibonacci", &[], calls::fibonacci),
    case("calls", &[], calls::calls),
    case("vectors", &[], calls::vectors),
    case("recursion deeper than the frame limit", &[], calls::deep),
    case("large frames", &[], calls::large_frames),
    case("tail calls", &[Feature::TailCalls], calls::tail_calls),
    case("references", &[Feature::TailCalls, Feature::FunctionReferences], calls::references),
    case("exceptions", &[Feature::Exceptions, Feature::Gc], exceptions::exceptions),
    case("traps", &[], traps::traps),
    case("traps below a guest", &[], traps::traps_below_a_guest),
    case("builtins", &[], builtins::builtins),
    case("atomics", &[Feature::SharedMemory], builtins::atomics),
    case("garbage collection", &[Feature::Gc], builtins::gc),
    case("host calls", &[], hosts::host_calls),
    case("host calls that call back", &[], hosts::call_back),
    case("two stores", &[], hosts::two_stores),
    case("start function", &[], hosts::start),
    case("strings between components", &[], components::strings),
    case("resources with a destructor", &[], components::resources),
    metered("fuel that runs out", Metering::Fuel, metering::fuel),
    metered("epoch that ends", Metering::Epochs, metering::epoch),
];

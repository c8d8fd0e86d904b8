//! Tests of the handler's parts through their public interfaces. The models of the shared structures under all
//! interleavings are in `tests/loom.rs`.
#![cfg(not(loom))]

use flamewalk_handler::activation::{Activation, ExitState, ExitStateLayout};

mod aarch64;
mod agreement;
mod cycles;
mod ends;
mod host;
mod hostile;
mod live_stack;
mod machine;
mod record;
mod recorder;
mod registry;
mod ring;
mod shape;
mod stores;
mod x86_64;
mod x86_assembler;
mod x86_interpreter;

/// An activation of a thread's own stack, to change what matters.
const ACTIVATION: Activation = Activation {
    address: 0,
    store: 1,
    exit: ExitState { exit_fp: 0, exit_pc: 0, entry_fp: 0 },
    stack_start: 0,
    entering_frame: 0,
    saved: ExitStateLayout { exit_fp: 0, exit_pc: 8, entry_fp: 16 },
    attached: true,
};

/// How many cases a property is tried on: fewer under Miri, which is a thousand times slower.
fn cases(natively: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: if cfg!(miri) { 2 } else { natively },
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}

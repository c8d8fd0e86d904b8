//! What the handler's own work costs, next to its floors:
//! `cargo bench -p flamewalk-handler --features owner --bench handler`, with `-- --check` to check the goals, with words
//! such as `-- depth` for some of the sections.
//!
//! The delivery of the signal is not part of anything here. Each walk, and each chase next to it, begins when the one
//! before it has ended, as behind a signal: processors would otherwise do several short chases at a time.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_imports, reason = "the guest's code is of x86-64")
)]

mod code;
mod ring;
mod stacks;

use std::process::ExitCode;

use flamewalk_measure::Run;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    Run::main(|run| {
        stacks::depth(run);
        stacks::activations(run);
        code::look_ups(run);
        code::publishing(run);
        ring::records(run);
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("the guest that is walked here has code of x86-64: nothing is measured on other processors");
    ExitCode::from(2)
}

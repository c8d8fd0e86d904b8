//! What the collector and the encoders take, next to what cannot be avoided:
//!
//! ```text
//! cargo bench --profile dev --workspace --bench collector [-- [SECTION…] [--check]]
//! ```
//!
//! With `--check` it exits with 1 if a goal is missed. It is built as tests are, with overflow checks.
//!
//! The stacks are real ones: SQLite's, recorded when the benchmark starts.

mod encoders;
mod hour;
mod real_run;
mod rig;
mod stacks;
mod throughput;

use std::process::ExitCode;

use flamewalk_measure::Run;
use peak_alloc::PeakAlloc;

/// What is in use, and the most that was.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    Run::main(|run| {
        let guest = stacks::Sqlite::record();
        println!("{}", guest.describe());
        throughput::by_stacks(run, &guest);
        throughput::by_depth(run, &guest);
        encoders::formats(run, &guest);
        hour::hour(run, &guest);
        hour::many_stacks(run, &guest);
        real_run::ratio(run, &guest);
    })
}

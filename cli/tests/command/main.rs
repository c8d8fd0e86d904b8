//! The command as its users see it: what goes in, what comes out, and what it says when that cannot be.

#[path = "../support/mod.rs"]
mod support;

mod annotate;
mod bad_input;
mod bad_profiles;
mod ci;
mod comparing;
mod events;
mod frames;
mod hangup;
mod input_output;
mod precompiled;
mod programs;
mod reading;
mod real_pairs;
mod renames;
mod replacing;
mod run_end;

use std::path::Path;
use std::process::Command;

use support::{Folded, Folder, Outcome, flamewalk_run};

/// Runs the command to its end.
fn finish(command: &mut Command) -> Outcome {
    Outcome::of(command.output().unwrap())
}

/// Profiles a run of `guest`, which has to end well.
fn profile(folder: &Folder, options: &[&str], guest: &Path, arguments: &[&str]) -> (Outcome, Folded) {
    let output = folder.path("profile.folded");
    let outcome = finish(flamewalk_run().args(options).arg("-o").arg(&output).arg(guest).args(arguments));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    (outcome, Folded::read(&output))
}

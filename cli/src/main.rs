//! The `flamewalk` command: a thin face on the library crates.
//!
//! Exit status of a run: the guest's own; 134 if it trapped; 130 if the run was interrupted; 125 if flamewalk itself
//! could not do what it was asked to, or saw no sample of a guest that succeeded (124 and below are left to guests, as
//! `env` and `timeout` do). Of everything else: 0 or 125, and 1 from `diff --fail-above` if something rose. It is the same
//! if nobody reads what the command says: the macros that panic then are not used.

#![deny(clippy::print_stderr, clippy::print_stdout)]

mod annotate;
mod arguments;
mod attach;
mod destination;
mod diff;
mod failure;
mod guest;
mod input;
mod interrupt;
mod json;
mod merge;
mod output;
mod progress;
mod report;
mod run;
mod sources;
mod terminal;
mod view;
mod wasi;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Printing fails only if the terminal is gone.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { ExitCode::SUCCESS } else { failure::EXIT_STATUS.into() };
        }
    };
    let result = match &arguments.command {
        Command::Run(run) => run::run(run),
        Command::Attach(attach) => attach::attach(attach),
        Command::Report(report) => report::report(report),
        Command::Annotate(annotate) => annotate::annotate(annotate),
        Command::Diff(diff) => diff::diff(diff),
        Command::Merge(merge) => merge::merge(merge),
        Command::View(view) => view::view(view),
    };
    result.unwrap_or_else(|failure| failure.report()).into()
}

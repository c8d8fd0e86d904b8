//! The `flamewalk` command: a thin face on the library crates.
//!
//! Exit status: the guest's own; 134 if it trapped; 130 if the run was interrupted; 125 if flamewalk itself
//! could not do what it was asked to (124 and below are left to guests, as `env` and `timeout` do).

mod arguments;
mod failure;
mod guest;
mod interrupt;
mod output;
mod progress;
mod run;
mod terminal;
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
    let Command::Run(run) = arguments.command;
    run::run(&run).unwrap_or_else(|failure| failure.report()).into()
}

//! What profilers cost the same guests, and how right they are: measures them in turn and writes the tables.

mod embedding;
mod error;
mod goals;
mod guest;
mod machine;
mod measurement;
mod peer;
mod plan;
mod statistics;
mod tables;
mod ticks;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, Subcommand, ValueEnum};

use nix::sys::resource::{Resource, setrlimit};

use error::Error;
use guest::Guest;
use measurement::{Measurement, Subject, measure};
use peer::Peer;

/// Measure what profilers of guests cost, how much they lose and how right they are.
///
/// Runs each guest under each profiler, in pairs of a run with and a run without it, and prints tables. Takes about 12
/// minutes for all; nothing else should run meanwhile. Numbers that the machine is too noisy for are not given.
#[derive(Parser)]
#[command(after_help = "Examples:
  examples/benchmarks/run                                    all, and writes docs/benchmarks.md
  examples/benchmarks/run --only-print --guests sqlite --peers flamewalk,perf --seconds 10")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Internal>,
    /// The guests
    #[arg(long, value_delimiter = ',')]
    guests: Vec<Guest>,
    /// The profilers
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// CPU time of the guest under each profiler; up to twice as much where that tells too little
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// The document whose tables are replaced; the tables are printed in any case
    #[arg(long)]
    write: Option<PathBuf>,
    /// Print the tables and leave the document as it is
    #[arg(long)]
    only_print: bool,
}

#[derive(Subcommand)]
enum Internal {
    /// Measures one guest under profilers that are compared in one process, and prints that as JSON.
    #[command(hide = true)]
    Measure(Subject),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benchmarks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    if let Some(Internal::Measure(subject)) = &arguments.command {
        limit_resources()?;
        let folder = tempfile::tempdir().map_err(Error::system("make a folder"))?;
        let measurements = measure(subject, folder.path())?;
        let text = serde_json::to_string(&measurements)
            .map_err(|error| Error::Unexpected { what: "a measurement", reason: error.to_string() })?;
        println!("{text}");
        return Ok(());
    }
    machine::check()?;
    let peers = chosen(&arguments.peers);
    if peers.contains(&Peer::Perf) {
        peer::check_perf()?;
    }
    let machine = machine::description();
    let plan = plan::plan(&chosen(&arguments.guests), &peers, arguments.seconds);
    let mut measurements = Vec::new();
    let mut failures = Vec::new();
    for (index, subject) in plan.iter().enumerate() {
        let what = tables::described(subject);
        eprint!("\r\x1b[K{}/{} {what}", index + 1, plan.len());
        let _ = std::io::stderr().flush();
        // What has failed is tried again once: a machine has its moments.
        match in_process_of_its_own(subject).or_else(|_| in_process_of_its_own(subject)) {
            Ok(results) => measurements.extend(results),
            Err(error) => failures.push(format!("{what}: {error}")),
        }
    }
    eprintln!("\r\x1b[K{} measurements", measurements.len());
    let text = tables::document(&machine, &measurements, &failures);
    println!("{text}");
    match arguments.write {
        Some(path) if !arguments.only_print => tables::replace_in(&path, &text),
        _ => Ok(()),
    }
}

fn chosen<T: ValueEnum + Copy>(given: &[T]) -> Vec<T> {
    if given.is_empty() { T::value_variants().to_vec() } else { given.to_vec() }
}

/// Some profilers keep something for each host call, of which there can be millions, or go through all that they have
/// again and again: they are to fail before the machine or its user's patience does. Memory that is only reserved, as
/// Wasmtime does for guests, does not count.
fn limit_resources() -> Result<(), Error> {
    for (resource, most) in [(Resource::RLIMIT_DATA, 4 << 30), (Resource::RLIMIT_CPU, 90)] {
        setrlimit(resource, most, most)
            .map_err(|error| Error::system("limit the resources of a measurement")(error.into()))?;
    }
    Ok(())
}

/// What a value is called on the command line.
fn argument(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Profilers leave traces in a process, and there is one flamewalk in each.
fn in_process_of_its_own(subject: &Subject) -> Result<Vec<Measurement>, Error> {
    let program = std::env::current_exe().map_err(Error::system("find this program"))?;
    let peers: Vec<String> = subject.peers.iter().map(argument).collect();
    let mut command = Command::new(program);
    command.args(["measure", "--guest", &argument(&subject.guest), "--peers", &peers.join(",")]);
    command.args(["--rate", &subject.rate.to_string(), "--seconds", &subject.seconds.to_string()]);
    if subject.asynchronous {
        command.arg("--asynchronous");
    }
    // Why a measurement failed has to fit into a line.
    command.env("RUST_BACKTRACE", "0");
    let output = command.stdin(Stdio::null()).output().map_err(Error::system("start a measurement"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(Error::Unexpected {
            what: "a measurement",
            reason: format!("{} ({reason})", output.status),
        });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::Unexpected { what: "a measurement", reason: error.to_string() })
}

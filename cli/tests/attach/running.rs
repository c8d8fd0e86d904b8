//! A flamewalk that is attached while the test does something to its target.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use flamewalk::profile::Statistics;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Folded, Folder, Outcome, cpu_ticks, flamewalk};
use crate::{Program, read_native};

impl Program {
    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Lets a program go on that waits for a line.
    pub(crate) fn go(&mut self) {
        self.tell("");
    }

    /// The next line that it prints, if it has printed nothing more until [`Program::start`] returned.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    /// CPU time that it has taken, in the kernel's ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        cpu_ticks(self.id())
    }

    /// Waits until it has taken so much more.
    pub(crate) fn wait_for_cpu_ticks(&self, ticks: u64) {
        let until = self.cpu_ticks() + ticks;
        while self.cpu_ticks() < until {
            std::thread::yield_now();
        }
    }
}

/// An attached flamewalk, from its first sample on.
pub(crate) struct Attached {
    child: Child,
    folded: PathBuf,
    native: PathBuf,
    _folder: Folder,
}

impl Attached {
    /// Attaches, and waits until the process is sampled.
    pub(crate) fn start(pid: u32, arguments: &[&str]) -> Self {
        Self::start_as(flamewalk("attach"), pid, arguments)
    }

    /// As [`Attached::start`], with a command that has been given its surroundings.
    pub(crate) fn start_as(mut command: Command, pid: u32, arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let (folded, native) = (folder.path("out.folded"), folder.path("out.flamewalk"));
        command.arg(pid.to_string()).arg("-o").arg(&folded).arg("-o").arg(&native).args(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut attached = Self { child, folded, native, _folder: folder };
        if let Err(status) = wait_until_sampling(&mut attached.child) {
            panic!("flamewalk ends with {status} before it samples: {:?}", attached.child.wait_with_output());
        }
        attached
    }

    /// Ends it as its user would.
    pub(crate) fn stop(self) -> (Folded, Outcome) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        self.end()
    }

    /// Waits until it has ended by itself, and reads what it has written.
    pub(crate) fn end(self) -> (Folded, Outcome) {
        let (folded, _, outcome) = self.end_with_statistics();
        (folded, outcome)
    }

    /// As [`Attached::end`], with what became of all ticks.
    pub(crate) fn end_with_statistics(self) -> (Folded, Statistics, Outcome) {
        let outcome = Outcome::of(self.child.wait_with_output().unwrap());
        assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
        (Folded::read(&self.folded), read_native(&self.native).metadata.statistics, outcome)
    }
}

/// Waits until a flamewalk samples: until the thread that does is there, which is started when the perf events are open.
/// The error is how it has ended instead.
pub(crate) fn wait_until_sampling(flamewalk: &mut Child) -> Result<(), ExitStatus> {
    let tasks = format!("/proc/{}/task", flamewalk.id());
    loop {
        let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
        let mut names = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
        // The kernel keeps 15 bytes of a name.
        if names.any(|name| name.trim_end() == "flamewalk-attac") {
            return Ok(());
        }
        if let Some(status) = flamewalk.try_wait().unwrap() {
            return Err(status);
        }
        std::thread::yield_now();
    }
}

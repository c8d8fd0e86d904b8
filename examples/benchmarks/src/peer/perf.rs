//! `perf record` on this process, with the map of functions that Wasmtime writes for it. It is switched on and off through
//! a pair of named pipes; `perf script` then makes names of addresses.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::Mode;
use nix::sys::time::TimeValLike;
use wasmtime::Store;

use super::{HOST, Outcome, Profiling, Run, sizes};
use crate::embedding::{Cost, State};
use crate::error::Error;

pub struct Perf {
    recorder: Child,
    control: File,
    answers: BufReader<File>,
    data: PathBuf,
}

/// What `perf` says of itself, or how to get it.
pub fn check() -> Result<(), Error> {
    let failure = |reason| Error::Program { program: "perf".to_owned(), reason };
    let advice = "install it (Debian: `apt-get install linux-perf`), or leave it out with `--peers`";
    let output = Command::new("perf").arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failure(format!("{}; {advice}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => Err(failure(format!("{error}; {advice}"))),
    }
}

impl Perf {
    pub fn new(rate: u32, folder: &Path) -> Result<Self, Error> {
        let (control, answers) = (folder.join("control"), folder.join("answers"));
        for pipe in [&control, &answers] {
            nix::unistd::mkfifo(pipe, Mode::S_IRWXU)
                .map_err(|error| Error::system("make a named pipe")(error.into()))?;
        }
        let data = folder.join("perf.data");
        let mut command = Command::new("perf");
        command.args([
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            &rate.to_string(),
            "--call-graph",
            "fp",
            "-D",
            "-1",
        ]);
        command
            .arg(format!("--control=fifo:{},{}", control.display(), answers.display()))
            .arg("-o")
            .arg(&data);
        command.args(["-p", &std::process::id().to_string()]).stdout(Stdio::null()).stderr(Stdio::piped());
        let recorder = command
            .spawn()
            .map_err(|error| Error::Program { program: "perf".to_owned(), reason: error.to_string() })?;
        // For reading as well, so that opening does not wait for the other side, which may never come.
        let open = |path: &Path| File::options().read(true).write(true).open(path).map_err(Error::file(path));
        let (control, answers) = (open(&control)?, BufReader::new(open(&answers)?));
        Ok(Self { recorder, control, answers, data })
    }

    /// Tells `perf` to do something and waits until it has.
    fn tell(&mut self, command: &str) -> Result<(), Error> {
        self.control
            .write_all(format!("{command}\n").as_bytes())
            .map_err(Error::system("write to perf's pipe"))?;
        if let Ok(Some(status)) = self.recorder.try_wait() {
            let reason = format!("it ended ({status}): {}", self.complaint());
            return Err(Error::Program { program: "perf record".to_owned(), reason });
        }
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(Error::system("read from perf's pipe"))?;
        Ok(())
    }

    fn complaint(&mut self) -> String {
        self.recorder
            .stderr
            .take()
            .and_then(|stderr| std::io::read_to_string(stderr).ok())
            .unwrap_or_default()
    }
}

impl Profiling for Perf {
    fn profile(&mut self, store: &mut Store<State>, run: Run<'_>) -> Result<Cost, Error> {
        self.tell("enable")?;
        let cost = run(store);
        self.tell("disable")?;
        cost
    }

    fn finish(mut self: Box<Self>, folder: &Path) -> Result<Outcome, Error> {
        let start = Instant::now();
        self.tell("stop")?;
        let complaint = self.complaint();
        self.recorder.wait().map_err(Error::system("wait for perf"))?;
        let recording = children_seconds()?;
        let script = Command::new("perf")
            .args(["script", "-F", "tid,ip,sym,dso", "-i"])
            .arg(&self.data)
            .output()
            .map_err(|error| Error::Program {
                program: "perf script".to_owned(),
                reason: error.to_string(),
            })?;
        let text = folder.join("perf.txt");
        std::fs::write(&text, &script.stdout).map_err(Error::file(&text))?;
        let seconds = start.elapsed().as_secs_f64();

        let map = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
        let bytes = sizes([self.data.as_path(), map.as_path()]);
        // The map is not below our folder, where it would go by itself.
        let _ = std::fs::remove_file(&map);
        let thread = nix::unistd::gettid().to_string();
        let output = String::from_utf8_lossy(&script.stdout);
        let stacks: Vec<_> = output.split("\n\n").filter_map(|sample| stack(sample, &thread)).collect();
        if stacks.is_empty() {
            let reason = format!("no samples; it says: {complaint}");
            return Err(Error::Program { program: "perf record".to_owned(), reason });
        }
        let taken = stacks.len() as u64;
        Ok(Outcome { stacks, taken, lost: None, elsewhere: recording, bytes, seconds })
    }
}

/// CPU time of processes that were started here and have ended.
fn children_seconds() -> Result<f64, Error> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|error| Error::system("read the CPU time of perf")(error.into()))?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

/// The guest's frames of one sample of `perf script`: a line that names the thread, then frames, youngest first, each an
/// address, a name and in parentheses what it is in. Whatever native code is youngest becomes one frame of the host.
fn stack(sample: &str, thread: &str) -> Option<(Vec<String>, f64)> {
    let mut lines = sample.trim_start_matches('\n').lines();
    if lines.next()?.trim() != thread {
        return None;
    }
    let frames = lines.filter_map(|line| {
        let (address, rest) = line.trim().split_once(' ')?;
        let (name, file) = rest.rsplit_once(" (")?;
        // The kernel interrupts anything.
        let is_kernel = address.len() == 16 && address.starts_with("ffff");
        (!is_kernel).then_some((name, file.trim_end_matches(')')))
    });
    // Wasmtime's trampolines are in its map as well, as are functions without a name.
    let guest = |(name, file): (&str, &str)| {
        let is_function = !name.starts_with("wasm[") || name.contains("::function[");
        (file.ends_with(".map") && is_function).then(|| name.to_owned())
    };
    let mut frames = frames.peekable();
    let is_host = frames.peek().is_some_and(|frame| guest(*frame).is_none());
    let mut names: Vec<String> = frames.filter_map(guest).collect();
    if names.is_empty() {
        return None;
    }
    names.reverse();
    names.extend(is_host.then(|| HOST.to_owned()));
    Some((names, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_perf_script() {
        let sample = "4711 \n\
            \tffffffff82000000 asm_sysvec_apic_timer_interrupt ([kernel.kallsyms])\n\
            \t    7f10 straight (/tmp/perf-4711.map)\n\
            \t    7f20 run (/tmp/perf-4711.map)\n\
            \t    7f30 wasm[0]::array_to_wasm_trampoline[6] (/tmp/perf-4711.map)\n\
            \t      55 main (/usr/bin/host)\n";
        assert_eq!(stack(sample, "4711").unwrap().0, ["run", "straight"]);
        let in_host = sample.replace("\t    7f10", "\t      56 burn (/usr/bin/host)\n\t    7f10");
        assert_eq!(stack(&in_host, "4711").unwrap().0, ["run", "straight", HOST]);
        let nameless = sample.replace("straight", "wasm[0]::function[7]");
        assert_eq!(stack(&nameless, "4711").unwrap().0, ["run", "wasm[0]::function[7]"]);
        assert!(stack(sample, "1").is_none());
    }
}

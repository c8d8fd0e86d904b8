//! Runs the command and reads what it leaves.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What has been left by a process that ended. Whatever else a test is about: nothing panics.
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Self { status: output.status.code(), stdout, stderr }
    }
}

/// What a process leaves that is about to end. One that does not end is killed, and fails the test.
pub(crate) fn end_of(mut child: Child) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Outcome::of(child.wait_with_output().unwrap())
}

/// Both ends of a terminal: that of whoever looks at it, which hangs up when it is dropped, and that of its processes.
pub(crate) fn terminal() -> (File, File) {
    let (mut seen, mut used) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are written to memory that is ours, and the size is read; nothing else is given.
    let result = unsafe { libc::openpty(&mut seen, &mut used, null_mut(), null_mut(), &size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    for end in [seen, used] {
        // SAFETY: a flag of a descriptor that is open. No process that is started has to inherit it by chance, since a terminal
        // hangs up only when nobody has its other end any more.
        assert_eq!(unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
    }
    // SAFETY: both are open, and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(seen).into(), OwnedFd::from_raw_fd(used).into()) }
}

/// `flamewalk run`, without standard input.
pub(crate) fn flamewalk_run() -> Command {
    flamewalk("run")
}

/// Has processes that are started from now on heed the signals that the tests send. What a script starts in the background ignores
/// SIGINT, and so did the command, so that tests waited for ever for its end.
pub(crate) fn heed_signals() {
    for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGTERM] {
        // SAFETY: the default needs no handler.
        assert_ne!(unsafe { libc::signal(signal, libc::SIG_DFL) }, libc::SIG_ERR);
    }
}

/// One of the command's subcommands, without standard input.
pub(crate) fn flamewalk(subcommand: &str) -> Command {
    heed_signals();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flamewalk"));
    command.arg(subcommand).stdin(Stdio::null());
    command
}

/// CPU time of a process in the kernel's ticks of 10 ms.
pub(crate) fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The second field, the name in parentheses, is the only one that can hold spaces.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Nanoseconds that the hypervisor has taken from all processors while something was to run there. Ticks go on meanwhile, and a
/// thread's CPU time does not.
pub(crate) fn stolen() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    stat.split_whitespace().nth(8).unwrap().parse::<u64>().unwrap() * 10_000_000
}

/// `unshare`, with the rights that it takes to mount: an ordinary user has them in a user namespace only.
pub(crate) fn unshare(options: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--mount").args(options);
    command
}

/// A place for files.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Folded stacks, each with its weight, oldest frame first.
#[derive(Debug)]
pub(crate) struct Folded(pub(crate) Vec<(Vec<String>, u64)>);

impl Folded {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let line = |line: &str| {
            let (stack, weight) = line.rsplit_once(' ').unwrap();
            (stack.split(';').map(str::to_owned).collect(), weight.parse().unwrap())
        };
        Self(text.lines().map(line).collect())
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, weight)| weight).sum()
    }

    /// The share of the weight whose stack is as wanted, from 0 to 1.
    pub(crate) fn share(&self, wanted: impl Fn(&[String]) -> bool) -> f64 {
        let weight: u64 = self.0.iter().filter(|(stack, _)| wanted(stack)).map(|(_, weight)| weight).sum();
        weight as f64 / self.total() as f64
    }
}

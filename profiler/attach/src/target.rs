//! The process that is profiled: what it is, what it has mapped, its memory and its threads.
//!
//! Everything is read through the kernel and nothing is written; the process is not stopped.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use object::elf;
use procfs::ProcError;
use procfs::process::{MMPermissions, MMapPath, Process};

use crate::Error;

/// A process that may be profiled.
#[derive(Debug)]
pub(crate) struct Target {
    pid: i32,
    process: Process,
    /// When it was started, in the kernel's own unit: tells it from a later process of the same number.
    started: u64,
    /// Its root directory, held open: its files have names below it even when the process has ended.
    root: Arc<File>,
}

/// A range of the process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) range: Range<usize>,
    pub(crate) is_executable: bool,
    pub(crate) is_writable: bool,
    pub(crate) offset: u64,
    /// The file, as the process's own mount namespace names it.
    pub(crate) path: Option<PathBuf>,
    pub(crate) is_vdso: bool,
}

impl Target {
    /// # Errors
    ///
    /// If there is no such process, or it is none that can be profiled.
    pub(crate) fn open(pid: i32) -> Result<Self, Error> {
        let unreadable = |error| unreadable(pid, error);
        let process = Process::new(pid).map_err(unreadable)?;
        let status = process.status().map_err(unreadable)?;
        if status.tgid != pid {
            return Err(Error::IsThread { pid, process: status.tgid });
        }
        let stat = process.stat().map_err(unreadable)?;
        // A thread of the kernel and a process that is only waited for have no program.
        if matches!(stat.state, 'Z' | 'X') || stat.vsize == 0 {
            return Err(Error::NoProgram { pid });
        }
        let refused = |action| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::PermissionDenied => Error::NotOurs { pid, owner: status.ruid },
                io::ErrorKind::NotFound => Error::NoProgram { pid },
                _ => Error::System { action, source },
            }
        };
        let mut header = [0; 20];
        File::open(proc_path(pid, "exe"))
            .and_then(|mut file| file.read_exact(&mut header))
            .map_err(refused("read the process's program"))?;
        check_program(pid, &header)?;
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(proc_path(pid, "root"))
            .map_err(refused("open the process's root directory"))?;
        Ok(Self { pid, process, started: stat.starttime, root: Arc::new(root) })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Where the process's own files are found, whatever its mount namespace, for as long as [`Target::root`] is held.
    pub(crate) fn file(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What the paths of [`Target::file`] go through.
    pub(crate) fn root(&self) -> Arc<File> {
        Arc::clone(&self.root)
    }

    /// Whether it has ended; its number can belong to another one by now.
    pub(crate) fn has_ended(&self) -> bool {
        match self.process.stat() {
            Ok(stat) => stat.starttime != self.started || matches!(stat.state, 'Z' | 'X'),
            Err(error) => matches!(unreadable(self.pid, error), Error::NoProcess { .. }),
        }
    }

    /// Its command line, program first.
    pub(crate) fn command(&self) -> Vec<String> {
        self.process.cmdline().unwrap_or_default()
    }

    /// The threads that it has now.
    pub(crate) fn threads(&self) -> Result<Vec<i32>, Error> {
        let tasks = std::fs::read_dir(proc_path(self.pid, "task"))
            .map_err(|error| unreadable(self.pid, ProcError::Io(error, None)))?;
        let threads = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        Ok(threads.collect())
    }

    /// A thread's name, which the kernel keeps to 15 bytes.
    pub(crate) fn thread_name(&self, thread: i32) -> Option<String> {
        let name = std::fs::read(proc_path(self.pid, &format!("task/{thread}/comm"))).ok()?;
        Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned()).filter(|name| !name.is_empty())
    }

    /// What it has mapped, by address.
    pub(crate) fn mappings(&self) -> Result<Vec<Mapping>, Error> {
        let maps = self.process.maps().map_err(|error| match error {
            ProcError::PermissionDenied(_) => self.memory_refused(),
            error => unreadable(self.pid, error),
        })?;
        let mapping = |map: procfs::process::MemoryMap| {
            Some(Mapping {
                range: usize::try_from(map.address.0).ok()?..usize::try_from(map.address.1).ok()?,
                is_executable: map.perms.contains(MMPermissions::EXECUTE),
                is_writable: map.perms.contains(MMPermissions::WRITE),
                offset: map.offset,
                is_vdso: map.pathname == MMapPath::Vdso,
                path: match map.pathname {
                    MMapPath::Path(path) => Some(path),
                    _ => None,
                },
            })
        };
        Ok(maps.into_iter().filter_map(mapping).collect())
    }

    /// Fills the buffer with the process's memory from `address` on.
    pub(crate) fn read(&self, address: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        // One call copies 2 GiB at most, and less if it ends in memory that is not there.
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let remote =
                [RemoteIoVec { base: address.checked_add(done).ok_or(Errno::EFAULT)?, len: rest.len() }];
            match process_vm_readv(Pid::from_raw(self.pid), &mut [IoSliceMut::new(rest)], &remote)? {
                0 => return Err(Errno::EFAULT),
                read => done += read,
            }
        }
        Ok(())
    }

    /// As [`Target::read`], as a copy. The range is one that is mapped, so that its length is no surprise.
    pub(crate) fn copy(&self, range: Range<usize>) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; range.len()];
        self.read(range.start, &mut bytes).map(|()| bytes)
    }

    /// The error for memory that the kernel does not let us read.
    pub(crate) fn memory_refused(&self) -> Error {
        let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let ptrace_scope = scope.ok().and_then(|scope| scope.trim().parse().ok());
        Error::MemoryRefused { pid: self.pid, ptrace_scope }
    }
}

fn proc_path(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// What it means that the kernel does not tell something of a process.
fn unreadable(pid: i32, error: ProcError) -> Error {
    let source = match error {
        ProcError::NotFound(_) => return Error::NoProcess { pid },
        ProcError::Io(error, _) => error,
        error => io::Error::other(error),
    };
    match source.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT) => Error::NoProcess { pid },
        _ => Error::System { action: "read what the kernel tells of the process", source },
    }
}

/// Checks the beginning of the file that the process runs.
fn check_program(pid: i32, header: &[u8; 20]) -> Result<(), Error> {
    let machine = u16::from_le_bytes([header[18], header[19]]);
    let what = match (header[4], machine) {
        (elf::ELFCLASS64, elf::EM_X86_64) => return Ok(()),
        (elf::ELFCLASS32, _) => "a 32-bit program".to_owned(),
        (_, elf::EM_AARCH64) => "a program for AArch64".to_owned(),
        (_, machine) => format!("a program for another machine (number {machine} of ELF)"),
    };
    Err(Error::OtherMachine { pid, what })
}

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
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use object::elf;
use procfs::process::{MMPermissions, MMapPath, Process, Stat};
use procfs::{FromRead, ProcError};

use crate::Error;

/// A process that may be profiled.
#[derive(Debug)]
pub(crate) struct Target {
    pid: i32,
    /// A thread of it that lived when it was last asked for something: the main thread, if that has not ended before others. What
    /// belongs to all threads is not shown through one that has ended.
    living: AtomicI32,
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
        let started = process.stat().map_err(unreadable)?.starttime;
        // A thread of the kernel and a process that is only waited for have no program.
        let living = living_thread(pid).map_err(unreadable)?.ok_or(Error::NoProgram { pid })?;
        if stat(pid, living).map_err(unreadable)?.vsize == 0 {
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
        File::open(proc_path(living, "exe"))
            .and_then(|mut file| file.read_exact(&mut header))
            .map_err(refused("read the process's program"))?;
        check_program(pid, &header)?;
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(proc_path(living, "root"))
            .map_err(refused("open the process's root directory"))?;
        Ok(Self { pid, living: AtomicI32::new(living), started, root: Arc::new(root) })
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
        let is_other = |stat: Stat| stat.starttime != self.started;
        let is_missing = |error| matches!(unreadable(self.pid, error), Error::NoProcess { .. });
        stat(self.pid, self.pid).map_or_else(is_missing, is_other)
            || living_thread(self.pid).map_or_else(is_missing, |living| living.is_none())
    }

    /// Whether one of its threads has not ended.
    pub(crate) fn has_thread(&self, thread: i32) -> bool {
        lives(self.pid, thread)
    }

    /// Asks for what belongs to all threads through one that lives: through another one if that has ended.
    fn ask<T, E>(&self, mut question: impl FnMut(i32) -> Result<T, E>) -> Result<T, E> {
        // Nothing is ordered by this: any thread that lives will do.
        let thread = self.living.load(Ordering::Relaxed);
        let answer = question(thread);
        if answer.is_ok() {
            return answer;
        }
        match living_thread(self.pid) {
            Ok(Some(other)) if other != thread => {
                self.living.store(other, Ordering::Relaxed);
                question(other)
            }
            _ => answer,
        }
    }

    /// Its command line, program first.
    pub(crate) fn command(&self) -> Vec<String> {
        self.ask(|thread| Process::new(thread)?.cmdline()).unwrap_or_default()
    }

    /// The threads that it has now.
    pub(crate) fn threads(&self) -> Result<Vec<i32>, Error> {
        threads(self.pid).map_err(|error| unreadable(self.pid, error))
    }

    /// A thread's name, which the kernel keeps to 15 bytes.
    pub(crate) fn thread_name(&self, thread: i32) -> Option<String> {
        let name = std::fs::read(proc_path(self.pid, &format!("task/{thread}/comm"))).ok()?;
        Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned()).filter(|name| !name.is_empty())
    }

    /// What it has mapped, by address.
    pub(crate) fn mappings(&self) -> Result<Vec<Mapping>, Error> {
        // A thread that has ended has none.
        let maps = |thread| match Process::new(thread)?.maps()? {
            maps if maps.0.is_empty() => Err(ProcError::NotFound(None)),
            maps => Ok(maps),
        };
        let maps = self.ask(maps).map_err(|error| match error {
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
            let read =
                |thread| process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(&mut *rest)], &remote);
            match self.ask(read)? {
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

fn threads(pid: i32) -> Result<Vec<i32>, ProcError> {
    let tasks = std::fs::read_dir(proc_path(pid, "task")).map_err(|error| ProcError::Io(error, None))?;
    Ok(tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
}

fn stat(pid: i32, thread: i32) -> Result<Stat, ProcError> {
    Stat::from_file(proc_path(pid, &format!("task/{thread}/stat")))
}

fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X')
}

/// Whether a thread has not ended. It comes and goes while it is looked at.
fn lives(pid: i32, thread: i32) -> bool {
    stat(pid, thread).is_ok_and(|stat| !has_ended(&stat))
}

/// A thread that has not ended, the main thread if it has not. The main thread of a process that runs can have ended.
fn living_thread(pid: i32) -> Result<Option<i32>, ProcError> {
    if !has_ended(&stat(pid, pid)?) {
        return Ok(Some(pid));
    }
    Ok(threads(pid)?.into_iter().find(|thread| lives(pid, *thread)))
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

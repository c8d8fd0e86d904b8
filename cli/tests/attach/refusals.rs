//! The table of refusals in `profiler/docs/attach.md`: each message is produced, word for word, and no other is in the table.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flamewalk_guests::wasmtime_command;
use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    sock_filter, sock_fprog,
};
use nix::sys::resource::{Resource, setrlimit};

use crate::running::wait_until_sampling;
use crate::support::{Folder, flamewalk, unshare};
use crate::{NEWEST, Program, components, damaged, embedding};

/// A user that nothing else runs as: what it may lock is its own.
const USER: u32 = 65533;

/// The table, and which rows have been seen.
struct Table {
    rows: Vec<String>,
    seen: BTreeSet<usize>,
}

impl Table {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiler/docs/attach.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("| `flamewalk: the process is not profiled: …` |").nth(1).unwrap();
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `"));
        Self {
            rows: rows.map(|row| row.split_once('`').unwrap().0.to_owned()).collect(),
            seen: BTreeSet::new(),
        }
    }

    /// That flamewalk has refused with the message of the row that begins so, with these values for its capital words.
    fn check(&mut self, row: &str, values: &[(&str, u32)], output: &Output) {
        let mut found = self.rows.iter().enumerate().filter(|(_, text)| text.starts_with(row));
        let ((index, text), None) = (found.next().unwrap(), found.next()) else {
            panic!("several rows begin with {row}")
        };
        let words = text.split_inclusive(' ').map(|word| {
            let name = word.trim_end_matches([' ', ';', ',']);
            let value = values.iter().find(|(key, _)| *key == name);
            value.map_or(word.to_owned(), |(_, value)| word.replacen(name, &value.to_string(), 1))
        });
        let expected = format!("flamewalk: the process is not profiled: {}", words.collect::<String>());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let mut rest = stderr.trim_end();
        for (part, text) in expected.split('…').enumerate() {
            let place = rest.find(text).filter(|place| part > 0 || *place == 0);
            let place = place.unwrap_or_else(|| panic!("{stderr} is not {expected}"));
            rest = &rest[place + text.len()..];
        }
        assert!(rest.is_empty() || expected.ends_with('…'), "{stderr} is more than {expected}");
        self.seen.insert(index);
    }
}

fn attach(pid: u32) -> Command {
    let mut command = flamewalk("attach");
    command.arg(pid.to_string()).args(["-d", "100ms"]);
    command
}

/// Has the kernel answer a system call with this error, in a command and what it starts.
fn refuse(command: &mut Command, system_call: libc::c_long, errno: i32) {
    let instruction = |code: u32, k: u32, jt, jf| sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // The number of the system call, which comes first.
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, system_call as u32, 0, 1),
        instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0),
    ];
    let install = move || {
        let mut filter = filter;
        let program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the first call has no pointers; the second one's are to the program above, which it copies.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            ]
        };
        if results == [0, 0] { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the function makes two system calls and nothing else.
    unsafe { command.pre_exec(install) };
}

/// Attaches where the kernel's settings are these, whatever those of this machine are, and a system call is refused.
fn attach_refused(pid: u32, settings: &[(&str, &str)], system_call: libc::c_long, errno: i32) -> Output {
    let folder = Folder::new();
    for (name, value) in settings {
        let path = folder.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    let mut command = unshare(&["sh", "-c", r#"mount --bind "$1" /proc/sys/kernel && shift && exec "$@""#]);
    let attach = attach(pid);
    command.arg("sh").arg(folder.path("")).arg(attach.get_program()).args(attach.get_args());
    refuse(&mut command, system_call, errno);
    command.output().unwrap()
}

#[test]
fn every_refusal_of_the_table() {
    let mut table = Table::read();
    let program = embedding(NEWEST, &[]);
    let pid = program.id();
    let of_program = [("PID", pid)];

    let none = i32::MAX as u32;
    table.check("there is no process", &[("PID", none)], &attach(none).output().unwrap());
    let thread = other_thread(pid);
    table.check("PID is a thread", &[("PID", thread), ("P", pid)], &attach(thread).output().unwrap());
    let ended = Command::new("true").spawn().map(Program).unwrap();
    wait_for_end(ended.id());
    let pid_of_ended = [("PID", ended.id())];
    table.check("process PID runs no program", &pid_of_ended, &attach(ended.id()).output().unwrap());
    let (_folder, small) = program_of_32_bits();
    let pid_of_small = [("PID", small.id())];
    table.check("process PID runs a 32-bit program", &pid_of_small, &attach(small.id()).output().unwrap());
    let sleeper = Command::new("sleep").arg("1000").spawn().map(Program).unwrap();
    let pid_of_sleeper = [("PID", sleeper.id())];
    table.check("process PID has no code", &pid_of_sleeper, &attach(sleeper.id()).output().unwrap());
    let damaged = damaged::program("alone");
    table.check("no code", &[("PID", damaged.id())], &attach(damaged.id()).output().unwrap());

    let read = libc::SYS_process_vm_readv;
    let with_yama = [("yama/ptrace_scope", "1\n")];
    let refused = attach_refused(pid, &with_yama, read, libc::EPERM);
    table.check(
        "the memory of process PID may not be read: kernel.yama.ptrace_scope is 1",
        &of_program,
        &refused,
    );
    let open = libc::SYS_perf_event_open;
    let refused = attach_refused(pid, &[("perf_event_paranoid", "3\n")], open, libc::EACCES);
    table.check("perf events are refused (…): kernel.perf_event_paranoid", &[], &refused);
    for errno in [libc::EPERM, libc::ENOSYS] {
        let refused = attach_refused(pid, &[], read, errno);
        let row = "the memory of process PID may not be read: the kernel refuses it";
        table.check(row, &of_program, &refused);
        let refused = attach_refused(pid, &[("perf_event_paranoid", "2\n")], open, errno);
        table.check("perf events are refused (…): a container's", &[], &refused);
    }

    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() as u32;
    let needed = [("PID", pid), ("T", threads), ("N", (2 * threads + 1) * cpus() + 64)];
    table.check("N files have to be open", &needed, &too_few_files(pid));

    of_a_user_without_rights(&mut table);
    let missing: Vec<_> = (0..table.rows.len()).filter(|row| !table.seen.contains(row)).collect();
    assert!(missing.is_empty(), "nothing has produced row {missing:?} of {:?}", table.rows);
}

/// What root can do all the same: as another user if this is root, and on a process of root's otherwise.
fn of_a_user_without_rights(table: &mut Table) {
    let is_root = nix::unistd::geteuid().is_root();
    let folder = tempfile::tempdir().unwrap();
    // The mask of new files does not hold for this.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // Where this user can read them.
    std::fs::copy(env!("CARGO_BIN_EXE_flamewalk"), folder.path().join("flamewalk")).unwrap();
    std::fs::copy(wasmtime_command(components::COMMAND).unwrap(), folder.path().join("wasmtime")).unwrap();
    std::fs::copy(crate::guest(), folder.path().join("guest.wasm")).unwrap();
    let as_user = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(folder.path().join(program));
        command.args(arguments).current_dir(folder.path()).env("HOME", folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if is_root {
            command.uid(USER).gid(USER);
        }
        limit(&mut command, Resource::RLIMIT_MEMLOCK, 0);
        command
    };
    let roots = if is_root { std::process::id() } else { 1 };
    let refused = as_user("flamewalk", &["attach", &roots.to_string()]).output().unwrap();
    table.check("process PID belongs to user U", &[("PID", roots), ("U", 0)], &refused);

    let target = as_user("wasmtime", &["run", "guest.wasm", "--rounds", "1000000"]).spawn().unwrap();
    let target = Program(target);
    let pid = target.id().to_string();
    // Each takes as much as it gets of what this user may lock for perf events.
    let mut attached = Vec::new();
    let refused = loop {
        assert!(attached.len() < 32, "this user may lock any amount of memory");
        let mut attach = as_user("flamewalk", &["attach", &pid, "--wait", "-d", "60"]);
        let mut next = Program(attach.stderr(Stdio::piped()).spawn().unwrap());
        if wait_until_sampling(&mut next.0).is_err() {
            let mut stderr = Vec::new();
            next.0.stderr.as_mut().unwrap().read_to_end(&mut stderr).unwrap();
            break Output { status: next.0.wait().unwrap(), stdout: Vec::new(), stderr };
        }
        attached.push(next);
    };
    table.check("no memory can be locked", &[], &refused);
}

/// Attaches with each limit on open files that is too low, and returns what is said where perf events are too many.
///
/// What is opened besides those needs files, too. It once was that a process whose list of mappings could not be read for want
/// of a file was said not to exist, and one whose state could not be read was said to have ended.
fn too_few_files(pid: u32) -> Output {
    let mut told = None;
    for files in 4.. {
        let mut command = attach(pid);
        limit(&mut command, Resource::RLIMIT_NOFILE, files);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("there is no") && !stderr.contains("has ended"), "{files}: {stderr}");
        match output.status.code() {
            Some(0) => break,
            _ if stderr.contains("files have to be open") => told = Some(output),
            // Busy machines leave it no time.
            _ if stderr.contains("took no CPU time") => {}
            // The dynamic linker says so by itself if it cannot open a library.
            _ => assert!(
                stderr.contains("Too many open files") || stderr.contains("shared libraries"),
                "{stderr}"
            ),
        }
    }
    told.expect("there is a limit at which perf events are too many")
}

pub(crate) fn limit(command: &mut Command, resource: Resource, value: u64) {
    // SAFETY: the function makes one system call and nothing else.
    unsafe { command.pre_exec(move || setrlimit(resource, value, value).map_err(io::Error::from)) };
}

pub(crate) fn cpus() -> u32 {
    let is_cpu = |name: String| name.strip_prefix("cpu").is_some_and(|rest| rest.parse::<u32>().is_ok());
    let online = |path: PathBuf| std::fs::read_to_string(path.join("online")).is_ok_and(|text| text == "0\n");
    let cpus = std::fs::read_dir("/sys/devices/system/cpu").unwrap().map(Result::unwrap);
    let cpus = cpus.filter(|entry| is_cpu(entry.file_name().into_string().unwrap()) && !online(entry.path()));
    cpus.count() as u32
}

fn other_thread(pid: u32) -> u32 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).max().unwrap()
}

/// Waits until a child has ended. It is not waited for as a child, so that its number stays its own.
fn wait_for_end(pid: u32) {
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
}

/// A program for a 32-bit x86 that does nothing but `pause`, made by hand.
fn program_of_32_bits() -> (Folder, Program) {
    const BASE: u32 = 0x0804_8000;
    // mov eax, SYS_pause; int 0x80; jmp to the first.
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let words = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    // An executable for EM_386, whose code follows its headers of 52 and 32 bytes.
    halves(&mut file, &[2, 3]);
    words(&mut file, &[1, BASE + 84, 52, 0, 0]);
    halves(&mut file, &[52, 32, 1, 0, 0, 0]);
    // One segment, all of the file, readable and executable.
    let size = 84 + code.len() as u32;
    words(&mut file, &[1, 0, BASE, BASE, size, size, 5, 0x1000]);
    file.extend(code);
    let folder = Folder::new();
    let path = folder.path("small");
    std::fs::write(&path, file).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let program =
        Command::new(&path).spawn().expect("the kernel runs 32-bit programs (CONFIG_IA32_EMULATION)");
    (folder, Program(program))
}

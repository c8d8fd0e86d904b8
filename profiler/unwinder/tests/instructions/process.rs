//! A process that has loaded a library, as code to unwind by; and the libraries that are tried.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flamewalk_unwinder::instructions::Code;

/// A process that has loaded a library and waits.
pub(crate) struct Process {
    child: Child,
    memory: File,
    executable: Vec<Range<u64>>,
    read_only: Vec<Range<u64>>,
    /// Where the library begins.
    pub(crate) base: u64,
}

impl Process {
    /// Loads the library. There is no other way to have its pointers bound than to let the loader do it.
    pub(crate) fn load(library: &Path) -> Self {
        let script =
            "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print('ready', flush=True); sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script, library.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        let library = std::fs::canonicalize(library).unwrap();
        let (mut executable, mut read_only, mut start) = (Vec::new(), Vec::new(), None);
        for line in maps.lines().filter(|line| !line.ends_with("[vsyscall]")) {
            let (range, rest) = line.split_once(' ').unwrap();
            let (first, end) = range.split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let range = address(first)..address(end);
            if line.ends_with(library.to_str().unwrap()) {
                start.get_or_insert(range.start);
            }
            if rest.starts_with("r-x") {
                executable.push(range.clone());
            }
            if rest.starts_with("r-") {
                read_only.push(range);
            }
        }
        let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
        Self { child, memory, executable, read_only, base: start.unwrap() }
    }

    /// Its code, with nothing copied yet.
    pub(crate) fn code(&self) -> ProcessCode<'_> {
        ProcessCode { process: self, copies: HashMap::new() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The code of a process.
pub(crate) struct ProcessCode<'a> {
    process: &'a Process,
    /// By the start of the mapping.
    copies: HashMap<u64, Vec<u8>>,
}

impl Code for ProcessCode<'_> {
    fn bytes(&mut self, address: u64) -> &[u8] {
        let Some(range) = self.process.executable.iter().find(|range| range.contains(&address)) else {
            return &[];
        };
        let copy = self.copies.entry(range.start).or_insert_with(|| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.process.memory.read_exact_at(&mut bytes, range.start).unwrap();
            bytes
        });
        &copy[(address - range.start) as usize..]
    }

    fn read_only(&mut self, address: u64, buffer: &mut [u8]) -> Option<()> {
        let range = self.process.read_only.iter().find(|range| range.contains(&address))?;
        let is_inside = buffer.len() as u64 <= range.end - address;
        is_inside.then(|| self.process.memory.read_exact_at(buffer, address).unwrap())
    }
}

/// The libraries that every test process of Python's has.
pub(crate) fn libraries() -> Vec<PathBuf> {
    if let Ok(chosen) = std::env::var("FLAMEWALK_UNWIND_LIBRARIES") {
        return chosen.split(':').map(PathBuf::from).collect();
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5).map(PathBuf::from));
    let is_library =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    let mut libraries: Vec<PathBuf> = paths.filter(is_library).collect();
    libraries.dedup();
    libraries
}

/// So many cases of each library, unless it is said otherwise.
pub(crate) fn cases(otherwise: usize) -> usize {
    std::env::var("FLAMEWALK_UNWIND_CASES").map_or(otherwise, |cases| cases.parse().unwrap())
}

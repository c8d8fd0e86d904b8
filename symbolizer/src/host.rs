//! Native functions of the host: names, inlined functions and source lines from its executable and its shared
//! libraries.
//!
//! These files are trusted as far as the program that was loaded from them is: a damaged one costs names and time. What is
//! no file, in the place of one, is not read.
//! They are read only if an address asks for them. Debug information is used if the file itself has it,
//! uncompressed; otherwise its symbols, and without these the file's name and an offset in it. Addresses of the process
//! never show.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::Context;
use gimli::{DwarfSections, EndianSlice, LittleEndian};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::name::display_name;
use crate::{SourceLocation, SymbolFrame};

/// The name of code that belongs to no file.
const UNKNOWN: &str = "(unknown host code)";

/// Larger files are not read, in bytes: a browser's with all of its debug information is smaller.
const LARGEST: u64 = 8 << 30;

/// An executable or shared library as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostObject {
    /// What it is called.
    pub name: Arc<str>,
    /// Where to read it; `None` for what the kernel provides, which has no file.
    pub path: Option<PathBuf>,
    /// What its own addresses differ by from those that it was loaded at.
    pub bias: usize,
    /// The addresses of its code.
    pub code: Vec<Range<usize>>,
    /// The linker's identification of the loaded file, to tell whether it was replaced since.
    pub build_id: Option<Vec<u8>>,
}

impl HostObject {
    /// Whether its code lies at `address`.
    pub fn contains(&self, address: usize) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }
}

/// An address in native code of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostAddress {
    /// The address of an instruction that was about to be executed.
    Instruction(usize),
    /// The address that a call returns to.
    ReturnAddress(usize),
}

/// Turns addresses in native code of the host into frames.
#[derive(Default)]
pub struct HostSymbolizer {
    objects: Vec<HostObject>,
    known: HashMap<HostAddress, Vec<SymbolFrame>>,
    notices: Vec<String>,
}

impl HostSymbolizer {
    /// A symbolizer for the code of `objects`.
    pub fn new(objects: Vec<HostObject>) -> Self {
        Self { objects, ..Self::default() }
    }

    /// What to tell the user about the host's symbols, complete for the addresses looked up so far.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The frames at an address, innermost inlined function first; the last one is the function whose code runs. Never
    /// empty. The module of a frame is the file that it comes from.
    ///
    /// Reads the file each time that an address is new: [`HostSymbolizer::look_up`] does so once for many.
    pub fn frames(&mut self, address: HostAddress) -> &[SymbolFrame] {
        self.look_up([address]);
        self.known.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Finds the frames at all of these addresses. Each file is read once and let go of.
    pub fn look_up(&mut self, addresses: impl IntoIterator<Item = HostAddress>) {
        let mut by_object: BTreeMap<usize, Vec<HostAddress>> = BTreeMap::new();
        for address in addresses {
            let Entry::Vacant(new) = self.known.entry(address) else { continue };
            let object = self.objects.iter().position(|object| object.contains(address.instruction()));
            new.insert(match object {
                Some(index) => {
                    by_object.entry(index).or_default().push(address);
                    Vec::new()
                }
                None => vec![frame("".into(), UNKNOWN.into())],
            });
        }
        for (object, addresses) in by_object {
            let Some(object) = self.objects.get(object) else { continue };
            let bytes = read(object).unwrap_or_else(|problem| {
                let notice = format!("no symbols of the host's {}: {problem}", object.name);
                if !self.notices.contains(&notice) {
                    self.notices.push(notice);
                }
                Vec::new()
            });
            let file = object::File::parse(&*bytes).ok();
            let sections = file.as_ref().map(sections);
            let symbols = file.as_ref().map(symbols).unwrap_or_default();
            let debug = sections.as_ref().and_then(debug_information);
            let file = File { name: &object.name, debug, symbols };
            for address in addresses {
                // In the file's own addresses.
                let own = address.instruction().wrapping_sub(object.bias) as u64;
                self.known.insert(address, file.frames(own));
            }
        }
    }
}

impl HostAddress {
    /// An address inside the instruction that runs.
    const fn instruction(self) -> usize {
        match self {
            Self::Instruction(address) => address,
            Self::ReturnAddress(address) => address.wrapping_sub(1),
        }
    }
}

impl std::fmt::Debug for HostSymbolizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HostSymbolizer").field("objects", &self.objects).finish_non_exhaustive()
    }
}

fn frame(module: Arc<str>, name: Arc<str>) -> SymbolFrame {
    SymbolFrame {
        name,
        module,
        location: None,
        module_index: None,
        function_index: None,
        bytecode_offset: None,
        inlined: false,
    }
}

type Reader<'data> = EndianSlice<'data, LittleEndian>;

/// The bytes of the file that an object was loaded from.
fn read(object: &HostObject) -> Result<Vec<u8>, String> {
    let Some(path) = &object.path else { return Ok(Vec::new()) };
    let bytes = read_file(path).map_err(|error| error.to_string())?;
    let file = object::File::parse(&*bytes).map_err(|error| error.to_string())?;
    match (&object.build_id, file.build_id()) {
        (Some(loaded), Ok(Some(found))) if loaded != found => {
            Err("the file was replaced since it was loaded".to_owned())
        }
        _ => Ok(bytes),
    }
}

/// Reads a file. What is in its place by now can be a pipe that nobody writes to, or a device that has no end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(io::Error::other(format!("it is no file of at most {} GiB", LARGEST >> 30)));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(metadata.len()).map_err(io::Error::other)?)?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sections<'data>(file: &object::File<'data>) -> DwarfSections<Cow<'data, [u8]>> {
    let load = |id: gimli::SectionId| -> Result<_, Infallible> {
        let section = file.section_by_name(id.name());
        Ok(section.and_then(|section| section.uncompressed_data().ok()).unwrap_or_default())
    };
    match DwarfSections::load(load) {
        Ok(sections) => sections,
    }
}

fn debug_information<'data>(sections: &'data DwarfSections<Cow<'_, [u8]>>) -> Option<Context<Reader<'data>>> {
    Context::from_dwarf(sections.borrow(|section| Reader::new(section, LittleEndian))).ok()
}

/// What is used of a file.
struct File<'data> {
    name: &'data Arc<str>,
    debug: Option<Context<Reader<'data>>>,
    symbols: Vec<Symbol<'data>>,
}

/// A function in a file's symbol table.
struct Symbol<'data> {
    start: u64,
    /// 0 if it is not known.
    size: u64,
    name: &'data str,
}

impl File<'_> {
    fn frames(&self, address: u64) -> Vec<SymbolFrame> {
        let mut frames = self.debug_frames(address);
        match (frames.last_mut(), self.symbol(address)) {
            // The symbol has the whole path of a function where the debug information may have its last part only.
            (Some(outermost), Some(symbol)) => outermost.name = display_name(symbol).into(),
            (Some(_), None) => {}
            (None, Some(symbol)) => frames.push(frame(self.name.clone(), display_name(symbol).into())),
            (None, None) => {
                frames.push(frame(self.name.clone(), format!("{}+{address:#x}", self.name).into()));
            }
        }
        frames
    }

    fn symbol(&self, address: u64) -> Option<&str> {
        let after = self.symbols.partition_point(|symbol| symbol.start <= address);
        let symbol = self.symbols.get(after.checked_sub(1)?)?;
        (symbol.size == 0 || address - symbol.start < symbol.size).then_some(symbol.name)
    }

    fn debug_frames(&self, address: u64) -> Vec<SymbolFrame> {
        let mut frames = Vec::new();
        let found = self.debug.as_ref().map(|debug| debug.find_frames(address).skip_all_loads());
        let Some(Ok(mut found)) = found else { return frames };
        while let Ok(Some(next)) = found.next() {
            let Some(function) = &next.function else { continue };
            let Ok(name) = function.raw_name() else { continue };
            let location = next.location.and_then(|location| {
                Some(SourceLocation {
                    file: location.file?.into(),
                    line: location.line.unwrap_or(0),
                    column: location.column.unwrap_or(0),
                })
            });
            let name = display_name(&name).into();
            frames.push(SymbolFrame { location, inlined: true, ..frame(self.name.clone(), name) });
        }
        if let Some(outermost) = frames.last_mut() {
            outermost.inlined = false;
        }
        frames
    }
}

/// The functions of a file, sorted by address, one for each address.
fn symbols<'data>(file: &object::File<'data>) -> Vec<Symbol<'data>> {
    let mut symbols: Vec<Symbol<'data>> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| {
            Some(Symbol { start: symbol.address(), size: symbol.size(), name: symbol.name().ok()? })
        })
        .collect();
    // Of several names the plainest: `write` rather than `__write`.
    let underscores = |name: &str| name.bytes().take_while(|byte| *byte == b'_').count();
    symbols.sort_by(|left, right| {
        let key = |symbol: &Symbol| (symbol.start, underscores(symbol.name), symbol.name.len());
        key(left).cmp(&key(right)).then_with(|| left.name.cmp(right.name))
    });
    symbols.dedup_by_key(|symbol| symbol.start);
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: u32 = line!() + 3;
    #[inline(never)]
    fn known() -> u32 {
        std::hint::black_box(LINE)
    }

    /// This test's own executable as it is loaded.
    fn own() -> HostObject {
        let path = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let lines = maps.lines().filter(|line| line.ends_with(path.to_str().unwrap()));
        let ranges: Vec<(Range<usize>, bool)> = lines
            .map(|line| {
                let (range, rest) = line.split_once(' ').unwrap();
                let (start, end) = range.split_once('-').unwrap();
                let address = |text| usize::from_str_radix(text, 16).unwrap();
                (address(start)..address(end), rest.starts_with("r-x"))
            })
            .collect();
        HostObject {
            name: "this-test".into(),
            path: Some(path),
            bias: ranges[0].0.start,
            code: ranges.into_iter().filter(|(_, code)| *code).map(|(range, _)| range).collect(),
            build_id: None,
        }
    }

    fn address() -> usize {
        std::hint::black_box(known as fn() -> u32) as usize
    }

    /// A profile of a program whose library had become a pipe since was never finished.
    #[test]
    fn what_is_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe, "/dev/zero".into(), folder.path().into()] {
            let error = read(&HostObject { path: Some(path), ..own() }).unwrap_err();
            assert!(error.contains("no file"), "{error}");
        }
    }

    #[test]
    fn own_functions_have_names_and_lines() {
        assert_eq!(known(), LINE);
        let mut symbolizer = HostSymbolizer::new(vec![own()]);
        let frames = symbolizer.frames(HostAddress::Instruction(address())).to_vec();
        let known = frames.last().unwrap();
        assert_eq!(&*known.name, "flamewalk_symbolizer::host::tests::known");
        assert_eq!((&*known.module, known.inlined), ("this-test", false));
        let location = known.location.as_ref().unwrap();
        assert!(location.file.ends_with("symbolizer/src/host.rs") && location.line == LINE, "{location:?}");
        // What returns to a function's first instruction was called by the function before it.
        let before = symbolizer.frames(HostAddress::ReturnAddress(address())).last().unwrap();
        assert_ne!(before.name, known.name);
        assert_eq!(symbolizer.notices(), [""; 0]);
    }

    #[test]
    fn without_a_file_there_are_offsets_and_one_notice() {
        let offset = address() - own().bias;
        let missing = HostObject { path: Some("/nonexistent".into()), ..own() };
        let replaced = HostObject { build_id: Some(vec![0; 20]), ..own() };
        for (object, why) in
            [(missing, "No such file"), (replaced, "the file was replaced since it was loaded")]
        {
            let mut symbolizer = HostSymbolizer::new(vec![object]);
            for more in [0, 1, 2] {
                let frames = symbolizer.frames(HostAddress::Instruction(address() + more));
                let names: Vec<_> = frames.iter().map(|frame| frame.name.to_string()).collect();
                assert_eq!(names, [format!("this-test+{:#x}", offset + more)]);
            }
            let [notice] = symbolizer.notices() else { panic!("{:?}", symbolizer.notices()) };
            assert!(
                notice.starts_with("no symbols of the host's this-test: ") && notice.contains(why),
                "{notice}"
            );
        }
    }

    #[test]
    fn code_of_the_kernel_has_offsets_without_a_notice() {
        let mut symbolizer = HostSymbolizer::new(vec![HostObject { path: None, ..own() }]);
        let [frame] = symbolizer.frames(HostAddress::Instruction(address())) else { panic!("one frame") };
        assert_eq!(*frame.name, format!("this-test+{:#x}", address() - own().bias));
        assert_eq!(symbolizer.notices(), [""; 0]);
    }

    #[test]
    fn code_of_no_file_is_unknown() {
        let mut symbolizer = HostSymbolizer::new(vec![own()]);
        for address in [HostAddress::Instruction(0), HostAddress::ReturnAddress(0)] {
            let [frame] = symbolizer.frames(address) else { panic!("one frame") };
            assert_eq!(&*frame.name, UNKNOWN);
        }
    }
}

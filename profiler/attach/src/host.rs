//! The native code of the target: its program and its libraries, as they lie in its memory.
//!
//! Unwind information is copied from the memory that it is loaded in, so that a file that was replaced since does no harm.
//! Symbols are read later from the file, as the target's own mount namespace names it, if it is still the same file.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use flamewalk_symbolizer::{CodeImage, HostObject};
use flamewalk_unwinder::instructions::Code;
use flamewalk_unwinder::{HostCode, LoadedObject, UnwindInfo};
use object::LittleEndian;
use object::elf::{FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::target::{Mapping, Target};

/// More program headers than any linker writes.
const MAX_HEADERS: usize = 256;
/// More than any library's segments have; what claims more is no library.
const MAX_SEGMENT: usize = 1 << 31;

/// An object, with its unwind information if it has some.
type Loaded = (HostObject, Option<UnwindInfo>);

/// What is loaded, each object read once.
#[derive(Debug, Default)]
pub(crate) struct HostObjects {
    /// By the address of its first byte, with the path that tells whether it is still the same; `None` for a mapping that is no
    /// object.
    known: HashMap<(usize, Option<PathBuf>), Option<Loaded>>,
    /// Where the objects' files are mapped and cannot be written to. The loader makes it so for pointers once it has put them
    /// there.
    read_only: Vec<Range<usize>>,
}

impl HostObjects {
    /// All native code that is mapped now.
    pub(crate) fn load(&mut self, target: &Target, mappings: &[Mapping]) -> HostCode {
        let mut objects = Vec::new();
        let mut known = HashMap::new();
        for (index, first) in mappings.iter().enumerate() {
            if !(first.is_vdso || first.path.is_some() && first.offset == 0) {
                continue;
            }
            let key = (first.range.start, first.path.clone());
            let mappings = &mappings[index..];
            // The loader maps a library as a whole, and then its code over that.
            if !of_object(mappings).any(|mapping| mapping.is_executable) {
                continue;
            }
            let object = match self.known.remove(&key) {
                Some(object) => object,
                None => read_object(target, mappings),
            };
            objects.extend(object.clone());
            known.insert(key, object);
        }
        self.known = known;
        self.read_only = self.read_only_mappings(mappings);
        HostCode::new(objects)
    }

    /// Whether the objects are read-only just where they were when they were loaded.
    pub(crate) fn are_as_loaded(&self, mappings: &[Mapping]) -> bool {
        self.read_only == self.read_only_mappings(mappings)
    }

    fn read_only_mappings(&self, mappings: &[Mapping]) -> Vec<Range<usize>> {
        let objects = self.known.iter().filter(|(_, loaded)| loaded.is_some());
        let paths: HashSet<&PathBuf> = objects.filter_map(|((_, path), _)| path.as_ref()).collect();
        let is_object = |mapping: &&Mapping| mapping.path.as_ref().is_some_and(|path| paths.contains(path));
        let read_only = mappings.iter().filter(is_object).filter(|mapping| !mapping.is_writable);
        read_only.map(|mapping| mapping.range.clone()).collect()
    }
}

/// The mappings that can be of the same object as the first one.
fn of_object(mappings: &[Mapping]) -> impl Iterator<Item = &Mapping> {
    let path = mappings.first().and_then(|first| first.path.as_ref());
    mappings.iter().take_while(move |mapping| mapping.path.is_none() || mapping.path.as_ref() == path)
}

/// The object whose first byte is that of the first mapping; `None` if there is none, or it has no code.
fn read_object(target: &Target, mappings: &[Mapping]) -> Option<Loaded> {
    let first = mappings.first()?;
    let start = first.range.start;
    let mut header = [0; size_of::<FileHeader64<LittleEndian>>()];
    target.read(start, &mut header).ok()?;
    let header = FileHeader64::<LittleEndian>::parse(&header[..]).ok()?;
    // Images of Wasmtime's are files of the same form, and no libraries.
    if header.e_ident.os_abi == CodeImage::OS_ABI {
        return None;
    }
    let (count, size) =
        (usize::from(header.e_phnum.get(LittleEndian)), size_of::<ProgramHeader64<LittleEndian>>());
    if count > MAX_HEADERS || usize::from(header.e_phentsize.get(LittleEndian)) != size {
        return None;
    }
    let table = start.checked_add(usize::try_from(header.e_phoff.get(LittleEndian)).ok()?)?;
    let bytes = target.copy(table..table.checked_add(count * size)?).ok()?;
    let (headers, _) = object::pod::slice_from_bytes::<ProgramHeader64<LittleEndian>>(&bytes, count).ok()?;
    let headers: Vec<libc::Elf64_Phdr> = headers.iter().map(to_native).collect();
    let load = headers.iter().find(|header| header.p_type == libc::PT_LOAD)?;
    let page = page_size();
    let bias = start.wrapping_sub(load.p_vaddr as usize & !(page - 1));
    let read = |range: Range<usize>| {
        if range.len() > MAX_SEGMENT {
            return None;
        }
        target.copy(range).ok().map(Cow::Owned)
    };
    let loaded = LoadedObject { bias, headers: &headers, read };
    let path = first.path.as_ref().map(|path| target.file(path));
    let name = match &first.path {
        Some(path) => path.file_name()?.to_string_lossy().into_owned(),
        None => "linux-vdso.so.1".to_owned(),
    };
    let object =
        HostObject { name: name.into(), path, bias, code: loaded.code(), build_id: loaded.build_id() };
    if object.code.is_empty() {
        return None;
    }
    let unwind_info = loaded.unwind_info();
    Some((object, unwind_info))
}

fn to_native(header: &ProgramHeader64<LittleEndian>) -> libc::Elf64_Phdr {
    libc::Elf64_Phdr {
        p_type: header.p_type(LittleEndian),
        p_flags: header.p_flags(LittleEndian),
        p_offset: header.p_offset(LittleEndian),
        p_vaddr: header.p_vaddr(LittleEndian),
        p_paddr: header.p_paddr.get(LittleEndian),
        p_filesz: header.p_filesz(LittleEndian),
        p_memsz: header.p_memsz(LittleEndian),
        p_align: header.p_align(LittleEndian),
    }
}

/// The size of a page, in bytes.
pub(crate) fn page_size() -> usize {
    use nix::unistd::{SysconfVar, sysconf};
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

/// The target's native code, copied as it is asked for.
#[derive(Debug)]
pub(crate) struct TargetCode {
    target: Arc<Target>,
    code: Vec<Range<usize>>,
    read_only: Vec<Range<usize>>,
    /// By their first address.
    chunks: HashMap<usize, Vec<u8>>,
}

impl TargetCode {
    /// Bytes that are copied at once.
    const CHUNK: usize = 1 << 14;
    /// Bytes that the next chunk has, too: more than any instruction, which can lie across.
    const OVERLAP: usize = 16;

    /// The code of `objects`, which were loaded as `host`.
    pub(crate) fn new(target: Arc<Target>, host: &HostCode, objects: &HostObjects) -> Self {
        let code = host.objects().iter().flat_map(|object| object.code.clone()).collect();
        Self { target, code, read_only: objects.read_only.clone(), chunks: HashMap::new() }
    }
}

impl Code for TargetCode {
    fn bytes(&mut self, address: u64) -> &[u8] {
        let Ok(address) = usize::try_from(address) else { return &[] };
        let Some(code) = self.code.iter().find(|range| range.contains(&address)) else { return &[] };
        let start = code.start + (address - code.start) / Self::CHUNK * Self::CHUNK;
        let end = start.saturating_add(Self::CHUNK + Self::OVERLAP).min(code.end);
        // What cannot be read is empty.
        let read = || self.target.copy(start..end).unwrap_or_default();
        let chunk = self.chunks.entry(start).or_insert_with(read);
        chunk.get(address - start..).unwrap_or(&[])
    }

    fn read_only(&mut self, address: u64, buffer: &mut [u8]) -> Option<()> {
        let start = usize::try_from(address).ok()?;
        let end = start.checked_add(buffer.len())?;
        self.read_only.iter().find(|range| range.start <= start && end <= range.end)?;
        self.target.read(start, buffer).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    static VARIABLE: AtomicU64 = AtomicU64::new(0x1234_5678);
    /// The loader writes it, and makes it read-only then.
    static POINTER: &AtomicU64 = &VARIABLE;

    fn address_of<T>(place: &'static T) -> u64 {
        std::ptr::from_ref(place).addr() as u64
    }

    fn word(code: &mut TargetCode, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        code.read_only(address, &mut word).map(|()| u64::from_le_bytes(word))
    }

    fn own_process() -> (Arc<Target>, Vec<Mapping>) {
        let target = Arc::new(Target::open(std::process::id() as i32).unwrap());
        let mappings = target.mappings().unwrap();
        (target, mappings)
    }

    fn load(objects: &mut HostObjects, target: &Arc<Target>, mappings: &[Mapping]) -> TargetCode {
        let host = objects.load(target, mappings);
        TargetCode::new(Arc::clone(target), &host, objects)
    }

    /// What a variable held when it was looked at was taken for what a call through it had called.
    #[test]
    fn what_can_be_written_to_is_not_read() {
        let (target, mappings) = own_process();
        let mut code = load(&mut HostObjects::default(), &target, &mappings);
        assert_eq!(word(&mut code, address_of(&POINTER)), Some(address_of(&VARIABLE)));
        assert_eq!(word(&mut code, address_of(&VARIABLE)), None);
        assert_eq!(word(&mut code, u64::MAX - 3), None);
    }

    #[test]
    fn a_table_can_be_read_to_the_end_of_its_mapping() {
        let (target, mappings) = own_process();
        let mut code = load(&mut HostObjects::default(), &target, &mappings);
        let end = code.read_only.first().unwrap().end as u64;
        assert_eq!(code.read_only(end - 4, &mut [0; 4]), Some(()));
        assert_eq!(code.read_only(end - 3, &mut [0; 4]), None);
    }

    /// Such a library once stayed unknown for ever.
    #[test]
    fn a_library_that_is_being_loaded_is_known_when_it_is() {
        let (target, loaded) = own_process();
        let is_library = |mapping: &Mapping| {
            mapping.path.as_ref().is_some_and(|path| path.to_string_lossy().contains("libc.so"))
        };
        let mut loading = loaded.clone();
        loading.iter_mut().filter(|mapping| is_library(mapping)).for_each(|part| part.is_executable = false);
        let mut objects = HostObjects::default();
        let [before, after] = [loading, loaded].map(|mappings| objects.load(&target, &mappings));
        assert_eq!(before.objects().len() + 1, after.objects().len());
    }

    #[test]
    fn pointers_are_read_once_the_loader_has_made_them_read_only() {
        let (target, loaded) = own_process();
        let pointer = address_of(&POINTER);
        let mut loading = loaded.clone();
        let mapping = loading.iter_mut().find(|mapping| mapping.range.contains(&(pointer as usize))).unwrap();
        mapping.is_writable = true;
        let mut objects = HostObjects::default();
        let mut code = load(&mut objects, &target, &loading);
        assert_eq!(word(&mut code, pointer), None);
        assert!(objects.are_as_loaded(&loading));
        assert!(!objects.are_as_loaded(&loaded));
        let mut code = load(&mut objects, &target, &loaded);
        assert_eq!(word(&mut code, pointer), Some(address_of(&VARIABLE)));
        assert!(objects.are_as_loaded(&loaded));
    }
}

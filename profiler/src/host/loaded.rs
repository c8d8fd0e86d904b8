//! The executable and the libraries that are loaded, and their unwind information.
//!
//! All that is known of them comes from what the dynamic loader has in memory; no file is read. Unwind information is
//! copied: its library can be unloaded at any time after the loader has shown it.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use flamewalk_symbolizer::HostObject;
use framehop::{ExplicitModuleSectionInfo, Module};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};

/// A copy of an object's unwind information. Addresses are the object's own.
pub(super) struct UnwindInfo {
    header: Arc<[u8]>,
    header_address: u64,
    frames: Arc<[u8]>,
    frames_address: u64,
}

impl UnwindInfo {
    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame_hdr(self.header_address).set_eh_frame(self.frames_address)
    }

    pub(super) fn module(&self, object: &HostObject, code: &Range<usize>) -> Module<Arc<[u8]>> {
        // `framehop` keeps addresses as 32 bits from the base.
        let base = code.start.wrapping_sub(object.bias) as u64;
        let range = |start: u64, bytes: &[u8]| Some(start..start.wrapping_add(bytes.len() as u64));
        Module::new(
            object.name.to_string(),
            code.start as u64..code.end as u64,
            code.start as u64,
            ExplicitModuleSectionInfo {
                base_svma: base,
                eh_frame_svma: range(self.frames_address, &self.frames),
                eh_frame: Some(Arc::clone(&self.frames)),
                eh_frame_hdr_svma: range(self.header_address, &self.header),
                eh_frame_hdr: Some(Arc::clone(&self.header)),
                ..ExplicitModuleSectionInfo::default()
            },
        )
    }

    /// Adds the addresses of the functions that it describes. Those through which signal handlers return are left out:
    /// how to unwind them is written in terms that `framehop` does not know.
    pub(super) fn add_covered(&self, object: &HostObject, covered: &mut Vec<Range<usize>>) {
        let bases = self.bases();
        let section = EhFrame::new(&self.frames, LittleEndian);
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(entry) = entry else { continue };
            let Ok(entry) = entry.parse(EhFrame::cie_from_offset) else { continue };
            let start = (entry.initial_address() as usize).wrapping_add(object.bias);
            let end = start.saturating_add(entry.len() as usize);
            if start < end && !entry.is_signal_trampoline() && object.contains(start) {
                covered.push(start..end);
            }
        }
    }
}

/// The executable and the libraries that are loaded, each with its unwind information if it has some.
pub(super) fn loaded_objects() -> Vec<(HostObject, Option<UnwindInfo>)> {
    let mut objects = Vec::<(HostObject, Option<UnwindInfo>)>::new();
    // SAFETY: `visit` is called with what it expects, and only until this returns.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut objects).cast()) };
    objects
}

/// # Safety
///
/// For `dl_iterate_phdr` only, with a vector of objects as its `data`.
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let (info, objects) = unsafe { (&*info, &mut *data.cast::<Vec<(HostObject, Option<UnwindInfo>)>>()) };
    // SAFETY: the loader keeps name and headers until this returns.
    let (name, headers) = unsafe {
        let name = (!info.dlpi_name.is_null()).then(|| CStr::from_ptr(info.dlpi_name));
        (name, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The executable comes first, without a name; the link leads to it even if its file was replaced.
    let (path, name) = match objects.is_empty() {
        true => (Some("/proc/self/exe".into()), std::env::current_exe().unwrap_or_default()),
        // What has no path is the kernel's own (`linux-vdso.so.1`).
        false => (name.contains('/').then(|| PathBuf::from(&name)), name.into()),
    };
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let loaded = LoadedObject { bias: info.dlpi_addr as usize, headers };
    let object = HostObject {
        name: name.into(),
        path,
        bias: loaded.bias,
        code: loaded.code(),
        build_id: loaded.build_id(),
    };
    let unwind_info = loaded.unwind_info();
    objects.push((object, unwind_info));
    0
}

/// An object while the loader shows it: its segments stay mapped meanwhile.
struct LoadedObject<'a> {
    bias: usize,
    headers: &'a [libc::Elf64_Phdr],
}

impl LoadedObject<'_> {
    fn segments(&self, kind: u32) -> impl Iterator<Item = &libc::Elf64_Phdr> {
        self.headers.iter().filter(move |header| header.p_type == kind)
    }

    /// The addresses of a segment in memory.
    fn range(&self, header: &libc::Elf64_Phdr) -> Range<usize> {
        let start = self.bias.wrapping_add(header.p_vaddr as usize);
        start..start.saturating_add(header.p_memsz as usize)
    }

    fn code(&self) -> Vec<Range<usize>> {
        let code = self.segments(libc::PT_LOAD).filter(|header| header.p_flags & libc::PF_X != 0);
        code.map(|header| self.range(header)).collect()
    }

    /// The bytes from `start` to the end of the readable segment that holds it, or to `end` if that comes first.
    fn bytes(&self, start: usize, end: usize) -> Option<&[u8]> {
        let segment = self
            .segments(libc::PT_LOAD)
            .filter(|header| header.p_flags & libc::PF_R != 0)
            .map(|header| self.range(header))
            .find(|range| range.contains(&start))?;
        let length = end.min(segment.end).checked_sub(start)?;
        // SAFETY: inside a readable segment of an object that stays loaded while `self` lives. Unwind information and
        // notes are in segments that nothing writes to.
        Some(unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), length) })
    }

    fn unwind_info(&self) -> Option<UnwindInfo> {
        let header = self.range(self.segments(libc::PT_GNU_EH_FRAME).next()?);
        let header_address = header.start.wrapping_sub(self.bias) as u64;
        let header = self.bytes(header.start, header.end)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(header_address);
        let parsed = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(frames_address) = parsed.eh_frame_ptr() else { return None };
        let frames = self.bytes(self.bias.wrapping_add(frames_address as usize), usize::MAX)?;
        let frames = frames.get(..frames_length(frames)).unwrap_or(frames);
        Some(UnwindInfo { header: header.into(), header_address, frames: frames.into(), frames_address })
    }

    /// The contents of the note that the linker identifies a file by.
    fn build_id(&self) -> Option<Vec<u8>> {
        const GNU_BUILD_ID: u32 = 3;
        self.segments(libc::PT_NOTE).find_map(|header| {
            let range = self.range(header);
            let mut notes = self.bytes(range.start, range.end)?;
            loop {
                let (sizes, rest) = notes.split_first_chunk::<12>()?;
                let word = |at: usize| Some(u32::from_le_bytes(*sizes.get(at..)?.first_chunk()?));
                let (name, contents, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
                let aligned = |size: usize| size.checked_next_multiple_of(4);
                let (found_name, rest) = rest.split_at_checked(aligned(name)?)?;
                if kind == GNU_BUILD_ID && found_name.starts_with(b"GNU\0") {
                    return rest.get(..contents).map(<[u8]>::to_vec);
                }
                notes = rest.get(aligned(contents)?..)?;
            }
        })
    }
}

/// The length of an `.eh_frame` section, which ends with an entry of length 0, in bytes.
fn frames_length(bytes: &[u8]) -> usize {
    let mut at = 0usize;
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let length = u32::from_le_bytes(*length);
        // Entries of 4 GiB and more have another form, which no compiler makes.
        if length == 0 || length == u32::MAX {
            return at.saturating_add(4);
        }
        at = at.saturating_add(4).saturating_add(length as usize);
    }
    bytes.len()
}

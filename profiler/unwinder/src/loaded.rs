//! What is known of an executable or a library from how it lies in memory: its code, its unwind information, its
//! identification.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use flamewalk_symbolizer::HostObject;
use framehop::{ExplicitModuleSectionInfo, Module};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};

/// A copy of an object's unwind information. Addresses are the object's own.
#[derive(Clone)]
pub struct UnwindInfo {
    header: Arc<[u8]>,
    header_address: u64,
    frames: Arc<[u8]>,
    frames_address: u64,
}

impl UnwindInfo {
    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame_hdr(self.header_address).set_eh_frame(self.frames_address)
    }

    pub(crate) fn module(&self, object: &HostObject, code: &Range<usize>) -> Module<Arc<[u8]>> {
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

    /// Adds the addresses of the functions that it describes. Those through which signal handlers return are kept apart:
    /// how to unwind them is written in terms that `framehop` does not know.
    pub(crate) fn add_covered(
        &self,
        object: &HostObject,
        covered: &mut Vec<Range<usize>>,
        signal_trampolines: &mut Vec<Range<usize>>,
    ) {
        let bases = self.bases();
        let section = EhFrame::new(&self.frames, LittleEndian);
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(entry) = entry else { continue };
            let Ok(entry) = entry.parse(EhFrame::cie_from_offset) else { continue };
            let start = (entry.initial_address() as usize).wrapping_add(object.bias);
            let end = start.saturating_add(entry.len() as usize);
            if start < end && object.contains(start) {
                let ranges =
                    if entry.is_signal_trampoline() { &mut *signal_trampolines } else { &mut *covered };
                ranges.push(start..end);
            }
        }
    }
}

impl std::fmt::Debug for UnwindInfo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("UnwindInfo").field("bytes", &self.frames.len()).finish_non_exhaustive()
    }
}

/// An executable or a library in the memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct LoadedObject<'a, R> {
    /// What its own addresses differ by from those that it was loaded at.
    pub bias: usize,
    /// Its program headers.
    pub headers: &'a [libc::Elf64_Phdr],
    /// Reads memory of readable segments, which nothing writes to; `None` if it cannot.
    pub read: R,
}

impl<'a, R: Fn(Range<usize>) -> Option<Cow<'a, [u8]>>> LoadedObject<'a, R> {
    fn segments(&self, kind: u32) -> impl Iterator<Item = &'a libc::Elf64_Phdr> {
        self.headers.iter().filter(move |header| header.p_type == kind)
    }

    /// The addresses of a segment in memory.
    fn range(&self, header: &libc::Elf64_Phdr) -> Range<usize> {
        let start = self.bias.wrapping_add(header.p_vaddr as usize);
        start..start.saturating_add(header.p_memsz as usize)
    }

    /// The addresses of its code.
    pub fn code(&self) -> Vec<Range<usize>> {
        let code = self.segments(libc::PT_LOAD).filter(|header| header.p_flags & libc::PF_X != 0);
        code.map(|header| self.range(header)).collect()
    }

    /// The bytes from `start` to the end of the readable segment that holds it, or to `end` if that comes first.
    fn bytes(&self, start: usize, end: usize) -> Option<Cow<'a, [u8]>> {
        let segment = self
            .segments(libc::PT_LOAD)
            .filter(|header| header.p_flags & libc::PF_R != 0)
            .map(|header| self.range(header))
            .find(|range| range.contains(&start))?;
        (self.read)(start..end.min(segment.end).max(start))
    }

    /// A copy of its unwind information.
    pub fn unwind_info(&self) -> Option<UnwindInfo> {
        let header = self.range(self.segments(libc::PT_GNU_EH_FRAME).next()?);
        let header_address = header.start.wrapping_sub(self.bias) as u64;
        let header = self.bytes(header.start, header.end)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(header_address);
        let parsed = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(frames_address) = parsed.eh_frame_ptr() else { return None };
        let frames = self.bytes(self.bias.wrapping_add(frames_address as usize), usize::MAX)?;
        let frames = frames.get(..frames_length(&frames)).unwrap_or(&frames);
        Some(UnwindInfo { header: (*header).into(), header_address, frames: frames.into(), frames_address })
    }

    /// The contents of the note that the linker identifies a file by.
    pub fn build_id(&self) -> Option<Vec<u8>> {
        self.segments(libc::PT_NOTE).find_map(|header| {
            let range = self.range(header);
            build_id(&self.bytes(range.start, range.end)?)
        })
    }
}

fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    const GNU_BUILD_ID: u32 = 3;
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

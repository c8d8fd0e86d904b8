//! The host's own code: what of it is loaded, and how to unwind it in the signal handler.
//!
//! What is loaded is found once, when a session begins, with a copy of the unwind information, so that a library that is
//! unloaded meanwhile takes nothing away that the handler reads. Code that is loaded later is not known: its frames are
//! missing, which the walk shows.
//!
//! # Async-signal-safety
//!
//! `framehop` keeps unwind rules in a cache and the state of the unwind program in fixed arrays, both of which are made
//! when a thread is armed; unwinding itself allocates nothing, takes no lock and reads the stack through the closure
//! that it is handed. It goes by a guess, the frame pointer, where it has no unwind information: such code is kept from
//! it (see [`HostCode::covered`]).

use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use flamewalk_handler::arch::Registers;
use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder};
use flamewalk_handler::memory::Memory;
use flamewalk_symbolizer::HostObject;
use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, Module, MustNotAllocateDuringUnwind,
    UnwindRegsNative, Unwinder, UnwinderNative,
};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};

/// All host code that was loaded when a session began.
pub(crate) struct HostCode {
    unwinder: UnwinderNative<Arc<[u8]>, MustNotAllocateDuringUnwind>,
    objects: Vec<HostObject>,
    /// The addresses that have unwind information which leads to a caller, sorted and apart.
    covered: Vec<Range<usize>>,
}

impl fmt::Debug for HostCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostCode").field("objects", &self.objects).finish_non_exhaustive()
    }
}

impl HostCode {
    /// The code that is loaded now.
    pub(crate) fn loaded() -> Self {
        let mut unwinder = UnwinderNative::new();
        let mut covered = Vec::new();
        let loaded = loaded_objects();
        for (object, unwind_info) in &loaded {
            let Some(unwind_info) = unwind_info else { continue };
            unwind_info.add_covered(object, &mut covered);
            for code in &object.code {
                unwinder.add_module(unwind_info.module(object, code));
            }
        }
        covered.sort_unstable_by_key(|range| range.start);
        covered.dedup_by(|next, last| {
            let adjacent = next.start <= last.end;
            if adjacent {
                last.end = last.end.max(next.end);
            }
            adjacent
        });
        Self { unwinder, objects: loaded.into_iter().map(|(object, _)| object).collect(), covered }
    }

    /// What is loaded, for symbols.
    pub(crate) fn objects(&self) -> &[HostObject] {
        &self.objects
    }

    fn is_covered(&self, address: usize) -> bool {
        let after = self.covered.partition_point(|range| range.start <= address);
        after
            .checked_sub(1)
            .and_then(|index| self.covered.get(index))
            .is_some_and(|range| range.contains(&address))
    }
}

/// Unwinds host code on one thread.
pub(crate) struct HostFrames {
    code: Arc<HostCode>,
    cache: CacheNative<MustNotAllocateDuringUnwind>,
}

impl fmt::Debug for HostFrames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostFrames").finish_non_exhaustive()
    }
}

impl HostFrames {
    pub(crate) fn new(code: Arc<HostCode>) -> Self {
        Self { code, cache: CacheNative::new_in() }
    }
}

impl HostUnwinder for HostFrames {
    const WANTED: bool = true;

    fn is_known(&self, frame: &HostFrame) -> bool {
        // A word that is no return address must not pass for one: it has to lie in code that can be unwound.
        frame.instruction().is_some_and(|address| match frame.is_return_address {
            true => self.code.is_covered(address),
            false => self.code.objects.iter().any(|object| object.contains(address)),
        })
    }

    fn caller(&mut self, frame: &HostFrame, memory: &impl Memory) -> HostCaller {
        let Some(address) = frame.instruction().filter(|address| self.code.is_covered(*address)) else {
            return HostCaller::Unknown;
        };
        let pc = frame.registers.pc as u64;
        let address = match frame.is_return_address {
            true => FrameAddress::from_return_address(pc),
            false => Some(FrameAddress::from_instruction_pointer(address as u64)),
        };
        let Some(address) = address else { return HostCaller::Unknown };
        let mut registers = to_framehop(&frame.registers);
        let mut read_stack = |address: u64| {
            memory.stack_word(usize::try_from(address).map_err(drop)?).map(|word| word as u64).ok_or(())
        };
        match self.code.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut read_stack) {
            Ok(Some(return_address)) => HostCaller::Frame(HostFrame {
                registers: from_framehop(return_address as usize, &registers),
                is_return_address: true,
            }),
            Ok(None) => HostCaller::None,
            Err(_) => HostCaller::Unknown,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn to_framehop(registers: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.pc as u64, registers.sp as u64, registers.fp as u64)
}

#[cfg(target_arch = "x86_64")]
fn from_framehop(pc: usize, registers: &UnwindRegsNative) -> Registers {
    Registers { pc, sp: registers.sp() as usize, fp: registers.bp() as usize, lr: 0 }
}

#[cfg(target_arch = "aarch64")]
fn to_framehop(registers: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.lr as u64, registers.sp as u64, registers.fp as u64)
}

#[cfg(target_arch = "aarch64")]
fn from_framehop(pc: usize, registers: &UnwindRegsNative) -> Registers {
    Registers { pc, sp: registers.sp() as usize, fp: registers.fp() as usize, lr: registers.lr() as usize }
}

/// A copy of an object's unwind information. Addresses are the object's own.
struct UnwindInfo {
    header: Arc<[u8]>,
    header_address: u64,
    frames: Arc<[u8]>,
    frames_address: u64,
}

impl UnwindInfo {
    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame_hdr(self.header_address).set_eh_frame(self.frames_address)
    }

    fn module(&self, object: &HostObject, code: &Range<usize>) -> Module<Arc<[u8]>> {
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
    fn add_covered(&self, object: &HostObject, covered: &mut Vec<Range<usize>>) {
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
fn loaded_objects() -> Vec<(HostObject, Option<UnwindInfo>)> {
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
    let path = if name.is_empty() { "/proc/self/exe".to_owned() } else { name };
    let shown =
        if objects.is_empty() { std::env::current_exe().unwrap_or_default() } else { path.clone().into() };
    let shown = shown.file_name().unwrap_or(shown.as_os_str()).to_string_lossy().into_owned();
    let loaded = LoadedObject { bias: info.dlpi_addr as usize, headers };
    let object = HostObject {
        name: shown.into(),
        path: path.into(),
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

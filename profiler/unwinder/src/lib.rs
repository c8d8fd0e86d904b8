//! Unwinds the native code of a host by its unwind information, and from outside by its instructions, too.
//!
//! What is loaded is described once, with a copy of the unwind information, so that a library that is unloaded
//! meanwhile takes nothing away that is read. Code that is not described is not known: its frames are missing, which
//! the walk shows. Who finds out what is loaded, and reads it, is the caller: the profiler in its own process, the
//! attacher in another one; see [`LoadedObject`].
//!
//! # Async-signal-safety
//!
//! `framehop` keeps unwind rules in a cache and the state of the unwind program in fixed arrays, both of which are made
//! with [`HostFrames`]; unwinding itself allocates nothing, takes no lock and reads the stack through the memory
//! that it is handed. It goes by a guess, the frame pointer, where it has no unwind information: such code is kept from
//! it. What remains is code whose frame is described by a computation that reads memory, as of
//! functions that align their stack. A wrong guess there ends in a gap, since the walk has to arrive at the very
//! trampoline that the store names, but frames before the gap can be wrong.
//!
//! # Features
//!
//! - `instructions`: unwinding by instructions, for who looks from outside. It allocates; what is built for a signal handler does
//!   without.

#![forbid(unsafe_code)]

#[cfg(feature = "instructions")]
pub mod instructions;
mod loaded;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use flamewalk_handler::arch::Registers;
use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder};
use flamewalk_handler::memory::Memory;
use flamewalk_symbolizer::HostObject;
use framehop::{
    CacheNative, FrameAddress, MustNotAllocateDuringUnwind, UnwindRegsNative, Unwinder, UnwinderNative,
};
pub use loaded::{LoadedObject, UnwindInfo};

/// Host code that is loaded, and how to unwind it.
pub struct HostCode {
    unwinder: UnwinderNative<Arc<[u8]>, MustNotAllocateDuringUnwind>,
    objects: Vec<HostObject>,
    /// The addresses that have unwind information which leads to a caller, sorted and apart.
    covered: Vec<Range<usize>>,
    /// Addresses whose unwind information is not used.
    signal_trampolines: Vec<Range<usize>>,
}

impl fmt::Debug for HostCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostCode").field("objects", &self.objects).finish_non_exhaustive()
    }
}

impl HostCode {
    /// The code of these objects, each with its unwind information if it has some.
    pub fn new(loaded: impl IntoIterator<Item = (HostObject, Option<UnwindInfo>)>) -> Self {
        let mut unwinder = UnwinderNative::new();
        let mut covered = Vec::new();
        let mut signal_trampolines = Vec::new();
        let mut objects = Vec::new();
        for (object, unwind_info) in loaded {
            if let Some(unwind_info) = &unwind_info {
                unwind_info.add_covered(&object, &mut covered, &mut signal_trampolines);
                for code in &object.code {
                    unwinder.add_module(unwind_info.module(&object, code));
                }
            }
            objects.push(object);
        }
        covered.sort_unstable_by_key(|range| range.start);
        covered.dedup_by(|next, last| {
            let adjacent = next.start <= last.end;
            if adjacent {
                last.end = last.end.max(next.end);
            }
            adjacent
        });
        Self { unwinder, objects, covered, signal_trampolines }
    }

    /// What is loaded, for symbols.
    pub fn objects(&self) -> &[HostObject] {
        &self.objects
    }

    /// The addresses that can be unwound from, sorted and apart.
    pub fn covered(&self) -> &[Range<usize>] {
        &self.covered
    }

    /// Whether `address` lies in code that has unwind information, even if it is none that can be used.
    pub fn has_unwind_information(&self, address: usize) -> bool {
        self.is_covered(address) || self.signal_trampolines.iter().any(|range| range.contains(&address))
    }

    /// Whether `address` lies in code that can be unwound.
    pub fn is_covered(&self, address: usize) -> bool {
        let after = self.covered.partition_point(|range| range.start <= address);
        after
            .checked_sub(1)
            .and_then(|index| self.covered.get(index))
            .is_some_and(|range| range.contains(&address))
    }
}

/// Unwinds host code on one thread.
pub struct HostFrames {
    code: Arc<HostCode>,
    cache: CacheNative<MustNotAllocateDuringUnwind>,
}

impl fmt::Debug for HostFrames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostFrames").finish_non_exhaustive()
    }
}

impl HostFrames {
    /// Unwinds `code`. Makes the cache.
    pub fn new(code: Arc<HostCode>) -> Self {
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
        let pc = frame.registers.pc;
        let address = match frame.is_return_address {
            // Covered, since it is known.
            true => FrameAddress::from_return_address(pc as u64),
            false => self.code.is_covered(pc).then(|| FrameAddress::from_instruction_pointer(pc as u64)),
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

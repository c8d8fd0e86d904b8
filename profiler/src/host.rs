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
//! it (see [`HostCode::covered`]). What remains is code whose frame is described by a computation that reads memory, as of
//! functions that align their stack. A wrong guess there ends in a gap, since the walk has to arrive at the very
//! trampoline that the store names, but frames before the gap can be wrong.

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
        let loaded = loaded::loaded_objects();
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::ffi::{c_int, c_void};
    use std::sync::Mutex;

    use flamewalk_handler::memory::{LiveStack, Memory};

    use super::*;
    use crate::thread;

    #[repr(C)]
    struct UnwindContext {
        _opaque: [u8; 0],
    }

    // The unwinder of the C runtime, which Rust's panics unwind with.
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            visit: extern "C" fn(*mut UnwindContext, *mut c_void) -> c_int,
            data: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(context: *mut UnwindContext) -> usize;
    }

    extern "C" fn visit_theirs(context: *mut UnwindContext, data: *mut c_void) -> c_int {
        // SAFETY: called by `_Unwind_Backtrace` with its context, and with the vector that it was handed.
        unsafe { (*data.cast::<Vec<usize>>()).push(_Unwind_GetIP(context)) };
        0
    }

    static RETURN_ADDRESSES: Mutex<Vec<usize>> = Mutex::new(Vec::new());

    /// Compares what is above this function on the stack with what the runtime's unwinder finds.
    #[inline(never)]
    fn compare(frames: &mut HostFrames) {
        let (pc, sp, fp): (usize, usize, usize);
        // SAFETY: copies registers.
        unsafe {
            std::arch::asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) pc, out(reg) sp, out(reg) fp);
        }
        let mut theirs = Vec::<usize>::new();
        // SAFETY: `visit_theirs` expects this vector.
        unsafe { _Unwind_Backtrace(visit_theirs, (&raw mut theirs).cast()) };
        // It goes on to what called the first function of all.
        theirs.pop_if(|address| *address == 0);

        // SAFETY: the used part of this thread's stack, which is mapped. No code is read.
        let memory = unsafe { LiveStack::new() }.part(sp..thread::stack_bounds().unwrap().end);
        let mut frame = HostFrame { registers: Registers { pc, sp, fp, lr: 0 }, is_return_address: false };
        let mut ours = Vec::new();
        let end = loop {
            assert!(frames.is_known(&frame), "{frame:x?}");
            ours.push(frame.registers.pc);
            match frames.caller(&frame, &memory) {
                HostCaller::Frame(caller) => frame = caller,
                end => break end,
            }
        };
        assert_eq!(end, HostCaller::None);
        // The first is this function, at different places.
        assert_eq!(ours[1..], theirs[1..], "{ours:x?} {theirs:x?}");
        RETURN_ADDRESSES.lock().unwrap().extend_from_slice(&ours[1..]);
    }

    thread_local! {
        static FRAMES: std::cell::RefCell<Option<HostFrames>> = const { std::cell::RefCell::new(None) };
    }

    extern "C" fn compare_in_c(_: *const c_void, _: *const c_void) -> c_int {
        FRAMES.with_borrow_mut(|frames| {
            compare(frames.get_or_insert_with(|| HostFrames::new(Arc::new(HostCode::loaded()))))
        });
        0
    }

    #[inline(never)]
    fn recurse(depth: usize, words: &[usize; 40]) -> usize {
        if depth == 0 {
            // Rust calls C, which calls Rust.
            let mut items = [3u32, 1, 2];
            // SAFETY: the items are as many and as large as stated; the order does not depend on them.
            unsafe { libc::qsort(items.as_mut_ptr().cast(), 3, 4, Some(compare_in_c)) };
            return 0;
        }
        let mut order = [1, 0];
        // Through the standard library.
        order.sort_by(|_, _| {
            std::hint::black_box(recurse(depth - 1, &std::hint::black_box([depth; 40])));
            std::cmp::Ordering::Equal
        });
        words[depth % 40]
    }

    #[test]
    fn host_frames_are_those_of_the_runtimes_own_unwinder() {
        std::hint::black_box(recurse(60, &[0; 40]));
        std::thread::scope(|scope| {
            scope.spawn(|| std::hint::black_box(recurse(30, &[0; 40])));
        });
        let seen = RETURN_ADDRESSES.lock().unwrap();
        assert!(seen.len() > 200, "{}", seen.len());
    }

    #[test]
    fn functions_are_covered_and_what_is_no_code_is_not() {
        let code = HostCode::loaded();
        assert!(code.is_covered(HostCode::loaded as fn() -> HostCode as usize));
        assert!(code.is_covered(libc::qsort as *const () as usize));
        assert!(!code.is_covered(0) && !code.is_covered(usize::MAX));
        assert!(!code.is_covered((&raw const RETURN_ADDRESSES).addr()));
        assert!(code.covered.is_sorted_by(|one, next| one.end < next.start));
        let names: Vec<_> = code.objects().iter().map(|object| &*object.name).collect();
        assert!(names.len() == code.objects().len() && names[0].starts_with("flamewalk-"), "{names:?}");
        assert!(code.objects().iter().any(|object| object.build_id.is_some()));
    }
}

//! The host's own code: what of it is loaded.
//!
//! What is loaded is found once, when a session begins. All that is known of it comes from what the dynamic loader has in
//! memory; no file is read. Unwind information is copied: its library can be unloaded at any time after the loader has
//! shown it. Code that is loaded later is not known.

use std::borrow::Cow;
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::path::PathBuf;

use flamewalk_symbolizer::HostObject;
use flamewalk_unwinder::{HostCode, LoadedObject, UnwindInfo};

/// All host code that is loaded now.
pub(crate) fn loaded_code() -> HostCode {
    HostCode::new(loaded_objects())
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
    let (path, name) = match objects.is_empty() {
        true => (Some("/proc/self/exe".into()), std::env::current_exe().unwrap_or_default()),
        // What has no path is the kernel's own (`linux-vdso.so.1`).
        false => (name.contains('/').then(|| PathBuf::from(&name)), name.into()),
    };
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let read = |range: Range<usize>| {
        // SAFETY: inside a readable segment of an object that stays loaded until this returns. Unwind information and
        // notes are in segments that nothing writes to.
        Some(Cow::Borrowed(unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance(range.start), range.len())
        }))
    };
    let loaded = LoadedObject { bias: info.dlpi_addr as usize, headers, read };
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use flamewalk_handler::arch::Registers;
    use flamewalk_handler::host::{HostCaller, HostFrame, HostUnwinder};
    use flamewalk_handler::memory::{LiveStack, Memory};
    use flamewalk_unwinder::HostFrames;

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
            compare(frames.get_or_insert_with(|| HostFrames::new(Arc::new(loaded_code()))))
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
        let code = loaded_code();
        assert!(code.is_covered(loaded_code as fn() -> HostCode as usize));
        assert!(code.is_covered(libc::qsort as *const () as usize));
        assert!(!code.is_covered(0) && !code.is_covered(usize::MAX));
        assert!(!code.is_covered((&raw const RETURN_ADDRESSES).addr()));
        assert!(code.covered().is_sorted_by(|one, next| one.end < next.start));
        let names: Vec<_> = code.objects().iter().map(|object| &*object.name).collect();
        assert!(names.len() == code.objects().len() && names[0].starts_with("flamewalk-"), "{names:?}");
        assert!(code.objects().iter().any(|object| object.build_id.is_some()));
    }
}

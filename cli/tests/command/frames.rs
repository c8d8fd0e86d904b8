//! Which frames a profile has: functions of the guest, calls of the host, builtins, and nothing else.

use flamewalk_guests::{Guest, as_component};

use crate::support::{Folded, Folder};

/// Profiles a guest of our own.
fn profile(options: &[&str], guest: Guest, arguments: &[&str]) -> Folded {
    crate::profile(&Folder::new(), options, &guest.path(), arguments).1
}

/// Profiles the component that is made of a guest of our own.
fn profile_component(options: &[&str], guest: Guest, arguments: &[&str]) -> Folded {
    let folder = Folder::new();
    let component = folder.path("component.wasm");
    std::fs::write(&component, as_component(&std::fs::read(guest.path()).unwrap()).unwrap()).unwrap();
    crate::profile(&folder, options, &component, arguments).1
}

/// Neither trampolines nor anything else of the runtime shows, and nothing is without a name.
fn check_names(profile: &Folded) {
    for (stack, _) in &profile.0 {
        for frame in stack {
            let lower = frame.to_lowercase();
            for sign in [
                "trampoline",
                "array_to_wasm",
                "wasm_to_array",
                "unknown",
                "wasmtime",
                "::",
                "wasm-function[",
            ] {
                // WIT interfaces have colons of their own.
                assert!(frame.starts_with("[host] ") || !lower.contains(sign), "{stack:?}");
            }
            assert!(!frame.contains("unknown import"), "{stack:?}");
        }
    }
}

#[test]
fn host_calls_have_the_names_of_their_imports() {
    let profile = profile(&["--freq", "4999"], Guest::HostCalls, &["500000"]);
    check_names(&profile);
    let stack = ["_start", "write_lines", "write_text", "[host] wasi_snapshot_preview1.fd_write"];
    assert!(profile.share(|frames| frames == stack) > 0.9, "{profile:?}");
    for (stack, _) in &profile.0 {
        assert_eq!(stack[0], "_start", "{stack:?}");
    }
}

#[test]
fn builtins_have_their_names() {
    let profile = profile(&["--freq", "4999"], Guest::MemoryGrow, &[]);
    check_names(&profile);
    let stack = ["_start", "grow", "[builtin] memory.grow"];
    assert!(profile.share(|frames| frames == stack) > 0.9, "{profile:?}");
}

#[test]
fn an_invoked_function_has_its_own_name() {
    let profile = profile(&["--freq", "4999", "--invoke", "chain"], Guest::Reactor, &["1", "500000000"]);
    check_names(&profile);
    assert_eq!(profile.share(|frames| frames[0] == "chain"), 1.0, "{profile:?}");
}

/// The adapter that a component made of a preview 1 command comes with is a guest, too: it calls the host.
#[test]
fn a_components_host_calls_have_the_names_of_interface_and_function() {
    let profile = profile_component(&["--freq", "4999"], Guest::HostCalls, &["100000"]);
    let host_calls = || {
        profile.0.iter().filter_map(|(stack, _)| stack.last().filter(|frame| frame.starts_with("[host] ")))
    };
    assert!(host_calls().any(|frame| frame.starts_with("[host] wasi:io/streams@")), "{profile:?}");
    for frame in host_calls() {
        let name = frame.strip_prefix("[host] ").unwrap();
        let (interface, function) = name.rsplit_once('.').unwrap();
        assert!(interface.starts_with("wasi:") && interface.contains('/') && !function.is_empty(), "{frame}");
    }
    let write_lines = profile.share(|stack| stack.iter().any(|frame| frame.ends_with("write_lines")));
    assert!(write_lines > 0.9, "{profile:?}");
}

#[test]
fn a_components_functions_have_their_names() {
    let profile = profile_component(&["--freq", "4999"], Guest::KnownAnswer, &["--rounds", "1000"]);
    let of = |name: &str| profile.share(|stack| stack.iter().any(|frame| frame.ends_with(name)));
    // The shares themselves are tested elsewhere; none of these is a small one.
    for name in ["guest.wasm!guest_round", "guest.wasm!straight", "guest.wasm!loopy", "guest.wasm!recursive"]
    {
        assert!(of(name) > 0.05, "{name}: {profile:?}");
    }
    let host_call = |stack: &[String]| stack.last().unwrap().starts_with("[host] wasi:random/random@");
    assert!(profile.share(host_call) > 0.0, "{profile:?}");
    assert!(
        profile
            .0
            .iter()
            .all(|(stack, _)| stack.iter().all(|frame| !frame.to_lowercase().contains("trampoline")))
    );
}

#[test]
fn a_deep_stack_is_cut_at_its_root() {
    let run = |options: &[&str], guest_arguments: &[&str]| {
        let mut all = vec!["--freq", "4999"];
        all.extend(options);
        profile(&all, Guest::Exits, guest_arguments)
    };
    // `work` at the bottom of 100 levels; with inlined frames there may be more frames than levels.
    let cut = run(&["--frame-limit", "16"], &["recurse", "100"]);
    let deep: Vec<_> = cut.0.iter().filter(|(stack, _)| stack.iter().any(|frame| frame == "work")).collect();
    assert!(!deep.is_empty(), "{cut:?}");
    for (stack, _) in deep {
        assert_eq!(stack[0], "[truncated]", "{stack:?}");
        assert!(stack.iter().skip(1).all(|frame| frame != "[truncated]" && frame != "_start"), "{stack:?}");
        // 16 machine frames, the youngest of which is `work`.
        assert_eq!(stack.iter().filter(|frame| *frame == "recurse").count(), 15, "{stack:?}");
    }
    let whole = run(&[], &["recurse", "100"]);
    assert!(whole.0.iter().all(|(stack, _)| stack[0] == "_start"), "{whole:?}");
    assert!(whole.0.iter().any(|(stack, _)| stack.iter().filter(|frame| *frame == "recurse").count() == 100));
}

/// The guest's frames are what they are without host frames, in the midst of flamewalk's own and Wasmtime's.
#[test]
fn host_frames_are_around_those_of_the_guest() {
    let profile = profile(&["--host-frames", "--freq", "4999"], Guest::HostCalls, &["500000"]);
    let guest = ["_start", "write_lines", "write_text", "[host] wasi_snapshot_preview1.fd_write"];
    let is_around = |stack: &[String]| {
        let at = stack.windows(guest.len()).position(|frames| frames == guest);
        at.is_some_and(|at| {
            let (below, above) = (&stack[..at], &stack[at + guest.len()..]);
            below.iter().any(|frame| frame == "flamewalk::main")
                && above.first().is_some_and(|frame| frame.starts_with("wasmtime::runtime::func::"))
        })
    };
    assert!(profile.share(is_around) > 0.9, "{profile:?}");
    for (stack, _) in &profile.0 {
        assert!(stack.iter().all(|frame| frame != "(missing host frames)"), "{stack:?}");
    }
}

#[test]
fn a_components_host_frames_are_complete() {
    let profile = profile_component(&["--host-frames", "--freq", "4999"], Guest::HostCalls, &["100000"]);
    let complete = profile.share(|stack| {
        stack.iter().any(|frame| frame == "flamewalk::main")
            && stack.iter().all(|frame| frame != "(missing host frames)")
    });
    assert_eq!(complete, 1.0, "{profile:?}");
}

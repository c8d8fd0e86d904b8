//! The oracle: frames, inlined functions and lines of every bytecode offset that has machine code are those
//! that LLVM's own symbolizer finds.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use flamewalk_guests::Guest;
use flamewalk_symbolizer::{CodeAddress, SymbolFrame};
use wasmtime::{Config, Engine, Module};

use crate::support::{code_start, engine, guest, symbolizer};

/// One frame, in the terms that both sides have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OracleFrame {
    name: String,
    /// File, line and column; `None` where nothing is known.
    location: Option<(String, u32, u32)>,
}

/// Debian's package `llvm` installs the tool, some versions of it only with a number.
fn llvm_symbolizer() -> String {
    let path = env::var_os("PATH").unwrap_or_default();
    for name in ["llvm-symbolizer", "llvm-symbolizer-14"] {
        if env::split_paths(&path).any(|directory| directory.join(name).is_file()) {
            return name.to_string();
        }
    }
    panic!("llvm-symbolizer is not on PATH: install it (Debian's package llvm), this test compares with it");
}

/// Asks LLVM about addresses relative to the code section, all at once.
fn ask_llvm(binary: &Path, addresses: &[u32]) -> Vec<Vec<OracleFrame>> {
    let answers = run_llvm(binary, addresses).into_iter().map(|answer| {
        let lines: Vec<_> = answer.lines().collect();
        lines.chunks(2).map(|pair| oracle_frame(pair[0], pair[1])).collect()
    });
    answers.collect()
}

/// LLVM's answers, as pairs of lines: a name, and `file:line:column`.
fn run_llvm(binary: &Path, addresses: &[u32]) -> Vec<String> {
    let mut tool = Command::new(llvm_symbolizer())
        .arg(format!("--obj={}", binary.display()))
        .args(["--output-style=LLVM", "--inlines", "--functions=linkage", "--no-demangle"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("llvm-symbolizer starts");
    let mut questions = tool.stdin.take().expect("a piped stdin");
    let text: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = thread::spawn(move || questions.write_all(text.as_bytes()));
    let output = tool.wait_with_output().expect("llvm-symbolizer ends");
    writer.join().expect("no panic").expect("llvm-symbolizer reads all addresses");
    assert!(output.status.success(), "llvm-symbolizer failed");
    let output = String::from_utf8(output.stdout).expect("names and paths in UTF-8");
    let answers: Vec<_> = output.split_terminator("\n\n").map(ToString::to_string).collect();
    assert_eq!(answers.len(), addresses.len(), "one answer for each address");
    answers
}

fn oracle_frame(mangled: &str, place: &str) -> OracleFrame {
    let (rest, column) = place.rsplit_once(':').expect("a column");
    let (file, line) = rest.rsplit_once(':').expect("a line");
    let number = |text: &str| text.parse().expect("a number");
    let location = (file != "??").then(|| (file.to_string(), number(line), number(column)));
    OracleFrame { name: shown_name(mangled), location }
}

/// Demanglers differ in how they print lambdas, literals and return types, so that names are asked for as they
/// are mangled, and demangled here as a user sees them. What the demangler does not know (nor does LLVM's own of
/// Debian's version), constrained template parameters, is compared by its qualified name alone.
fn shown_name(mangled: &str) -> String {
    // What the ABI of WASI calls `main` in objects; the linker's name section has the source's name again.
    let mangled = if mangled == "__main_argc_argv" { "main" } else { mangled };
    let style = cpp_demangle::DemangleOptions::new().no_return_type();
    match cpp_demangle::Symbol::new(mangled) {
        Ok(symbol) => symbol.demangle_with_options(&style).expect("a demangled name"),
        Err(_) if mangled.starts_with("_ZN") => mangled_path(mangled),
        Err(_) => mangled.to_string(),
    }
}

/// `std::sort` of `_ZNSt4sortIiEEvv`.
fn mangled_path(mangled: &str) -> String {
    let mut rest = mangled.strip_prefix("_ZN").expect("a nested name");
    let mut path = Vec::new();
    if let Some(standard) = rest.strip_prefix("St") {
        path.push("std");
        rest = standard;
    }
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(length) = rest[..digits].parse::<usize>() else { break };
        path.push(&rest[digits..digits + length]);
        rest = &rest[digits + length..];
    }
    path.join("::")
}

/// `std::sort` of `std::sort<int*>(int*, int*)`.
fn qualified_name(demangled: &str) -> &str {
    demangled.split(['<', '(', '[']).next().unwrap_or_default()
}

fn ours(frames: &[SymbolFrame]) -> Vec<OracleFrame> {
    let frames = frames.iter().map(|frame| OracleFrame {
        name: frame.name.to_string(),
        location: frame
            .location
            .as_ref()
            .map(|location| (location.file.to_string(), location.line, location.column)),
    });
    frames.collect()
}

/// `own_name` is what the name section calls the function: for the function itself that counts, and some
/// compilers name it otherwise in DWARF.
fn agree(found: &[OracleFrame], expected: &[OracleFrame], own_name: Option<&str>) -> bool {
    if matches!(expected, [unknown] if unknown.name == "??") {
        // Not in the DWARF: the name section has a name, but nothing has lines.
        return matches!(found, [function] if function.location.is_none());
    }
    let last = expected.len() - 1;
    found.len() == expected.len()
        && found.iter().zip(expected).enumerate().all(|(index, (found, expected))| {
            let same_name = found.name == expected.name
                || qualified_name(&found.name) == expected.name
                || index == last && Some(found.name.as_str()) == own_name;
            same_name && same_location(found, expected)
        })
}

/// Where the compiler gives no line, ours is that of code nearby; before a function's first line, that line.
fn same_location(found: &OracleFrame, expected: &OracleFrame) -> bool {
    match (&found.location, &expected.location) {
        (Some((.., line, _)), None) => *line != 0,
        (Some(_), Some((_, 0, _))) => true,
        (found, expected) => found == expected,
    }
}

struct Comparison {
    offsets: usize,
    with_lines: usize,
    with_inlining: usize,
}

/// Compares all offsets that Wasmtime's own address map has for a guest.
fn compare(engine: &Engine, binary: &[u8], path: &Path) -> Comparison {
    let module = Module::new(engine, binary).expect("the guest compiles");
    let code_start = u32::try_from(code_start(binary)).expect("a small guest");
    let mapped = module.address_map().expect("an address map");
    let mapped: Vec<(u32, u32)> = mapped
        .filter_map(|(text, bytecode)| Some((u32::try_from(text).expect("a small image"), bytecode?)))
        .collect();
    let addresses: Vec<u32> = mapped.iter().map(|(_, bytecode)| bytecode - code_start).collect();
    let mut symbolizer = symbolizer(engine, binary);
    let mut seen = Comparison { offsets: mapped.len(), with_lines: 0, with_inlining: 0 };
    let own_names: HashMap<u32, String> = module
        .functions()
        .filter_map(|function| Some((function.index.as_u32(), function.name?.to_string())))
        .collect();
    let mut before_the_first_line = 0;
    let mut different = Vec::new();
    for ((text, bytecode), expected) in mapped.iter().zip(ask_llvm(path, &addresses)) {
        let frames = symbolizer.frames(CodeAddress::Instruction(*text));
        assert!(frames.iter().all(|frame| frame.bytecode_offset == Some(*bytecode)));
        let found = ours(frames);
        seen.with_inlining += usize::from(found.len() > 1);
        seen.with_lines += usize::from(found[0].location.is_some());
        let own_name = frames.last().and_then(|frame| own_names.get(&frame.function_index?));
        before_the_first_line += usize::from(found[0].location.is_some() && expected[0].location.is_none());
        if !agree(&found, &expected, own_name.map(String::as_str)) {
            different
                .push(format!("{:#x}\n  found {found:?}\n  expected {expected:?}\n", bytecode - code_start));
        }
    }
    let count = different.len();
    different.truncate(5);
    let examples = different.concat();
    assert_eq!(count, 0, "of {} offsets differ from llvm-symbolizer, such as\n{examples}", seen.offsets);
    assert_eq!(symbolizer.notices(), []);
    // The first instruction of some functions.
    assert!(before_the_first_line * 50 < seen.offsets, "{before_the_first_line} of {} offsets", seen.offsets);
    seen
}

#[test]
fn every_offset_of_the_guests_agrees() {
    let engine = engine(|_| ());
    for (name, inlines) in [(Guest::Inlined, true), (Guest::KnownAnswer, false), (Guest::HostCalls, false)] {
        let seen = compare(&engine, &guest(name), &name.path());
        assert!(seen.with_lines * 10 > seen.offsets * 9, "{name:?}: few offsets have lines");
        assert_eq!(seen.with_inlining * 2 > seen.offsets, inlines, "{name:?}: {}", seen.with_inlining);
    }
}

#[test]
fn every_offset_agrees_without_optimization() {
    let engine = engine(|config: &mut Config| {
        config.cranelift_opt_level(wasmtime::OptLevel::None);
    });
    compare(&engine, &guest(Guest::Inlined), &Guest::Inlined.path());
}

/// A hundred thousand lines of C that nobody here wrote.
#[test]
fn every_offset_of_sqlite_agrees() {
    let path = flamewalk_guests::sqlite().expect("SQLite");
    let binary = fs::read(&path).expect("the binary that was built");
    let seen = compare(&engine(|_| ()), &binary, &path);
    assert!(seen.with_lines * 100 > seen.offsets * 99, "few offsets have lines");
}

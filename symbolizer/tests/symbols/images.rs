//! Functions, kinds and names against what Wasmtime and its symbol table say, for every way to compile.

use std::collections::HashMap;

use flamewalk_guests::Guest;
use flamewalk_handler::code::{CodeKind, Function};
use flamewalk_symbolizer::{CodeAddress, CodeImage, Error, GuestBinary, Symbolizer};
use object::{Object, ObjectSection, ObjectSymbol};
use wasmtime::component::Component;
use wasmtime::{Engine, Inlining, Module, OptLevel, Strategy};

use crate::support::{COMPONENT, compile, engine, guest, parse};

fn engines() -> Vec<(&'static str, Engine)> {
    vec![
        ("default", engine(|_| ())),
        (
            "no optimization",
            engine(|config| {
                config.cranelift_opt_level(OptLevel::None);
            }),
        ),
        (
            "inlining",
            engine(|config| {
                config.compiler_inlining(Inlining::Yes);
            }),
        ),
        (
            "epochs",
            engine(|config| {
                config.epoch_interruption(true);
            }),
        ),
        (
            "fuel",
            engine(|config| {
                config.consume_fuel(true);
            }),
        ),
        (
            "no unwind information",
            engine(|config| {
                config.native_unwind_info(false);
            }),
        ),
        (
            "winch",
            engine(|config| {
                config.strategy(Strategy::Winch);
            }),
        ),
    ]
}

fn guests() -> Vec<(&'static str, Vec<u8>)> {
    let mut guests: Vec<_> = Guest::ALL.into_iter().map(|name| (name.name(), guest(name))).collect();
    let component = flamewalk_guests::as_component(&guest(Guest::KnownAnswer)).expect("a component");
    guests.push(("known_answer as a component", component));
    guests.push(("component", wat::parse_str(COMPONENT).expect("valid text")));
    guests
}

/// What a symbol's name says, read as simply as possible.
fn expected_kind(symbol: &str) -> CodeKind {
    let is_trampoline_of = |prefix: &str, what: &str| symbol.starts_with(prefix) && symbol.contains(what);
    if is_trampoline_of("wasm[", "]::array_to_wasm_trampoline[")
        || is_trampoline_of("component-trampolines[", "]-array-call-")
        || is_trampoline_of("module_start[", "]::Array")
    {
        CodeKind::EntryTrampoline
    } else if symbol.ends_with("::wasm_to_array_trampoline")
        || symbol == "resource_drop_trampoline"
        || is_trampoline_of("component-trampolines[", "]-wasm-call-component-lower-import[")
    {
        CodeKind::ExitTrampoline
    } else if symbol.starts_with("wasmtime_builtin_") || symbol.starts_with("component-trampolines[") {
        CodeKind::BuiltinTrampoline
    } else if is_trampoline_of("wasm[", "]::function[") || is_trampoline_of("module_start[", "]::Wasm") {
        CodeKind::Guest
    } else {
        panic!("a symbol that the test does not know: {symbol}")
    }
}

#[test]
fn functions_are_those_of_the_symbol_table() {
    let mut kinds = HashMap::new();
    for (engine_name, engine) in engines() {
        for (guest_name, binary) in guests() {
            let image = compile(&engine, &binary);
            let parsed = parse(&image);
            let elf = object::File::parse(&*image).expect("an ELF file");
            let text = elf.section_by_name(".text").expect("code");
            let (start, length) = text.file_range().expect("code in the file");
            assert_eq!(parsed.text(), start as usize..(start + length) as usize);
            let mut expected: Vec<(u64, u64, CodeKind)> = elf
                .symbols()
                .filter(|symbol| symbol.section_index() == Some(text.index()))
                .filter(|symbol| symbol.kind() == object::SymbolKind::Text)
                .map(|symbol| {
                    (symbol.address(), symbol.size(), expected_kind(symbol.name().expect("a name")))
                })
                .collect();
            expected.sort_by_key(|(start, ..)| *start);
            let found: Vec<_> = parsed
                .functions()
                .iter()
                .map(|function| (u64::from(function.start), u64::from(function.length), function.kind))
                .collect();
            assert_eq!(found, expected, "{guest_name}, {engine_name}");
            for function in parsed.functions() {
                *kinds.entry(function.kind).or_insert(0) += 1;
                check_frame_size(function, engine_name);
            }
        }
    }
    assert_eq!(kinds.len(), 4, "every kind of code is in the corpus: {kinds:?}");
}

/// Every trampoline that leaves the guest has a frame, since it saves registers or spills arguments; at the least
/// it is aligned.
fn check_frame_size(function: &Function, engine: &str) {
    match function.kind {
        CodeKind::Guest | CodeKind::EntryTrampoline => assert_eq!(function.frame_size, 0, "{engine}"),
        CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline => {
            assert!(
                function.frame_size.is_multiple_of(16) && function.frame_size < 4096,
                "{function:?}, {engine}"
            );
        }
    }
}

#[test]
fn names_and_indices_are_those_of_wasmtime() {
    for (engine_name, engine) in engines() {
        for name in Guest::ALL {
            let binary = guest(name);
            let module = Module::new(&engine, &binary).expect("the guest compiles");
            let image = module.serialize().expect("an image");
            for source in [Some(GuestBinary::from(binary.clone())), None] {
                let mut symbolizer =
                    Symbolizer::new(parse(&image), "guest", source, None).expect("no symbols");
                for function in module.functions() {
                    let offset = u32::try_from(function.offset).expect("a small image");
                    let frames = symbolizer.frames(CodeAddress::Instruction(offset));
                    let frame = frames.last().unwrap_or_else(|| panic!("no frame for {:?}", function.index));
                    assert_eq!(
                        frame.function_index,
                        Some(function.index.as_u32()),
                        "{name:?}, {engine_name}"
                    );
                    assert_eq!(&*frame.module, "guest");
                    assert!(!frame.inlined);
                    let raw = function
                        .name
                        .unwrap_or_else(|| format!("wasm-function[{}]", function.index.as_u32()));
                    // Those with parameters are C++, whose style has tests of its own.
                    if !raw.contains('(') {
                        assert_eq!(&*frame.name, raw, "{name:?}, {engine_name}");
                    }
                }
                assert_eq!(symbolizer.notices(), [], "{name:?}, {engine_name}");
            }
        }
    }
}

#[test]
fn components_show_their_core_modules() {
    let engine = engine(|_| ());
    let binary = wat::parse_str(COMPONENT).expect("valid text");
    let component = Component::new(&engine, &binary).expect("the component compiles");
    let image = component.serialize().expect("an image");
    for source in [Some(GuestBinary::from(binary.clone())), None] {
        let has_binary = source.is_some();
        let mut symbolizer = Symbolizer::new(parse(&image), "app", source, None).expect("no symbols");
        let functions: Vec<Function> = symbolizer.image().functions().to_vec();
        let mut shown = Vec::new();
        for function in functions {
            for frame in symbolizer.frames(CodeAddress::Instruction(function.start)) {
                shown.push(format!("{}!{}", frame.module, frame.name));
            }
        }
        for expected in ["first!run", "first!helper", "app[1]!wasm-function[2]", "app[1]!(module start)"] {
            assert!(
                shown.iter().any(|shown| shown == expected),
                "{expected} in {shown:?}, binary: {has_binary}"
            );
        }
        assert_eq!(symbolizer.notices(), []);
    }
}

/// Writes an address map of pairs of text offset and bytecode offset over the one in an image: a count, one block,
/// its first text offset and position, then for each entry the distance from the one before, doubled, and the
/// position, as a distance after the first.
fn set_address_map(image: &mut [u8], entries: &[(u32, u32)]) {
    let section = {
        let elf = object::File::parse(&*image).expect("an ELF file");
        elf.section_by_name(".wasmtime.addrmap")
            .and_then(|section| section.file_range())
            .expect("an address map")
    };
    let mut map = Vec::new();
    for word in [entries.len() as u32, 1, entries[0].0, 0] {
        map.extend(word.to_le_bytes());
    }
    let (mut text, mut bytecode) = (entries[0].0, None);
    for (next_text, next_bytecode) in entries {
        leb128(&mut map, i64::from((next_text - text) * 2), false);
        let distance = i64::from(*next_bytecode) - i64::from(bytecode.unwrap_or(0));
        leb128(&mut map, distance, bytecode.is_some());
        (text, bytecode) = (*next_text, Some(*next_bytecode));
    }
    image[section.0 as usize..][..map.len()].copy_from_slice(&map);
}

fn leb128(into: &mut Vec<u8>, mut value: i64, signed: bool) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        let is_last = if signed { value == -i64::from(low & 0x40 != 0) } else { value == 0 };
        into.push(if is_last { low } else { low | 0x80 });
        if is_last {
            return;
        }
    }
}

/// Wasmtime 48 gives no bytecode offset to code that it inlined; those that do say which function an instruction
/// belongs to, while the symbol says which one runs.
#[test]
fn functions_inlined_by_wasmtime_are_frames() {
    let text = r#"(module
        (memory 1)
        (func (export "outer") (param i32) (result i32) local.get 0 i32.load local.get 0 i32.load offset=8 i32.add)
        (func $leaf (param i32) (result i32) local.get 0 i32.load))"#;
    let binary = wat::parse_str(text).expect("valid text");
    let engine = engine(|_| ());
    let mut image = compile(&engine, &binary);
    let bodies = bodies(&binary);
    let [outer, leaf] = *parse(&image).functions().first_chunk().expect("two functions");
    let (own, inlined) = (bodies[0].end as u32 - 1, bodies[1].end as u32 - 1);
    let entries =
        [(outer.start + 8, own), (outer.start + 12, inlined), (outer.start + 16, own), (leaf.start, inlined)];
    set_address_map(&mut image, &entries);
    for source in [Some(GuestBinary::from(binary)), None] {
        let mut symbolizer = Symbolizer::new(parse(&image), "guest", source, None).expect("no symbols");
        let mut frames = |offset| -> Vec<(Option<u32>, Option<u32>, bool)> {
            let frames = symbolizer.frames(CodeAddress::Instruction(outer.start + offset));
            frames.iter().map(|frame| (frame.function_index, frame.bytecode_offset, frame.inlined)).collect()
        };
        assert_eq!(
            frames(0),
            [(Some(0), None, false)],
            "before the first instruction with a bytecode offset"
        );
        assert_eq!(frames(8), [(Some(0), Some(own), false)]);
        assert_eq!(frames(15), [(Some(1), Some(inlined), true), (Some(0), None, false)]);
        assert_eq!(frames(16), [(Some(0), Some(own), false)]);
    }
}

fn bodies(binary: &[u8]) -> Vec<std::ops::Range<usize>> {
    let payloads = wasmparser::Parser::new(0).parse_all(binary);
    let bodies = payloads.filter_map(|payload| match payload.expect("valid") {
        wasmparser::Payload::CodeSectionEntry(body) => Some(body.range()),
        _ => None,
    });
    bodies.collect()
}

#[test]
fn images_without_symbols_are_refused() {
    let engine = engine(|config| {
        config.debug_symbols(false);
    });
    let image = compile(&engine, &guest(Guest::Reactor));
    assert_eq!(CodeImage::parse(&image).expect_err("no symbols"), Error::NoSymbols);
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(CodeImage::parse(b""), Err(Error::NotElf(_))));
    assert!(matches!(CodeImage::parse(&guest(Guest::Reactor)), Err(Error::NotElf(_))));
    let own = std::fs::read(std::env::current_exe().expect("this test")).expect("this test's file");
    assert!(matches!(CodeImage::parse(&own), Err(Error::NotWasmtime { .. })));
}

#[test]
fn images_of_unknown_trampolines_are_refused() {
    let mut image = compile(&engine(|_| ()), &guest(Guest::MemoryGrow));
    let symbol = b"wasmtime_builtin_memory_grow";
    let position =
        image.windows(symbol.len()).position(|window| window == symbol).expect("the builtin's symbol");
    image[position] = b'W';
    let expected = Error::UnknownSymbol { name: "Wasmtime_builtin_memory_grow".to_string() };
    assert_eq!(CodeImage::parse(&image).expect_err("an unknown symbol"), expected);
}

/// What is tested for many engines must not be the same thing many times.
#[test]
fn the_engines_differ() {
    let binary = guest(Guest::KnownAnswer);
    let images: Vec<_> = engines().iter().map(|(_, engine)| compile(engine, &binary)).collect();
    for (index, image) in images.iter().enumerate() {
        assert!(!images[..index].contains(image), "{}", engines()[index].0);
    }
}

//! Where symbols come from: the binary, a separate file, the image; and what happens when they do not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;

use flamewalk_guests::Guest;
use flamewalk_symbolizer::{CodeAddress, Error, GuestBinary, Notice, SymbolFrame, Symbolizer};
use gimli::{EndianSlice, LittleEndian};
use wasmparser::{Parser, Payload};
use wasmtime::{Engine, Module, WasmBacktraceDetails};

use crate::support::{compile, engine, guest, parse, range, unit, with_sections};

/// The custom sections of a core module: name, the whole section and its contents.
fn custom_sections(binary: &[u8]) -> Vec<(String, Range<usize>, Range<usize>)> {
    let mut sections = Vec::new();
    for payload in Parser::new(0).parse_all(binary) {
        if let Payload::CustomSection(section) = payload.expect("a valid guest") {
            // The header is an id, a size and the name with its length; the size's length varies.
            let contents = section.data_offset()..section.data_offset() + section.data().len();
            let size = section.range().len();
            let header = section.range().start - 1 - leb128_length(size);
            sections.push((section.name().to_string(), header..contents.end, contents));
        }
    }
    sections
}

fn leb128_length(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}

/// Removes all custom sections, and puts an unrelated one in front so that the code lies elsewhere.
fn strip(binary: &[u8]) -> Vec<u8> {
    let mut stripped = binary[..8].to_vec();
    stripped.extend([0, 9, 4, b'm', b'o', b'v', b'e', 1, 2, 3, 4]);
    let mut position = 8;
    for (_, section, _) in custom_sections(binary) {
        stripped.extend(&binary[position..section.start]);
        position = section.end;
    }
    stripped.extend(&binary[position..]);
    assert!(wasmparser::validate(&stripped).is_ok());
    stripped
}

fn last_body(binary: &[u8]) -> Range<usize> {
    let payloads = Parser::new(0).parse_all(binary);
    let bodies = payloads.filter_map(|payload| match payload.expect("a valid guest") {
        Payload::CodeSectionEntry(body) => Some(body.range()),
        _ => None,
    });
    bodies.last().expect("a function")
}

fn contents(binary: &[u8], name: &str) -> Range<usize> {
    let sections = custom_sections(binary);
    let section = sections.iter().find(|(section, ..)| section == name);
    section.unwrap_or_else(|| panic!("no section {name}")).2.clone()
}

/// The frames of all guest code.
fn all_frames(symbolizer: &mut Symbolizer) -> Vec<Vec<SymbolFrame>> {
    let functions = symbolizer.image().functions().to_vec();
    let offsets = functions.iter().flat_map(|function| function.start..function.end());
    offsets.map(|offset| symbolizer.frames(CodeAddress::Instruction(offset)).to_vec()).collect()
}

/// All that a user sees of frames; bytecode offsets differ where the code lies elsewhere.
fn shown(frames: &[Vec<SymbolFrame>]) -> Vec<String> {
    let line = |frame: &SymbolFrame| {
        let location = frame.location.as_ref();
        let location =
            location.map(|location| format!("{}:{}:{}", location.file, location.line, location.column));
        format!("{} {location:?} {:?} {}", frame.name, frame.function_index, frame.inlined)
    };
    frames.iter().map(|frames| frames.iter().map(line).collect::<Vec<_>>().join(";")).collect()
}

fn symbolizer(engine: &Engine, ran: &[u8], binary: Option<&[u8]>, symbols: Option<&[u8]>) -> Symbolizer {
    let to_binary = |bytes: &[u8]| GuestBinary::from(bytes.to_vec());
    let image = parse(&compile(engine, ran));
    Symbolizer::new(image, "guest", binary.map(to_binary), symbols.map(to_binary)).expect("the same code")
}

fn assert_same(found: &[String], expected: &[String]) {
    assert_eq!(found.len(), expected.len());
    let different = found.iter().zip(expected).find(|(found, expected)| found != expected);
    assert_eq!(different, None);
}

#[test]
fn a_stripped_guest_takes_its_symbols_from_another_file() {
    let engine = engine(|_| ());
    let full = guest(Guest::Inlined);
    let stripped = strip(&full);
    let mut reference = symbolizer(&engine, &full, Some(&full), None);
    let expected = shown(&all_frames(&mut reference));
    assert!(expected.iter().any(|line| line.contains("shapes.cpp")));

    let mut bare = symbolizer(&engine, &stripped, Some(&stripped), None);
    let frames = all_frames(&mut bare);
    let is_bare = |frame: &SymbolFrame| {
        frame.location.is_none()
            && (frame.name.starts_with("wasm-function[") || frame.function_index.is_none())
    };
    assert_eq!(frames.iter().flatten().find(|frame| !is_bare(frame)), None);

    for binary in [Some(&*stripped), None] {
        let mut symbols = symbolizer(&engine, &stripped, binary, Some(&full));
        let frames = all_frames(&mut symbols);
        assert_same(&shown(&frames), &expected);
        assert_eq!(symbols.notices(), []);
        // Imports are found through the binary that ran.
        let offsets: Vec<_> = frames.iter().flatten().filter_map(|frame| frame.bytecode_offset).collect();
        assert!(offsets.iter().all(|offset| (*offset as usize) < stripped.len()));
    }
}

#[test]
fn a_body_has_the_same_hash_wherever_it_lies() {
    let engine = engine(|_| ());
    let full = guest(Guest::Inlined);
    let stripped = strip(&full);
    let hashes = |binary: &[u8]| {
        let mut symbols = symbolizer(&engine, binary, Some(binary), None);
        let frames = all_frames(&mut symbols);
        let functions = frames.iter().flatten().filter_map(|frame| Some((frame.function_index?, frame)));
        functions
            .map(|(function, frame)| (function, symbols.body_hash(frame).expect("a body")))
            .collect::<BTreeMap<_, _>>()
    };
    // What a binary says about an offset is what the symbolizer says of the frames there.
    let binary = GuestBinary::from(full.clone());
    let mut symbols = symbolizer(&engine, &full, Some(&full), None);
    for frame in all_frames(&mut symbols).iter().flatten() {
        let (Some(function), Some(offset)) = (frame.function_index, frame.bytecode_offset) else { continue };
        let body = binary.body_at(offset).expect("a binary").expect("a body");
        assert_eq!((body.function_index, body.hash), (function, symbols.body_hash(frame)));
        assert!(body.range.contains(&offset));
    }
    assert_eq!(binary.body_at(0), Ok(None));
    assert_eq!(binary.body_at(u32::MAX), Ok(None));

    let of_full = hashes(&full);
    assert_eq!(hashes(&stripped), of_full);
    let distinct: BTreeSet<_> = of_full.values().collect();
    assert!(distinct.len() > of_full.len() / 2, "{} of {}", distinct.len(), of_full.len());
    // The image alone has no bodies.
    let mut alone = symbolizer(&engine, &full, None, None);
    let frames = all_frames(&mut alone);
    assert!(frames.iter().flatten().all(|frame| alone.body_hash(frame).is_none()));
}

#[test]
fn symbols_of_other_code_are_refused() {
    let engine = engine(|_| ());
    let (ran, other) = (guest(Guest::Inlined), guest(Guest::KnownAnswer));
    let binary = |bytes: &[u8]| GuestBinary::from(bytes.to_vec());
    let image = || parse(&compile(&engine, &ran));
    let refused = Symbolizer::new(image(), "guest", Some(binary(&ran)), Some(binary(&other)));
    assert!(matches!(refused, Err(Error::DifferentCode { .. })), "{refused:?}");
    let refused = Symbolizer::new(image(), "guest", Some(binary(&ran)), Some(binary(&guest(Guest::Nothing))));
    assert!(
        matches!(refused, Err(Error::DifferentFunctionCount { ours: 1, theirs: 2.., .. })),
        "{refused:?}"
    );

    // Without the binary that ran, the image shows that the code is another.
    let mut symbols = symbolizer(&engine, &ran, None, Some(&other));
    all_frames(&mut symbols);
    assert!(matches!(symbols.notices(), [Notice::SymbolsRefused { .. }]), "{:?}", symbols.notices());

    // One byte of one function.
    let mut changed = ran.clone();
    changed[last_body(&ran).end - 2] ^= 1;
    let difference = binary(&changed).check_same_code(&binary(&ran));
    let module = Module::new(&engine, &ran).expect("the guest compiles");
    let function = module.functions().last().expect("a function").index.as_u32();
    assert_eq!(difference, Err(Error::DifferentCode { module: 0, function }));
    assert_eq!(binary(&ran).check_same_code(&binary(&strip(&ran))), Ok(()));
    assert!(matches!(binary(b"text").check_same_code(&binary(&ran)), Err(Error::NotWasm { .. })));
}

#[test]
fn a_binary_that_the_image_is_not_from_is_not_used() {
    let engine = engine(|_| ());
    let ran = guest(Guest::Inlined);
    let names = |symbolizer: &mut Symbolizer| shown(&all_frames(symbolizer));
    let expected = names(&mut symbolizer(&engine, &ran, None, None));
    for wrong in [guest(Guest::KnownAnswer), guest(Guest::MemoryGrow), b"nonsense".to_vec()] {
        let mut with_wrong = symbolizer(&engine, &ran, Some(&wrong), None);
        assert_same(&names(&mut with_wrong), &expected);
        assert!(matches!(with_wrong.notices(), [Notice::BinaryRefused { .. }]), "{:?}", with_wrong.notices());
    }
}

#[test]
fn a_binary_with_functions_elsewhere_is_not_used() {
    let text = |sizes: [usize; 2]| {
        let function = |size| format!("(func (param i32) {})", "local.get 0 i32.load drop ".repeat(size));
        let [first, second] = sizes.map(function);
        wat::parse_str(format!("(module (memory 1) (export \"f\" (func 0)) {first} {second})"))
            .expect("valid text")
    };
    let engine = engine(|_| ());
    let (ran, other) = (text([9, 9]), text([1, 1]));
    let mut symbolizer = symbolizer(&engine, &ran, Some(&other), None);
    all_frames(&mut symbolizer);
    assert!(matches!(symbolizer.notices(), [Notice::BinaryRefused { .. }]), "{:?}", symbolizer.notices());
}

/// An image that was compiled with `wasm_backtrace_details` is enough for lines. It does not say where functions
/// start, so that their prologues get the line of the first instruction.
#[test]
fn an_image_with_dwarf_needs_no_binary() {
    let engine = engine(|config| {
        config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    });
    for name in [Guest::Inlined, Guest::KnownAnswer] {
        let binary = guest(name);
        let mut reference = symbolizer(&engine, &binary, Some(&binary), None);
        let expected = all_frames(&mut reference);
        let mut from_image = symbolizer(&engine, &binary, None, None);
        let found = all_frames(&mut from_image);
        let has_prologue =
            |frames: &Vec<SymbolFrame>| frames.iter().all(|frame| frame.bytecode_offset.is_none());
        let (prologues, expected): (Vec<_>, Vec<_>) = expected.into_iter().partition(has_prologue);
        let found: Vec<_> = found.into_iter().filter(|frames| !has_prologue(frames)).collect();
        assert!(prologues.len() * 4 < expected.len(), "{} of {}", prologues.len(), expected.len());
        assert_same(&shown(&found), &shown(&expected));
        assert_eq!(from_image.notices(), []);
    }
}

/// A name, an address and a size.
type Subprogram = (&'static str, u32, u32);

/// A unit whose range is that of the last of its subprograms.
fn unit_of(subprograms: &[Subprogram]) -> Vec<u8> {
    let (_, low, size) = *subprograms.last().expect("a subprogram");
    let mut entries = vec![1];
    entries.extend(range(low, size));
    for (name, low, size) in subprograms {
        entries.push(2);
        entries.extend(range(*low, *size));
        entries.extend(name.as_bytes());
        entries.push(0);
    }
    entries.push(0);
    unit(&entries)
}

fn names_with_dwarf(units: &[&[Subprogram]]) -> (Vec<String>, Vec<Notice>) {
    // A unit with children and a subprogram without, both with low_pc (addr) and high_pc (data4), the latter with a
    // name (string).
    let mut abbreviations = vec![1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0];
    abbreviations.extend([2, 0x2e, 0, 0x11, 0x01, 0x12, 0x06, 0x03, 0x08, 0, 0, 0]);
    let info = units.iter().flat_map(|subprograms| unit_of(subprograms)).collect();
    let binary = with_sections(&[(".debug_info", info), (".debug_abbrev", abbreviations)]);
    let engine = engine(|_| ());
    let mut symbolizer = symbolizer(&engine, &binary, Some(&binary), None);
    let mut names: Vec<_> =
        all_frames(&mut symbolizer).iter().flatten().map(|frame| frame.name.to_string()).collect();
    names.dedup();
    (names, symbolizer.notices().to_vec())
}

/// Linkers leave the DWARF of code that they dropped, at address 0 or -1, and that of all definitions of an inline
/// function of which they keep one.
#[test]
fn only_dwarf_that_fits_is_believed() {
    let own = ("own", 2, 5);
    let other = ("other definition", 2, 9);
    let dropped = ("dropped", 0, 40);
    for units in [
        &[&[dropped][..], &[own]][..],
        &[&[("dropped", u32::MAX, 5)], &[own]],
        &[&[other], &[own]],
        &[&[own], &[other]],
        &[&[other, own]],
        &[&[("in the middle", 3, 5)], &[own]],
    ] {
        assert_eq!(names_with_dwarf(units), (vec!["own".to_string()], Vec::new()), "{units:?}");
    }
    // Better than none: tools that change code in place leave it.
    assert_eq!(names_with_dwarf(&[&[other]]), (vec!["other definition".to_string()], Vec::new()));
    let (names, notices) = names_with_dwarf(&[&[("in the middle", 3, 5)], &[dropped]]);
    assert_eq!(names, ["wasm-function[0]"]);
    let [notice] = &*notices else { panic!("one notice: {notices:?}") };
    let sentence = "the DWARF of guest does not describe its code (no address is the start of a function): no source lines";
    assert_eq!(notice.to_string(), sentence);
}

/// A line program with one sequence, all of it from line 1 of a file.
fn line_program(file: &str, start: u32, size: u8) -> Vec<u8> {
    // One byte for each instruction, one operation, is_stmt, lines from -5 in steps of 14, 13 opcodes with so many
    // operands; no directories; a file in directory 0 without time and size.
    let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0];
    header.extend(file.as_bytes());
    header.extend([0, 0, 0, 0, 0]);
    // set_address, copy, advance_pc, end_sequence.
    let mut program = vec![0, 5, 2];
    program.extend(start.to_le_bytes());
    program.extend([1, 2, size, 0, 1, 1]);
    let mut whole = ((header.len() + program.len()) as u32 + 6).to_le_bytes().to_vec();
    whole.extend([4, 0]);
    whole.extend((header.len() as u32).to_le_bytes());
    whole.extend([header, program].concat());
    whole
}

/// As `-gline-tables-only` leaves them.
#[test]
fn lines_need_no_subprogram() {
    // Of units with low_pc (addr), high_pc (data4) and stmt_list (sec_offset), none with children.
    let abbreviations = vec![1, 0x11, 0, 0x11, 0x01, 0x12, 0x06, 0x10, 0x17, 0, 0, 0];
    let places = |units: &[(&str, u32, u8)]| {
        let (mut info, mut lines) = (Vec::new(), Vec::new());
        for (file, start, size) in units {
            let offset = (lines.len() as u32).to_le_bytes();
            info.extend(unit(&[&[1][..], &range(*start, (*size).into()), &offset].concat()));
            lines.extend(line_program(file, *start, *size));
        }
        let sections =
            [(".debug_info", info), (".debug_abbrev", abbreviations.clone()), (".debug_line", lines)];
        let binary = with_sections(&sections);
        let mut symbolizer = symbolizer(&engine(|_| ()), &binary, Some(&binary), None);
        let frames = all_frames(&mut symbolizer).into_iter().flatten();
        let mut places: Vec<_> =
            frames.map(|frame| frame.location.map(|place| (place.file.to_string(), place.line))).collect();
        places.dedup();
        places
    };
    let own = Some(("own.c".to_string(), 1));
    assert_eq!(places(&[("own.c", 2, 5), ("other definition.c", 2, 9)]), std::slice::from_ref(&own));
    assert_eq!(places(&[("spans.c", 1, 40), ("own.c", 2, 5), ("later.c", 4, 9)]), [own]);
    assert_eq!(places(&[("spans.c", 1, 40), ("later.c", 4, 9)]), [None]);
}

/// Also those that come from no bytecode in particular: prologues, spills, constants.
#[test]
fn every_instruction_of_a_described_function_has_a_line() {
    let engine = engine(|_| ());
    for name in [Guest::Inlined, Guest::KnownAnswer, Guest::HostCalls] {
        let binary = guest(name);
        let mut symbolizer = symbolizer(&engine, &binary, Some(&binary), None);
        let functions = symbolizer.image().functions().to_vec();
        let mut without = Vec::new();
        let mut count = 0;
        for offset in functions.iter().flat_map(|function| function.start..function.end()) {
            let frames = symbolizer.frames(CodeAddress::Instruction(offset));
            let Some(innermost) = frames.first() else { continue };
            count += 1;
            if innermost.location.as_ref().is_none_or(|location| location.line == 0) {
                without.push((offset, innermost.name.clone()));
            }
        }
        // What the linker and Wasmtime add has no source.
        without.retain(|(_, name)| &**name != "__wasm_call_ctors" && &**name != "(module start)");
        assert!(without.len() * 1000 <= count, "{name:?}: {} of {count}: {without:?}", without.len());
    }
}

/// Sets every address in the DWARF to 0, as the tool did that made npm's CPython.
fn kill_dwarf(binary: &mut [u8]) {
    let info = contents(binary, ".debug_info");
    let addresses = {
        let dwarf = gimli::Dwarf::load(|id| {
            let section = custom_sections(binary).into_iter().find(|(name, ..)| name == id.name());
            let data = section.map_or(&[][..], |(_, _, contents)| &binary[contents]);
            Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
        });
        addresses_in(&dwarf.expect("sections"))
    };
    for offset in addresses {
        binary[info.start + offset..][..4].fill(0);
    }
    let ranges = contents(binary, ".debug_ranges");
    binary[ranges].fill(0);
}

/// Where in `.debug_info` addresses are.
fn addresses_in(dwarf: &gimli::Dwarf<EndianSlice<'_, LittleEndian>>) -> Vec<usize> {
    let mut found = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().expect("a unit") {
        let start = header.debug_info_offset().expect("in .debug_info").0;
        let unit = dwarf.unit(header).expect("a unit");
        let mut entries = unit.entries_raw(None).expect("entries");
        while !entries.is_empty() {
            let Some(abbreviation) = entries.read_abbreviation().expect("an entry") else { continue };
            for specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(*specification).expect("an attribute");
                if matches!(attribute.value(), gimli::AttributeValue::Addr(_)) {
                    found.push(start + entries.next_offset().0 - 4);
                }
            }
        }
    }
    found
}

#[test]
fn dwarf_in_which_every_address_is_zero_is_ignored() {
    let engine = engine(|_| ());
    let mut binary = guest(Guest::Inlined);
    kill_dwarf(&mut binary);
    let mut symbolizer = symbolizer(&engine, &binary, Some(&binary), None);
    let frames = all_frames(&mut symbolizer);
    assert!(frames.iter().flatten().all(|frame| frame.location.is_none() && !frame.inlined));
    let [notice] = symbolizer.notices() else { panic!("one notice: {:?}", symbolizer.notices()) };
    let sentence = "the DWARF of guest does not describe its code (every address is 0): no source lines";
    assert_eq!(notice.to_string(), sentence);
}

#[test]
fn corrupt_names_cost_only_names() {
    let engine = engine(|_| ());
    let mut corrupt = guest(Guest::Reactor);
    let names = contents(&corrupt, "name");
    // In the middle of the function names.
    corrupt[names.start + names.len() / 4..names.end].fill(0xff);
    let mut symbolizer = symbolizer(&engine, &corrupt, Some(&corrupt), None);
    let frames = all_frames(&mut symbolizer);
    // Those that the DWARF describes are named by it.
    assert!(frames.iter().flatten().any(|frame| &*frame.name == "fibonacci"));
    assert!(frames.iter().flatten().any(|frame| frame.location.is_some()));
    assert!(matches!(symbolizer.notices(), [Notice::CorruptNames { .. }]), "{:?}", symbolizer.notices());
}

#[test]
fn corrupt_dwarf_costs_only_what_is_corrupt() {
    let engine = engine(|_| ());
    let ran = guest(Guest::Inlined);
    let mut corrupt = ran.clone();
    let info = contents(&ran, ".debug_info");
    corrupt[info.start + info.len() / 2..info.end].fill(0xff);
    let mut symbolizer = symbolizer(&engine, &ran, Some(&corrupt), None);
    let frames = all_frames(&mut symbolizer);
    assert!(frames.iter().flatten().all(|frame| !frame.name.starts_with("wasm-function[")));
    assert!(matches!(symbolizer.notices(), [Notice::CorruptDwarf { .. }]), "{:?}", symbolizer.notices());
}

/// 11,448 functions without names, and DWARF in which every address is 0.
#[test]
fn cpython_has_no_lines_and_one_notice() {
    let engine = engine(|_| ());
    let binary = fs::read(flamewalk_guests::cpython().expect("CPython")).expect("the file that was fetched");
    let mut symbolizer = symbolizer(&engine, &binary, Some(&binary), None);
    let functions = symbolizer.image().functions().to_vec();
    let mut indices = Vec::new();
    for function in functions {
        for frame in symbolizer.frames(CodeAddress::Instruction(function.start)) {
            let Some(index) = frame.function_index else { continue };
            assert_eq!(*frame.name, format!("wasm-function[{index}]"));
            assert_eq!(frame.location, None);
            indices.push(index);
        }
    }
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), 11_448);
    assert!(
        matches!(symbolizer.notices(), [Notice::ForeignDwarf { all_zero: true, .. }]),
        "{:?}",
        symbolizer.notices()
    );
}

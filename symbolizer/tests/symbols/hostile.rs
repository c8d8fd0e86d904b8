//! Any bytes give a result or an error, in bounded time: images, binaries and DWARF that were damaged at random, and
//! DWARF that was made to be expensive.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use flamewalk_guests::Guest;
use flamewalk_symbolizer::{CodeAddress, CodeImage, GuestBinary, Notice, Symbolizer};
use object::{Object, ObjectSection};
use proptest::prelude::*;
use wasmtime::WasmBacktraceDetails;

use crate::support::{COMPONENT, compile, engine, guest, parse, range, unit, with_sections};

/// Images and their binaries: a module with DWARF in the image, a component.
static CORPUS: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let engine = engine(|config| {
        config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    });
    let component = wat::parse_str(COMPONENT).expect("valid text");
    let binaries = [guest(Guest::Reactor), guest(Guest::Inlined), component];
    binaries.into_iter().map(|binary| (compile(&engine, &binary), binary)).collect()
});

/// Asks for frames and host calls all over an image.
fn ask(image: CodeImage, binary: Option<Vec<u8>>, symbols: Option<Vec<u8>>) {
    let end = image.functions().last().map_or(0, |function| function.end());
    let binary = binary.map(GuestBinary::from);
    let Ok(mut symbolizer) = Symbolizer::new(image, "guest", binary, symbols.map(GuestBinary::from)) else {
        return;
    };
    let step = (end / 512).max(1) as usize;
    for offset in (0..=end).step_by(step).chain([u32::MAX]) {
        symbolizer.frames(CodeAddress::Instruction(offset));
        symbolizer.host_call(offset, Some(offset));
        symbolizer.host_call(offset, None);
    }
    for notice in symbolizer.notices() {
        assert!(!notice.to_string().is_empty());
    }
}

/// Damage: bits that change, and where the bytes end, as shares of the length.
fn damage() -> impl Strategy<Value = (Vec<(f64, u8)>, Option<f64>)> {
    let flips = prop::collection::vec((0.0..1.0, 1..=255_u8), 0..8);
    (flips, prop::option::weighted(0.2, 0.0..1.0))
}

fn apply(bytes: &mut Vec<u8>, (flips, end): &(Vec<(f64, u8)>, Option<f64>)) {
    let length = bytes.len() as f64;
    for (position, mask) in flips {
        bytes[(position * length) as usize] ^= mask;
    }
    if let Some(end) = end {
        bytes.truncate((end * length) as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_images(index in 0..3_usize, damage in damage(), with_binary: bool) {
        let (image, binary) = &CORPUS[index];
        let mut image = image.clone();
        apply(&mut image, &damage);
        if let Ok(image) = CodeImage::parse(&image) {
            ask(image, with_binary.then(|| binary.clone()), None);
        }
    }

    #[test]
    fn damaged_binaries(index in 0..3_usize, damage in damage(), as_symbols: bool) {
        let (image, binary) = &CORPUS[index];
        let mut damaged = binary.clone();
        apply(&mut damaged, &damage);
        let (binary, symbols) = if as_symbols { (None, Some(damaged)) } else { (Some(damaged), None) };
        ask(parse(image), binary, symbols);
    }

    /// What Wasmtime recorded about the guest, which is decoded with its own types.
    #[test]
    fn damaged_metadata(index in 0..3_usize, damage in damage()) {
        let mut image = CORPUS[index].0.clone();
        let info = {
            let elf = object::File::parse(&*image).expect("an ELF file");
            elf.section_by_name(".wasmtime.info").and_then(|section| section.file_range()).expect("metadata")
        };
        let info = &mut image[info.0 as usize..][..info.1 as usize];
        let mut damaged = info.to_vec();
        apply(&mut damaged, &(damage.0, None));
        info.copy_from_slice(&damaged);
        ask(parse(&image), None, None);
    }

    /// Only the custom sections, so that the code still fits.
    #[test]
    fn damaged_names_and_dwarf(damage in damage()) {
        let (image, binary) = &CORPUS[1];
        let start = custom_sections_start(binary);
        let mut sections = binary[start..].to_vec();
        apply(&mut sections, &(damage.0, None));
        ask(parse(image), Some([&binary[..start], &sections].concat()), None);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = CodeImage::parse(&bytes);
        ask(parse(&CORPUS[0].0), Some(bytes.clone()), None);
        ask(parse(&CORPUS[0].0), Some([b"\0asm\x01\0\0\0", &*bytes].concat()), None);
    }
}

fn custom_sections_start(binary: &[u8]) -> usize {
    let payloads = wasmparser::Parser::new(0).parse_all(binary);
    let starts = payloads.filter_map(|payload| match payload.expect("a valid guest") {
        wasmparser::Payload::CustomSection(section) => Some(section.range().start),
        _ => None,
    });
    starts.min().expect("custom sections")
}

fn notices_in_time(binary: &[u8]) -> (Vec<Notice>, usize) {
    let image = parse(&compile(&engine(|_| ()), binary));
    let end = image.functions()[0].end();
    let started = Instant::now();
    let binary = GuestBinary::from(binary.to_vec());
    let mut symbolizer = Symbolizer::new(image, "guest", Some(binary), None).expect("no symbols");
    let frames = (0..end).map(|offset| symbolizer.frames(CodeAddress::Instruction(offset)).len());
    let most = frames.max().expect("code");
    // The files below would take hours, or all memory; even so a slow machine with other work gets a minute.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    (symbolizer.notices().to_vec(), most)
}

/// Inlined functions nested a million deep.
#[test]
fn deep_nesting_is_cut() {
    let mut entries = vec![1];
    entries.extend(range(2, 5));
    entries.push(2);
    entries.extend(range(2, 5));
    for _ in 0..1_000_000 {
        entries.push(3);
        entries.extend(range(2, 5));
    }
    entries.extend(vec![0; 1_000_002]);
    // A unit, a subprogram and an inlined function, each with children, low_pc (addr) and high_pc (data4).
    let mut abbreviations = Vec::new();
    for (code, tag) in [(1, 0x11), (2, 0x2e), (3, 0x1d)] {
        abbreviations.extend([code, tag, 1, 0x11, 0x01, 0x12, 0x06, 0, 0]);
    }
    abbreviations.push(0);
    let binary = with_sections(&[(".debug_info", unit(&entries)), (".debug_abbrev", abbreviations)]);
    let (notices, most) = notices_in_time(&binary);
    assert_eq!(notices, []);
    assert_eq!(most, 257);
}

/// A hundred thousand inlined functions that share a list of a hundred thousand ranges.
#[test]
fn shared_range_lists_are_not_read_forever() {
    let mut entries = vec![1];
    entries.extend(range(2, 5));
    entries.push(2);
    entries.extend(range(2, 5));
    for _ in 0..100_000 {
        entries.extend([3, 0, 0, 0, 0]);
    }
    entries.extend([0, 0]);
    let mut abbreviations = Vec::new();
    for (code, tag) in [(1, 0x11), (2, 0x2e)] {
        abbreviations.extend([code, tag, 1, 0x11, 0x01, 0x12, 0x06, 0, 0]);
    }
    // Without children, ranges (sec_offset).
    abbreviations.extend([3, 0x1d, 0, 0x55, 0x17, 0, 0, 0]);
    let ranges: Vec<u8> = (0..100_000).flat_map(|_| range(0, 1)).collect();
    let binary = with_sections(&[
        (".debug_info", unit(&entries)),
        (".debug_abbrev", abbreviations),
        (".debug_ranges", ranges),
    ]);
    let (notices, _) = notices_in_time(&binary);
    assert!(matches!(*notices, [Notice::ExpensiveDwarf { .. }]), "{notices:?}");
}

/// A name that refers to itself.
#[test]
fn circular_references_end() {
    let mut entries = vec![1];
    entries.extend(range(2, 5));
    let own = 11 + entries.len() as u32;
    entries.push(2);
    entries.extend(range(2, 5));
    entries.extend(own.to_le_bytes());
    entries.extend([0, 0]);
    let mut abbreviations = vec![1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0];
    // With an abstract_origin (ref4).
    abbreviations.extend([2, 0x2e, 1, 0x11, 0x01, 0x12, 0x06, 0x31, 0x13, 0, 0, 0]);
    let binary = with_sections(&[(".debug_info", unit(&entries)), (".debug_abbrev", abbreviations)]);
    assert_eq!(notices_in_time(&binary), (Vec::new(), 1));
}

/// Entries of one byte with thousands of attributes that take none.
#[test]
fn empty_attributes_are_not_free() {
    let mut abbreviations = vec![1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0];
    abbreviations.extend([2, 0x34, 0]);
    for _ in 0..200_000 {
        // artificial (flag_present).
        abbreviations.extend([0x34, 0x19]);
    }
    abbreviations.extend([0, 0, 0]);
    let mut entries = vec![1];
    entries.extend(range(2, 5));
    entries.extend(vec![2; 1_000_000]);
    entries.push(0);
    let binary = with_sections(&[(".debug_info", unit(&entries)), (".debug_abbrev", abbreviations)]);
    let (notices, _) = notices_in_time(&binary);
    assert!(matches!(*notices, [Notice::ExpensiveDwarf { .. }]), "{notices:?}");
}

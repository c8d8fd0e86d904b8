//! What the targets that read code and binaries of guests share: where they start from, and what they ask.

use flamewalk_symbolizer::{CodeAddress, Symbolizer};

/// Small images of this version of Wasmtime and of others; a test of the symbolizer makes them and checks them.
pub const IMAGES: [&[u8]; 6] = [
    include_bytes!("../images/module"),
    include_bytes!("../images/component"),
    LINES_IMAGE,
    include_bytes!("../images/module-14.0.0"),
    include_bytes!("../images/module-25.0.0"),
    include_bytes!("../images/module-50.0.1"),
];
/// The image that was compiled from [`LINES`].
pub const LINES_IMAGE: &[u8] = include_bytes!("../images/dwarf");
/// A guest with DWARF.
pub const LINES: &[u8] = include_bytes!("../../examples/guests/wasm/lines.wasm");

/// The sections of an image that are read.
pub const IMAGE_SECTIONS: [&str; 8] = [
    ".wasmtime.info",
    ".name.wasm",
    ".wasmtime.addrmap",
    ".wasmtime.dwarf",
    ".wasmtime.engine",
    ".symtab",
    ".strtab",
    ".text",
];
/// The custom sections of a binary that are read.
pub const BINARY_SECTIONS: [&str; 10] = [
    "name",
    ".debug_abbrev",
    ".debug_addr",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];

const SECTION_HEADER_BYTES: usize = 64;

/// Where the headers of an image's sections lie, and which of them has the names.
fn section_headers(image: &[u8]) -> (usize, usize, usize) {
    let half = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
    (word(image, 40), half(60), half(62))
}

fn word(image: &[u8], at: usize) -> usize {
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes")) as usize
}

/// Where the header of a section lies in an image that Wasmtime has compiled, and its contents.
pub fn section<'i>(image: &'i [u8], name: &str) -> Option<(usize, &'i [u8])> {
    let (table, count, names) = section_headers(image);
    let header = |index: usize| table + index * SECTION_HEADER_BYTES;
    let contents = |at: usize| &image[word(image, at + 24)..][..word(image, at + 32)];
    let names = contents(header(names));
    (0..count).map(header).find_map(|at| {
        let name_start = u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes")) as usize;
        let own = names[name_start..].split(|byte| *byte == 0).next();
        (own == Some(name.as_bytes())).then(|| (at, contents(at)))
    })
}

/// An image that Wasmtime has compiled, with other contents in one section; as it is, if it has no such section.
pub fn with_section(image: &[u8], name: &str, contents: &[u8]) -> Vec<u8> {
    let mut changed = image.to_vec();
    if let Some((header, own)) = section(image, name) {
        let start = if own.len() == contents.len() { word(image, header + 24) } else { image.len() };
        changed.resize(changed.len().max(start + contents.len()), 0);
        changed[start..start + contents.len()].copy_from_slice(contents);
        changed[header + 24..header + 32].copy_from_slice(&(start as u64).to_le_bytes());
        changed[header + 32..header + 40].copy_from_slice(&(contents.len() as u64).to_le_bytes());
    }
    changed
}

/// How long the header of a binary is.
const BINARY_HEADER_BYTES: usize = 8;
/// What a custom section begins with.
const CUSTOM: u8 = 0;

/// The sections of [`LINES`], each with its identifier, all of its bytes, and its contents.
pub fn sections_of_lines() -> impl Iterator<Item = (u8, &'static [u8], &'static [u8])> {
    let mut rest = &LINES[BINARY_HEADER_BYTES..];
    std::iter::from_fn(move || {
        let (identifier, after) = rest.split_first()?;
        let size = 1 + after.iter().position(|byte| byte & 0x80 == 0)?;
        let length = after[..size].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
        let (section, next) = rest.split_at(1 + size + length);
        rest = next;
        Some((*identifier, section, &section[1 + size..]))
    })
}

/// The name and the data of each of its custom sections.
pub fn custom_sections_of_lines() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let custom = sections_of_lines().filter(|(identifier, ..)| *identifier == CUSTOM);
    custom.map(|(_, _, contents)| {
        // All names are shorter than 128 bytes.
        let (name, data) = contents[1..].split_at(usize::from(contents[0]));
        (std::str::from_utf8(name).expect("a name"), data)
    })
}

/// The code of [`LINES`], and these custom sections: the number of one in [`BINARY_SECTIONS`], two bytes of length, and so
/// many bytes, again and again.
pub fn with_custom_sections(mut sections: &[u8]) -> Vec<u8> {
    let mut binary = LINES[..BINARY_HEADER_BYTES].to_vec();
    for (_, section, _) in sections_of_lines().filter(|(identifier, ..)| *identifier != CUSTOM) {
        binary.extend(section);
    }
    while let [number, low, high, after @ ..] = sections {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (data, next) = after.split_at(length);
        let name = BINARY_SECTIONS[usize::from(*number) % BINARY_SECTIONS.len()];
        // What two bytes and a name can be long is a number of three bytes.
        let size = 1 + name.len() + length;
        binary.extend([CUSTOM, size as u8 | 0x80, (size >> 7) as u8 | 0x80, (size >> 14) as u8]);
        binary.push(name.len() as u8);
        binary.extend(name.as_bytes());
        binary.extend(data);
        sections = next;
    }
    binary
}

/// Asks for frames and host calls all over an image, and for what there is to tell.
pub fn ask_everywhere(mut symbolizer: Symbolizer) {
    let functions = symbolizer.image().functions().to_vec();
    let end = functions.last().map_or(0, |function| function.end());
    let step = (end / 128).max(1) as usize;
    let starts = functions.iter().map(|function| function.start).take(128);
    for offset in (0..=end).step_by(step).chain(starts).chain([u32::MAX]) {
        for address in [CodeAddress::Instruction(offset), CodeAddress::ReturnAddress(offset)] {
            let frames = symbolizer.frames(address).to_vec();
            frames.iter().for_each(|frame| _ = symbolizer.body_hash(frame));
            assert!(frames.last().is_none_or(|frame| !frame.inlined), "the function whose code runs is last");
            assert_eq!(symbolizer.frames(address), frames);
        }
        symbolizer.host_call(offset, Some(offset));
        symbolizer.host_call(offset, None);
    }
    assert!(symbolizer.notices().iter().all(|notice| !notice.to_string().is_empty()));
}

//! Finding the image that code belongs to, given nothing but where its text lies in memory.
//!
//! An image is an ELF file in memory, in one piece, whose start is aligned as its text is, to pages. So the headers are
//! looked for in the pages below the text. What is found there is believed only if it is a header of Wasmtime's with a
//! section that is exactly this text.
//!
//! ```text
//!   start (page)            text (page)
//!     ▼                       ▼
//!   ┌────────┬──────────────┬──────────┬──────────┬─────────────────┐
//!   │ header │ small        │ .text    │ other    │ section headers │
//!   └────────┴──────────────┴──────────┴──────────┴─────────────────┘
//! ```
//!
//! Memory is read through a function that may refuse, so that nothing relies on what lies below other text.

use std::ops::Range;

use object::elf::{ELFCLASS64, ELFDATA2LSB, ELFMAG, SHF_EXECINSTR, SHT_NOBITS, SHT_PROGBITS};
use object::pod::from_bytes;
use object::{LittleEndian, elf};
use wasmtime_environ::obj;

/// How far below its text an image begins at most, in bytes. Wasmtime 48 puts a page or two of small sections there.
const MAX_BELOW: usize = 1 << 20;

const HEADER_BYTES: usize = size_of::<elf::FileHeader64<LittleEndian>>();
const SECTION_HEADER_BYTES: usize = size_of::<elf::SectionHeader64<LittleEndian>>();
/// Wasmtime's images have about 20.
const MAX_SECTIONS: u16 = 1024;

/// The addresses of the image whose text lies at `text`, if there is one around it.
///
/// `read` fills a buffer from an address, or returns `false` if it cannot. The image begins at a multiple of
/// `page_size`. All that the headers speak of is inside the result.
pub fn find_image(
    text: &Range<usize>,
    page_size: usize,
    read: impl FnMut(usize, &mut [u8]) -> bool,
) -> Option<Range<usize>> {
    let found = find_image_of_code(text.start, page_size, read)?;
    (found.text == *text).then_some(found.image)
}

/// Where an image lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlace {
    /// The addresses of all that its headers speak of.
    pub image: Range<usize>,
    /// The addresses of its text.
    pub text: Range<usize>,
}

/// As [`find_image`], of a text that is known to begin at `text_start`.
pub fn find_image_of_code(
    text_start: usize,
    page_size: usize,
    mut read: impl FnMut(usize, &mut [u8]) -> bool,
) -> Option<ImagePlace> {
    let mut start = text_start;
    while text_start - start < MAX_BELOW {
        start = start.checked_sub(page_size)?;
        if let Some(found) = image_at(start, text_start, &mut read) {
            return Some(found);
        }
    }
    None
}

/// The image that begins at `start`, if there is one and its text begins at `text_start`.
fn image_at(
    start: usize,
    text_start: usize,
    read: &mut impl FnMut(usize, &mut [u8]) -> bool,
) -> Option<ImagePlace> {
    let mut bytes = [0; HEADER_BYTES];
    if !read(start, &mut bytes) {
        return None;
    }
    let header = aligned::<elf::FileHeader64<LittleEndian>>(&bytes)?;
    let ident = &header.e_ident;
    if (ident.magic, ident.class, ident.data) != (ELFMAG, ELFCLASS64, ELFDATA2LSB)
        || ident.os_abi != obj::ELFOSABI_WASMTIME
    {
        return None;
    }
    let count = header.e_shnum.get(LittleEndian);
    let section_size = header.e_shentsize.get(LittleEndian) as usize;
    if count > MAX_SECTIONS || section_size != SECTION_HEADER_BYTES {
        return None;
    }
    let table = usize::try_from(header.e_shoff.get(LittleEndian)).ok()?;
    let mut headers = vec![0; usize::from(count) * SECTION_HEADER_BYTES];
    if !read(start.checked_add(table)?, &mut headers) {
        return None;
    }
    let mut end = start.checked_add(table)?.checked_add(headers.len())?;
    let mut text = None;
    for bytes in headers.chunks_exact(SECTION_HEADER_BYTES) {
        let section = aligned::<elf::SectionHeader64<LittleEndian>>(bytes)?;
        let kind = section.sh_type.get(LittleEndian);
        if kind == SHT_NOBITS {
            continue;
        }
        let first = start.checked_add(usize::try_from(section.sh_offset.get(LittleEndian)).ok()?)?;
        let last = first.checked_add(usize::try_from(section.sh_size.get(LittleEndian)).ok()?)?;
        let is_code = section.sh_flags.get(LittleEndian) & u64::from(SHF_EXECINSTR) != 0;
        if kind == SHT_PROGBITS && first == text_start && (is_code || text.is_none()) {
            text = Some(first..last);
        }
        end = end.max(last);
    }
    Some(ImagePlace { image: start..end, text: text? })
}

/// The structures of `object` with a byte order are made of bytes, so that any alignment will do.
fn aligned<T: object::pod::Pod>(bytes: &[u8]) -> Option<&T> {
    from_bytes(bytes).ok().map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use wasmtime_environ::obj::ELFOSABI_WASMTIME;

    use super::*;

    const PAGE: usize = 64;
    const TEXT: Range<usize> = 3 * PAGE..3 * PAGE + 20;

    /// An image at the start of the second page whose text is [`TEXT`], with section headers behind it.
    fn image() -> Vec<u8> {
        let mut memory = vec![0xee; PAGE];
        let table = 4 * PAGE - PAGE;
        let mut header = ELFMAG.to_vec();
        header.extend([ELFCLASS64, ELFDATA2LSB, 1, ELFOSABI_WASMTIME]);
        header.resize(40, 0);
        header.extend((table as u64).to_le_bytes());
        header.resize(58, 0);
        header.extend((SECTION_HEADER_BYTES as u16).to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.resize(PAGE, 0);
        memory.extend(header);
        memory.resize(TEXT.end, 0x90);
        memory.resize(4 * PAGE, 0);
        memory.extend([0; SECTION_HEADER_BYTES]);
        let mut section = vec![0; 4];
        section.extend(SHT_PROGBITS.to_le_bytes());
        section.resize(24, 0);
        section.extend((TEXT.start as u64 - PAGE as u64).to_le_bytes());
        section.extend((TEXT.len() as u64).to_le_bytes());
        section.resize(SECTION_HEADER_BYTES, 0);
        memory.extend(section);
        memory
    }

    fn find(memory: &[u8], text: &Range<usize>) -> Option<Range<usize>> {
        find_image(text, PAGE, |address, buffer| {
            let Some(bytes) = memory.get(address..address + buffer.len()) else { return false };
            buffer.copy_from_slice(bytes);
            true
        })
    }

    #[test]
    fn the_image_around_a_text_is_found() {
        let memory = image();
        assert_eq!(find(&memory, &TEXT), Some(PAGE..memory.len()));
    }

    #[test]
    fn only_exactly_this_text_is_believed() {
        let memory = image();
        for text in [TEXT.start..TEXT.end + 1, TEXT.start + PAGE..TEXT.end + PAGE, PAGE..PAGE, 0..0] {
            assert_eq!(find(&memory, &text), None);
        }
    }

    /// Whatever bytes are there, nothing outside of memory is asked for twice and nothing overflows.
    #[test]
    fn damage_is_no_image() {
        let memory = image();
        for at in PAGE..PAGE + HEADER_BYTES {
            for byte in [0, 0x7f, 0xff] {
                let mut damaged = memory.clone();
                damaged[at] = byte;
                let found = find(&damaged, &TEXT);
                assert!(found.is_none() || found == Some(PAGE..memory.len()), "{at}: {found:?}");
            }
        }
        for length in 0..memory.len() {
            assert_eq!(find(&memory[..length], &TEXT), None);
        }
    }
}

//! The names of functions in an image that another version of Wasmtime has compiled.
//!
//! The metadata of such an image is not decoded: its types have changed with nearly every version. But all versions keep
//! the functions' names in one section, one behind the other, and where each name lies in a table inside the metadata:
//!
//! ```text
//!   number of entries │ function, offset, length │ function, offset, length │ …
//! ```
//!
//! with numbers of variable length (since 25) or of 64 and 32 bits (before). The table of a module is recognized by what it holds: ascending
//! functions, and names that follow one another from the first byte of the section to its last. That cannot be
//! by chance. Where there is no such table, as for the several modules of a component, names come from the symbols,
//! to which versions since 25 append the first 96 characters.

use std::ops::Range;
use std::sync::Arc;

/// Names, and where each lies in a run of bytes.
#[derive(Debug, Default)]
pub(crate) struct ForeignNames {
    pub(crate) bytes: Arc<[u8]>,
    /// For each core module, sorted by function index.
    pub(crate) modules: Vec<Vec<(u32, Range<usize>)>>,
}

/// A function with a name in its symbol: the indexes of its core module and of itself, and the name.
pub(crate) type NamedSymbol = (u32, u32, String);

impl ForeignNames {
    /// Reads the section of names and the metadata of an image of `modules` core modules.
    pub(crate) fn read(names: &[u8], metadata: &[u8], modules: usize, symbols: Vec<NamedSymbol>) -> Self {
        if modules == 1
            && let Some(table) = find_table(names.len(), metadata)
        {
            return Self { bytes: names.into(), modules: vec![table] };
        }
        Self::of_symbols(modules, symbols)
    }

    fn of_symbols(modules: usize, mut symbols: Vec<NamedSymbol>) -> Self {
        symbols.sort_unstable();
        let mut bytes = Vec::new();
        let mut tables = vec![Vec::new(); modules];
        for (module, function, name) in symbols {
            let Some(table) = tables.get_mut(module as usize) else { continue };
            let start = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            table.push((function, start..bytes.len()));
        }
        Self { bytes: bytes.into(), modules: tables }
    }
}

/// The table of names that take `length` bytes, if there is one in the metadata.
fn find_table(length: usize, metadata: &[u8]) -> Option<Vec<(u32, Range<usize>)>> {
    // Every place is tried; what is no table ends at its first or second entry, unless somebody wants it to take long.
    let mut fuel = metadata.len().saturating_mul(8);
    let begins = (0..metadata.len()).map(|start| &metadata[start..]);
    begins
        .flat_map(|begin| [(begin, variable as ReadNumber), (begin, fixed as ReadNumber)])
        .find_map(|(begin, number)| table(begin, number, length, &mut fuel))
}

/// Takes a number off the front: one that was written in so many bytes, if its length does not vary.
type ReadNumber = fn(&mut &[u8], usize) -> Option<usize>;

fn table(
    mut bytes: &[u8],
    number: ReadNumber,
    length: usize,
    fuel: &mut usize,
) -> Option<Vec<(u32, Range<usize>)>> {
    let count = number(&mut bytes, size_of::<u64>())?;
    // An entry takes three bytes at least.
    if count == 0 || count > bytes.len() / 3 {
        return None;
    }
    let mut entries: Vec<(u32, Range<usize>)> = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        *fuel = fuel.checked_sub(1)?;
        let function = u32::try_from(number(&mut bytes, size_of::<u32>())?).ok()?;
        let start = number(&mut bytes, size_of::<u32>())?;
        let next = start.checked_add(number(&mut bytes, size_of::<u32>())?)?;
        let ascends = entries.last().is_none_or(|(before, _)| *before < function);
        if !ascends || start != end || next > length {
            return None;
        }
        entries.push((function, start..next));
        end = next;
    }
    (end == length).then_some(entries)
}

/// Seven bits in each byte, the lowest first; the highest bit says that there are more.
fn variable(bytes: &mut &[u8], _: usize) -> Option<usize> {
    let mut value = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

fn fixed(bytes: &mut &[u8], size: usize) -> Option<usize> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.split_off(..size)?);
    usize::try_from(u64::from_le_bytes(word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[u8] = b"mainhelperx";
    const TABLE: [(u32, Range<usize>); 3] = [(6, 0..4), (7, 4..10), (300, 10..11)];

    fn metadata(number: impl Fn(u64, usize) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = vec![3, 0, 0, 0, 0x80, 3, 1, 0, 4];
        bytes.extend(number(3, 8));
        for (function, range) in TABLE {
            for value in [u64::from(function), range.start as u64, range.len() as u64] {
                bytes.extend(number(value, 4));
            }
        }
        bytes.extend([7, 7, 7]);
        bytes
    }

    fn leb(value: u64, _: usize) -> Vec<u8> {
        if value < 0x80 { vec![value as u8] } else { vec![value as u8 | 0x80, (value >> 7) as u8] }
    }

    #[test]
    fn tables_of_both_forms_are_found() {
        for bytes in [metadata(leb), metadata(|value, size| value.to_le_bytes()[..size].to_vec())] {
            let names = ForeignNames::read(NAMES, &bytes, 1, Vec::new());
            assert_eq!(names.modules, [TABLE.to_vec()]);
            assert_eq!(&*names.bytes, NAMES);
        }
    }

    #[test]
    fn a_table_that_does_not_cover_all_names_is_none() {
        let bytes = metadata(leb);
        assert_eq!(find_table(NAMES.len() + 1, &bytes), None);
        assert_eq!(find_table(NAMES.len() - 1, &bytes), None);
        for end in 0..bytes.len() - 3 {
            assert_eq!(find_table(NAMES.len(), &bytes[..end]), None);
        }
    }

    #[test]
    fn without_a_table_symbols_have_the_names() {
        let symbols =
            vec![(1, 4, "late".to_owned()), (0, 2, "early".to_owned()), (9, 9, "nowhere".to_owned())];
        let names = ForeignNames::read(NAMES, &metadata(leb), 2, symbols);
        assert_eq!(names.modules, [vec![(2, 0..5)], vec![(4, 5..9)]]);
        assert_eq!(&*names.bytes, b"earlylate");
    }

    /// Bytes that begin a table at each place take no longer than so many steps for each byte.
    #[test]
    fn hostile_metadata_takes_bounded_time() {
        let mut bytes = Vec::new();
        for function in 0..200_000_u32 {
            bytes.extend(function.to_le_bytes());
            bytes.extend([0; 8]);
        }
        assert_eq!(find_table(5, &bytes), None);
        assert_eq!(find_table(5, &vec![0xff; 1 << 20]), None);
    }
}

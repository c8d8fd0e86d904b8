//! From text offsets to bytecode offsets: `.wasmtime.addrmap`.
//!
//! Wasmtime 48 writes it in blocks. Earlier versions wrote the number of entries, then their text offsets, then their
//! positions, in words of 32 bits: a section of exactly this length, with ascending text offsets, is of that form.

use std::sync::OnceLock;

use flamewalk_handler::code::Function;
use wasmtime_environ::{FilePos, iterate_address_map};

/// A copy of the section, decoded when the first address is looked up.
///
/// Bytecode offsets are relative to the start of the binary that was compiled: of the whole component for a
/// component's core modules, of the adapter itself for a fused adapter.
#[derive(Debug)]
pub(crate) struct AddressMap {
    section: Box<[u8]>,
    entries: OnceLock<Vec<Entry>>,
}

/// From a text offset to that of the next entry, code comes from one instruction, or from none in particular: a
/// prologue, a spill, a constant, code that Wasmtime inlined.
#[derive(Clone, Copy, Debug)]
struct Entry {
    text: u32,
    position: FilePos,
}

impl AddressMap {
    pub(crate) fn new(section: &[u8]) -> AddressMap {
        AddressMap { section: section.into(), entries: OnceLock::new() }
    }

    /// How much memory the section takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.section.len()
    }

    fn entries(&self) -> &[Entry] {
        self.entries.get_or_init(|| {
            if let Some(entries) = entries_in_words(&self.section) {
                return entries;
            }
            let decoded = iterate_address_map(&self.section).into_iter().flatten();
            let decoded = decoded.map(|(text, position)| Entry { text, position });
            // An entry takes a byte at least; more entries than bytes are damage.
            let mut entries: Vec<Entry> = decoded.take(self.section.len()).collect();
            entries.sort_by_key(|entry| entry.text);
            entries
        })
    }

    /// The entries of a function up to a text offset, and those after it.
    fn entries_around(&self, function: Function, offset: u32) -> (&[Entry], &[Entry]) {
        let entries = self.entries();
        let start = entries.partition_point(|entry| entry.text < function.start);
        let middle = entries.partition_point(|entry| entry.text <= offset);
        let end = entries.partition_point(|entry| entry.text < function.end());
        (entries.get(start..middle).unwrap_or_default(), entries.get(middle..end).unwrap_or_default())
    }

    /// The bytecode offset of the instruction at `offset` in `function`.
    pub(crate) fn find(&self, function: Function, offset: u32) -> Option<u32> {
        self.entries_around(function, offset).0.last()?.position.file_offset()
    }

    /// The bytecode offset of the instruction at `offset` in `function`; if it has none, of the next one that has, or else
    /// of the nearest one before it.
    ///
    /// The optimizer forgets where pure operations come from, and puts each right before the first use of its result:
    /// what comes next is what it is for, and in the same loop. What comes before may be outside of it, so that the time
    /// of a whole loop would be shown at the code before it.
    pub(crate) fn find_nearest(&self, function: Function, offset: u32) -> Option<u32> {
        let (before, after) = self.entries_around(function, offset);
        let own = before.last()?;
        let nearest = std::iter::once(own).chain(after).chain(before.iter().rev());
        nearest.filter_map(|entry| entry.position.file_offset()).next()
    }

    /// For each function, the lowest bytecode offset of its instructions. `functions` are sorted.
    pub(crate) fn lowest_offsets(&self, functions: &[Function]) -> Vec<Option<u32>> {
        let last = |function: &Function| function.end().saturating_sub(1);
        let entries = functions.iter().map(|function| self.entries_around(*function, last(function)).0);
        entries.map(|entries| entries.iter().filter_map(|entry| entry.position.file_offset()).min()).collect()
    }
}

/// The entries of a section of versions before 48; `None` if it is none.
fn entries_in_words(section: &[u8]) -> Option<Vec<Entry>> {
    let (words, rest) = section.as_chunks::<4>();
    let (count, words) = words.split_first()?;
    let count = u32::from_le_bytes(*count) as usize;
    if !rest.is_empty() || words.len() != count.checked_mul(2)? {
        return None;
    }
    let word = |word: &[u8; 4]| u32::from_le_bytes(*word);
    let (texts, positions) = words.split_at(count);
    let entries = texts.iter().zip(positions).map(|(text, position)| Entry {
        text: word(text),
        position: match word(position) {
            u32::MAX => FilePos::none(),
            position => FilePos::new(position),
        },
    });
    let entries: Vec<Entry> = entries.collect();
    entries.is_sorted_by_key(|entry| entry.text).then_some(entries)
}

#[cfg(test)]
mod tests {
    use flamewalk_handler::code::CodeKind;

    use super::*;

    fn section(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn maps_of_earlier_versions_are_told_apart_by_their_length() {
        let bytes = section(&[3, 0, 4, 9, 100, u32::MAX, 107]);
        let map = AddressMap::new(&bytes);
        let function = Function { start: 0, length: 12, kind: CodeKind::Guest, frame_size: 0 };
        let found: Vec<_> = [0, 3, 4, 8, 9, 11].map(|offset| map.find(function, offset)).into();
        assert_eq!(found, [Some(100), Some(100), None, None, Some(107), Some(107)]);
        assert_eq!(map.find_nearest(function, 8), Some(107));
        // One word less or more, or text offsets that descend: damage, or another form.
        let longer = [bytes.as_slice(), &[0; 4]].concat();
        for other in [&bytes[..bytes.len() - 4], &longer, &section(&[2, 5, 4, 1, 1])] {
            assert!(entries_in_words(other).is_none());
        }
    }
}

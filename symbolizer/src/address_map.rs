//! From text offsets to bytecode offsets: `.wasmtime.addrmap`.
//!
//! Wasmtime 48 writes it in blocks. Earlier versions wrote the number of entries, then their text offsets, then their
//! positions, in words of 32 bits: a section of exactly this length, with ascending text offsets, is of that form.

use std::borrow::Cow;
use std::sync::OnceLock;

use flamewalk_handler::code::Function;
use wasmtime_environ::{FilePos, iterate_address_map};

/// A copy of the section, of which only the blocks are decoded that are asked for.
///
/// Bytecode offsets are relative to the start of the binary that was compiled: of the whole component for a
/// component's core modules, of the adapter itself for a fused adapter.
#[derive(Debug)]
pub(crate) struct AddressMap {
    section: Box<[u8]>,
    /// All entries, of an image of a version that wrote them in words.
    words: OnceLock<Option<Vec<Entry>>>,
}

/// From a text offset to that of the next entry, code comes from one instruction, or from none in particular: a
/// prologue, a spill, a constant, code that Wasmtime inlined.
#[derive(Clone, Copy, Debug)]
struct Entry {
    text: u32,
    position: FilePos,
}

/// A block's first text offset, and where its entries lie behind the index; both little-endian.
type IndexEntry = [u8; 8];

impl AddressMap {
    pub(crate) fn new(section: &[u8]) -> AddressMap {
        AddressMap { section: section.into(), words: OnceLock::new() }
    }

    /// How much memory the section takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.section.len()
    }

    fn words(&self) -> Option<&[Entry]> {
        self.words.get_or_init(|| entries_in_words(&self.section)).as_deref()
    }

    /// The index of the blocks, and the bytes that it points into. Behind the numbers of entries and of blocks.
    fn blocks(&self) -> Option<(&[IndexEntry], &[u8])> {
        let count = self.section.get(4..8)?.try_into().ok().map(u32::from_le_bytes)?;
        let (index, bodies) = self.section[8..].split_at_checked(8 * usize::try_from(count).ok()?)?;
        Some((index.as_chunks().0, bodies))
    }

    /// The block that holds the last entry at or before a text offset, and how many there are.
    fn block_of(&self, offset: u32) -> Option<(usize, usize)> {
        if self.words().is_some() {
            return Some((0, 1));
        }
        let (index, _) = self.blocks()?;
        let after = index.partition_point(|[a, b, c, d, ..]| u32::from_le_bytes([*a, *b, *c, *d]) <= offset);
        Some((after.checked_sub(1)?, index.len()))
    }

    /// The entries of a block, sorted. All those in words are one.
    fn entries_of(&self, block: usize) -> Cow<'_, [Entry]> {
        match self.words() {
            Some(words) => Cow::Borrowed(words),
            None => Cow::Owned(self.decode(block).unwrap_or_default()),
        }
    }

    /// Decodes one block with Wasmtime's own decoder, by a section that has only this block.
    fn decode(&self, block: usize) -> Option<Vec<Entry>> {
        let (index, bodies) = self.blocks()?;
        let position =
            |entry: &IndexEntry| u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]) as usize;
        let entry = index.get(block)?;
        let end = index.get(block + 1).map_or(bodies.len(), position);
        // As many entries as there are, one block, which starts where the index ends.
        let header = [&u32::MAX.to_le_bytes()[..], &1_u32.to_le_bytes(), &entry[..4], &[0; 4]];
        let section = [&header.concat(), bodies.get(position(entry)..end)?].concat();
        let entries = iterate_address_map(&section)?.map(|(text, position)| Entry { text, position });
        Some(entries.collect())
    }

    /// The bytecode offset of the instruction at `offset` in `function`.
    pub(crate) fn find(&self, function: Function, offset: u32) -> Option<u32> {
        let entries = self.entries_of(self.block_of(offset)?.0);
        let own = entries[..entries.partition_point(|entry| entry.text <= offset)].last()?;
        own.position.file_offset().filter(|_| own.text >= function.start)
    }

    /// The bytecode offset of the instruction at `offset` in `function`; if it has none, of the next one that has, or else
    /// of the nearest one before it.
    ///
    /// The optimizer forgets where pure operations come from, and puts each right before the first use of its result:
    /// what comes next is what it is for, and in the same loop. What comes before may be outside of it, so that the time
    /// of a whole loop would be shown at the code before it.
    pub(crate) fn find_nearest(&self, function: Function, offset: u32) -> Option<u32> {
        let (block, count) = self.block_of(offset)?;
        let entries = self.entries_of(block);
        let own = entries.partition_point(|entry| entry.text <= offset).checked_sub(1)?;
        if entries[own].text < function.start {
            return None;
        }
        let (before, after) = entries.split_at(own);
        let later = (block + 1..count).flat_map(|block| self.entries_of(block).into_owned());
        let earlier =
            (0..block).rev().flat_map(|block| self.entries_of(block).into_owned().into_iter().rev());
        let after = after.iter().copied().chain(later).take_while(|entry| entry.text < function.end());
        let before =
            before.iter().rev().copied().chain(earlier).take_while(|entry| entry.text >= function.start);
        after.chain(before).find_map(|entry| entry.position.file_offset())
    }

    /// For each function, the lowest bytecode offset of its instructions. `functions` are sorted.
    pub(crate) fn lowest_offsets(&self, functions: &[Function]) -> Vec<Option<u32>> {
        match self.words() {
            Some(words) => lowest_offsets(functions, words.iter().map(|entry| (entry.text, entry.position))),
            None => {
                let entries = iterate_address_map(&self.section).into_iter().flatten();
                // An entry takes a byte at least; more entries than bytes are damage.
                lowest_offsets(functions, entries.take(self.section.len()))
            }
        }
    }
}

fn lowest_offsets(functions: &[Function], entries: impl Iterator<Item = (u32, FilePos)>) -> Vec<Option<u32>> {
    let mut lowest: Vec<Option<u32>> = vec![None; functions.len()];
    let mut index = 0;
    for (text, position) in entries {
        while functions.get(index).is_some_and(|function| function.end() <= text) {
            index += 1;
        }
        let Some(function) = functions.get(index) else { break };
        if let Some(offset) = position.file_offset().filter(|_| function.start <= text) {
            lowest[index] = Some(lowest[index].map_or(offset, |lowest| lowest.min(offset)));
        }
    }
    lowest
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

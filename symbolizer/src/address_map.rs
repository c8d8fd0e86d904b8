//! From text offsets to bytecode offsets: `.wasmtime.addrmap`.
//!
//! Wasmtime 48 writes it in blocks. Earlier versions wrote the number of entries, then their text offsets, then their
//! positions, in words of 32 bits: a section of exactly this length, with ascending text offsets, is of that form.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use flamewalk_handler::code::Function;
use gimli::{EndianSlice, LittleEndian, Reader as _};
use wasmtime_environ::FilePos;

/// A copy of the section, of which only the blocks are decoded that are asked for.
///
/// Bytecode offsets are relative to the start of the binary that was compiled: of the whole component for a
/// component's core modules, of the adapter itself for a fused adapter.
#[derive(Debug)]
pub(crate) struct AddressMap {
    section: Box<[u8]>,
    form: OnceLock<Form>,
}

/// What a section is.
#[derive(Debug)]
enum Form {
    /// All entries, of an image of a version that wrote them in words.
    Words(Vec<Entry>),
    /// So many blocks.
    Blocks(usize),
    Damaged,
}

/// From a text offset to that of the next entry, code comes from one instruction, or from none in particular: a
/// prologue, a spill, a constant, code that Wasmtime inlined.
#[derive(Clone, Copy, Debug)]
struct Entry {
    text: u32,
    position: FilePos,
}

/// How many entries Wasmtime 48 puts in a block at most, and how many of a version that wrote them in words are taken as one.
const ENTRIES_IN_BLOCK: usize = 128;

/// A block's first text offset, and where its entries lie behind the index; both little-endian.
type IndexEntry = [u8; 8];

impl AddressMap {
    pub(crate) fn new(section: &[u8]) -> AddressMap {
        AddressMap { section: section.into(), form: OnceLock::new() }
    }

    /// How much memory the section takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.section.len()
    }

    fn form(&self) -> &Form {
        self.form.get_or_init(|| match entries_in_words(&self.section) {
            Some(words) => Form::Words(words),
            None => block_count(&self.section).map_or(Form::Damaged, Form::Blocks),
        })
    }

    fn words(&self) -> Option<&[Entry]> {
        match self.form() {
            Form::Words(words) => Some(words),
            _ => None,
        }
    }

    /// The index of the blocks, and the bytes that it points into.
    fn blocks(&self) -> Option<(&[IndexEntry], &[u8])> {
        match self.form() {
            Form::Blocks(count) => split_blocks(&self.section, *count),
            _ => None,
        }
    }

    /// How many blocks there are. Entries in words are taken as blocks as well.
    fn block_count(&self) -> usize {
        match self.words() {
            Some(words) => words.len().div_ceil(ENTRIES_IN_BLOCK),
            None => self.blocks().map_or(0, |(index, _)| index.len()),
        }
    }

    /// The text offset of a block's first entry; `None` behind the last block.
    fn block_start(&self, block: usize) -> Option<u32> {
        match self.words() {
            Some(words) => words.chunks(ENTRIES_IN_BLOCK).nth(block).map(|entries| entries[0].text),
            None => self.blocks()?.0.get(block).map(block_start),
        }
    }

    /// The block that holds the last entry at or before a text offset.
    fn block_of(&self, offset: u32) -> Option<usize> {
        let after = match self.words() {
            Some(words) => {
                let after = words.partition_point(|entry| entry.text <= offset);
                after.div_ceil(ENTRIES_IN_BLOCK)
            }
            None => self.blocks()?.0.partition_point(|entry| block_start(entry) <= offset),
        };
        after.checked_sub(1)
    }

    /// Calls `each` with the entries of a block, which are sorted, until it breaks.
    fn visit<T>(&self, block: usize, each: impl FnMut(Entry) -> ControlFlow<T>) -> ControlFlow<T> {
        if let Some(words) = self.words() {
            let entries = words.chunks(ENTRIES_IN_BLOCK).nth(block).unwrap_or_default();
            return entries.iter().copied().try_for_each(each);
        }
        self.entries_of(block).into_iter().flatten().try_for_each(each)
    }

    /// The entries of a block of Wasmtime 48's.
    fn entries_of(&self, block: usize) -> Option<BlockEntries<'_>> {
        let (index, bodies) = self.blocks()?;
        let entry = index.get(block)?;
        let end = index.get(block + 1).map_or(bodies.len(), block_position);
        let rest = EndianSlice::new(bodies.get(block_position(entry)..end)?, LittleEndian);
        Some(BlockEntries { rest, left: ENTRIES_IN_BLOCK, text: block_start(entry), position: None })
    }

    /// The bytecode offset of the instruction at `offset` in `function`.
    pub(crate) fn find(&self, function: Function, offset: u32) -> Option<u32> {
        let mut own: Option<Entry> = None;
        _ = self.visit(self.block_of(offset)?, |entry| {
            if entry.text > offset {
                return ControlFlow::Break(());
            }
            own = Some(entry);
            ControlFlow::Continue(())
        });
        own.filter(|own| own.text >= function.start)?.position.file_offset()
    }

    /// The bytecode offset of the instruction at `offset` in `function`; if it has none, of the next one that has, or else
    /// of the nearest one before it.
    ///
    /// The optimizer forgets where pure operations come from, and puts each right before the first use of its result:
    /// what comes next is what it is for, and in the same loop. What comes before may be outside of it, so that the time
    /// of a whole loop would be shown at the code before it.
    pub(crate) fn find_nearest(&self, function: Function, offset: u32) -> Option<u32> {
        let own_block = self.block_of(offset)?;
        let mut own: Option<Entry> = None;
        let mut before = None;
        let mut pass = |entry: Entry| {
            let position = entry.position.file_offset();
            if entry.text <= offset {
                own = Some(entry);
                before = position.filter(|_| entry.text >= function.start).or(before);
                return ControlFlow::Continue(());
            }
            let is_open =
                own.is_some_and(|own| own.text >= function.start && own.position == FilePos::none());
            match position {
                None if is_open && entry.text < function.end() => ControlFlow::Continue(()),
                _ => ControlFlow::Break(position.filter(|_| is_open && entry.text < function.end())),
            }
        };
        let after =
            (own_block..self.block_count()).find_map(|block| self.visit(block, &mut pass).break_value());
        own.filter(|own| own.text >= function.start)?;
        let earlier = || {
            let blocks = (0..own_block).rev();
            let mut blocks = blocks.take_while(|block| self.block_start(block + 1) >= Some(function.start));
            blocks.find_map(|block| self.last_offset(block, function))
        };
        after.flatten().or(before).or_else(earlier)
    }

    /// The bytecode offset of the last of a function's instructions in a block that has one.
    fn last_offset(&self, block: usize, function: Function) -> Option<u32> {
        let mut last = None;
        _ = self.visit(block, |entry| {
            last = entry.position.file_offset().filter(|_| entry.text >= function.start).or(last);
            ControlFlow::<()>::Continue(())
        });
        last
    }

    /// For each function, the bytecode offset of its first instruction that has one. `functions` are sorted. Only those
    /// blocks are decoded that are needed for it.
    pub(crate) fn first_offsets(&self, functions: &[Function]) -> Vec<Option<u32>> {
        let mut first = vec![None; functions.len()];
        let mut index = 0;
        for block in 0..self.block_count() {
            let end = self.block_start(block + 1).unwrap_or(u32::MAX);
            let begins = |index: usize| functions.get(index).filter(|function| function.start < end);
            if begins(index).is_none() {
                continue;
            }
            _ = self.visit(block, |entry| {
                while functions.get(index).is_some_and(|function| function.end() <= entry.text) {
                    index += 1;
                }
                let Some(function) = begins(index) else { return ControlFlow::Break(()) };
                let offset = entry.position.file_offset().filter(|_| function.start <= entry.text);
                if offset.is_some() {
                    first[index] = offset;
                    index += 1;
                }
                ControlFlow::Continue(())
            });
        }
        first
    }

    /// For each function, the lowest bytecode offset of its instructions. `functions` are sorted.
    pub(crate) fn lowest_offsets(&self, functions: &[Function]) -> Vec<Option<u32>> {
        let mut lowest: Vec<Option<u32>> = vec![None; functions.len()];
        let mut index = 0;
        for block in 0..self.block_count() {
            _ = self.visit(block, |entry| {
                while functions.get(index).is_some_and(|function| function.end() <= entry.text) {
                    index += 1;
                }
                let Some(function) = functions.get(index) else { return ControlFlow::Break(()) };
                let offset = entry.position.file_offset().filter(|_| function.start <= entry.text);
                lowest[index] = match (lowest[index], offset) {
                    (Some(lowest), Some(offset)) => Some(lowest.min(offset)),
                    (lowest, offset) => lowest.or(offset),
                };
                ControlFlow::Continue(())
            });
        }
        lowest
    }
}

/// The entries of a block, which ends where they are damaged.
///
/// Each is the distance of its text offset from that of the entry before it, doubled, and one more if it comes from no
/// instruction. Otherwise its position follows: the first one of the block, then distances. Wasmtime's own decoder begins
/// with the first block of a section, so that each block would have to be copied into a section of its own.
struct BlockEntries<'section> {
    rest: EndianSlice<'section, LittleEndian>,
    left: usize,
    text: u32,
    position: Option<u32>,
}

impl BlockEntries<'_> {
    /// The next byte if it is a whole number, as nearly all are.
    fn whole(&mut self) -> Option<u8> {
        let whole = self.rest.slice().first().copied().filter(|byte| *byte < 0x80)?;
        self.rest.skip(1).ok()?;
        Some(whole)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let whole = self.whole().map(u64::from);
        whole.or_else(|| self.rest.read_uleb128().ok())
    }

    fn position(&mut self) -> Option<u32> {
        let Some(before) = self.position else { return u32::try_from(self.unsigned()?).ok() };
        // Seven bits with a sign.
        let whole = self.whole().map(|byte| i64::from((byte << 1).cast_signed() >> 1));
        let distance = whole.or_else(|| self.rest.read_sleb128().ok())?;
        before.checked_add_signed(i32::try_from(distance).ok()?)
    }
}

impl Iterator for BlockEntries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.left = self.left.checked_sub(1)?;
        let token = self.unsigned()?;
        self.text = self.text.checked_add(u32::try_from(token >> 1).ok()?)?;
        if token & 1 != 0 {
            return Some(Entry { text: self.text, position: FilePos::none() });
        }
        self.position = Some(self.position()?);
        // A position that would be none is damage.
        let position = self.position.filter(|position| *position != u32::MAX)?;
        Some(Entry { text: self.text, position: FilePos::new(position) })
    }
}

/// The index of so many blocks, and the bytes that it points into. Behind the numbers of entries and of blocks.
fn split_blocks(section: &[u8], count: usize) -> Option<(&[IndexEntry], &[u8])> {
    let (index, bodies) = section.get(8..)?.split_at_checked(count.checked_mul(size_of::<IndexEntry>())?)?;
    Some((index.as_chunks().0, bodies))
}

/// How many blocks a section has; `None` if they do not lie one behind the other. If they could overlap, a small section
/// would hold far more than it has bytes.
fn block_count(section: &[u8]) -> Option<usize> {
    let count = section.get(4..8)?.try_into().ok().map(u32::from_le_bytes)? as usize;
    let (index, bodies) = split_blocks(section, count)?;
    let is_inside = index.last().is_none_or(|entry| block_position(entry) <= bodies.len());
    (is_inside && index.is_sorted_by_key(block_position)).then_some(count)
}

/// Where a block's entries lie behind the index.
fn block_position([.., a, b, c, d]: &IndexEntry) -> usize {
    u32::from_le_bytes([*a, *b, *c, *d]) as usize
}

/// The text offset that a block starts with.
fn block_start([a, b, c, d, ..]: &IndexEntry) -> u32 {
    u32::from_le_bytes([*a, *b, *c, *d])
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
    use proptest::prelude::*;
    use wasmtime_environ::iterate_address_map;

    use super::*;

    fn section(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn maps_of_earlier_versions_are_told_apart_by_their_length() {
        let bytes = section(&[3, 0, 4, 9, 100, u32::MAX, 107]);
        let map = AddressMap::new(&bytes);
        let function = function(0, 12);
        let found: Vec<_> = [0, 3, 4, 8, 9, 11].map(|offset| map.find(function, offset)).into();
        assert_eq!(found, [Some(100), Some(100), None, None, Some(107), Some(107)]);
        assert_eq!(map.find_nearest(function, 8), Some(107));
        // One word less or more, or text offsets that descend: damage, or another form.
        let longer = [bytes.as_slice(), &[0; 4]].concat();
        for other in [&bytes[..bytes.len() - 4], &longer, &section(&[2, 5, 4, 1, 1])] {
            assert!(entries_in_words(other).is_none());
        }
    }

    /// Wasmtime's decoder, of a section with this block only.
    fn decoded_by_wasmtime(block: &[u8], start: u32) -> Vec<(u32, FilePos)> {
        let section = [&section(&[ENTRIES_IN_BLOCK as u32, 1, start, 0])[..], block].concat();
        iterate_address_map(&section).into_iter().flatten().collect()
    }

    fn decoded(block: &[u8], start: u32) -> Vec<(u32, FilePos)> {
        let map = AddressMap::new(&[&section(&[ENTRIES_IN_BLOCK as u32, 1, start, 0])[..], block].concat());
        let entries = map.entries_of(0).into_iter().flatten();
        entries.map(|entry| (entry.text, entry.position)).collect()
    }

    /// A section of 16 MB whose blocks each were nearly all of it kept a thread busy for hours.
    #[test]
    fn blocks_that_overlap_are_damage() {
        let map = |positions: [u32; 3]| {
            let index: Vec<u32> =
                [0, 8, 16].into_iter().zip(positions).flat_map(|(text, at)| [text, at]).collect();
            AddressMap::new(&[section(&[&[384, 3][..], &index].concat()), vec![0; 12]].concat())
        };
        assert_eq!(map([0, 4, 8]).block_count(), 3);
        for overlapping in [[0, 8, 4], [0, 4, 13], [12, 0, 12]] {
            assert_eq!(map(overlapping).block_count(), 0, "{overlapping:?}");
            assert_eq!(map(overlapping).find(function(0, 100), 9), None);
        }
    }

    fn function(start: u32, length: u32) -> Function {
        Function { start, length, kind: CodeKind::Guest, frame_size: 0 }
    }

    /// Functions of some blocks in all, the lengths of their entries, and what these come from: mostly from nothing.
    fn functions() -> impl Strategy<Value = Vec<Vec<(u32, Option<u32>)>>> {
        let position = prop_oneof![20 => Just(None), 1 => (0..100_u32).prop_map(Some)];
        let entries = proptest::collection::vec((1..4_u32, position), 0..4 * ENTRIES_IN_BLOCK);
        proptest::collection::vec(entries, 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Of whatever bytes: mostly small numbers, as in images, and numbers of any length.
        #[test]
        fn blocks_are_decoded_as_wasmtime_does(
            block in proptest::collection::vec(prop_oneof![4 => 0..0x80_u8, 1 => any::<u8>()], 0..600),
            start in prop_oneof![3 => 0..1000_u32, 1 => any::<u32>()],
        ) {
            prop_assert_eq!(decoded(&block, start), decoded_by_wasmtime(&block, start));
        }

        #[test]
        fn what_is_found_in_blocks_is_what_all_entries_say(lengths in functions()) {
            let (mut functions, mut entries, mut end) = (Vec::new(), Vec::new(), 0);
            for function_lengths in &lengths {
                let start = end;
                // Behind it a byte that belongs to no function, with an entry of its own.
                for (length, position) in function_lengths.iter().chain(&[(1, None)]) {
                    entries.push((end, *position));
                    end += length;
                }
                functions.push(function(start, end - 1 - start));
            }
            let count = entries.len() as u32;
            let texts = entries.iter().map(|(text, _)| *text);
            let positions = entries.iter().map(|(_, position)| position.unwrap_or(u32::MAX));
            let words: Vec<u32> = [count].into_iter().chain(texts).chain(positions).collect();
            let map = AddressMap::new(&section(&words));

            for (index, function) in functions.iter().enumerate() {
                let own: Vec<_> = entries.iter().filter(|(text, _)| (function.start..function.end()).contains(text)).collect();
                let known: Vec<u32> = own.iter().filter_map(|(_, position)| *position).collect();
                prop_assert_eq!(map.first_offsets(&functions)[index], known.first().copied());
                prop_assert_eq!(map.lowest_offsets(&functions)[index], known.iter().min().copied());
                for offset in function.start..function.end() {
                    let after = own.partition_point(|(text, _)| *text <= offset);
                    let here = own[after - 1].1;
                    prop_assert_eq!(map.find(*function, offset), here);
                    let next = own[after - 1..].iter().find_map(|(_, position)| *position);
                    let before = own[..after].iter().rev().find_map(|(_, position)| *position);
                    prop_assert_eq!(map.find_nearest(*function, offset), next.or(before));
                }
            }
        }
    }
}

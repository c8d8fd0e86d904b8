//! From text offsets to bytecode offsets: `.wasmtime.addrmap`.

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
            let decoded = iterate_address_map(&self.section).into_iter().flatten();
            let decoded = decoded.map(|(text, position)| Entry { text, position });
            // An entry takes a byte at least; more entries than bytes are damage.
            let mut entries: Vec<Entry> = decoded.take(self.section.len()).collect();
            entries.sort_by_key(|entry| entry.text);
            entries
        })
    }

    /// The entries of a function up to a text offset.
    fn entries_before(&self, function: Function, offset: u32) -> &[Entry] {
        let entries = self.entries();
        let start = entries.partition_point(|entry| entry.text < function.start);
        let end = entries.partition_point(|entry| entry.text <= offset);
        entries.get(start..end).unwrap_or_default()
    }

    /// The bytecode offset of the instruction at `offset` in `function`.
    pub(crate) fn find(&self, function: Function, offset: u32) -> Option<u32> {
        self.entries_before(function, offset).last()?.position.file_offset()
    }

    /// The bytecode offset of the instruction at `offset` in `function`, or of the nearest one before it.
    pub(crate) fn find_nearest(&self, function: Function, offset: u32) -> Option<u32> {
        let before = self.entries_before(function, offset);
        before.iter().rev().find_map(|entry| entry.position.file_offset())
    }

    /// For each function, the lowest bytecode offset of its instructions. `functions` are sorted.
    pub(crate) fn lowest_offsets(&self, functions: &[Function]) -> Vec<Option<u32>> {
        let entries =
            functions.iter().map(|function| self.entries_before(*function, function.end().saturating_sub(1)));
        entries.map(|entries| entries.iter().filter_map(|entry| entry.position.file_offset()).min()).collect()
    }
}

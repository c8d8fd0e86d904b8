//! From text offsets to bytecode offsets: `.wasmtime.addrmap`.

use flamewalk_handler::code::Function;
use wasmtime_environ::{iterate_address_map, lookup_file_pos};

/// How far back from an unmapped instruction the last mapped one is looked for, in bytes. Compiled code has no
/// unmapped stretch that comes near; the bound is for images that were tampered with.
const LONGEST_UNMAPPED_STRETCH: u32 = 4096;

/// A copy of the section. Bytecode offsets are relative to the start of the binary that was compiled: of the
/// whole component for a component's core modules, of the adapter itself for a fused adapter.
#[derive(Debug)]
pub(crate) struct AddressMap(Box<[u8]>);

impl AddressMap {
    pub(crate) fn new(section: &[u8]) -> AddressMap {
        AddressMap(section.into())
    }

    /// The bytecode offset of the instruction at `offset`, or of the nearest one before it in `function` if
    /// the instruction itself comes from none (a prologue, a spill).
    pub(crate) fn find(&self, function: Function, offset: u32) -> Option<u32> {
        let first = function.start.max(offset.saturating_sub(LONGEST_UNMAPPED_STRETCH));
        (first..=offset).rev().find_map(|offset| {
            let offset = usize::try_from(offset).ok()?;
            lookup_file_pos(&self.0, offset)?.file_offset()
        })
    }

    /// For each function, the bytecode offset of its first mapped instruction. `functions` are sorted.
    pub(crate) fn first_instructions(&self, functions: &[Function]) -> Vec<Option<u32>> {
        let mut first = vec![None; functions.len()];
        let mut index = 0;
        for (offset, position) in iterate_address_map(&self.0).into_iter().flatten() {
            while functions.get(index).is_some_and(|function| function.end() <= offset) {
                index += 1;
            }
            let Some(function) = functions.get(index) else { break };
            if function.start <= offset && first[index].is_none() {
                first[index] = position.file_offset();
            }
        }
        first
    }
}

//! One function and everything that was inlined into it.

use std::sync::Arc;

use gimli::{AttributeValue, DebugInfoOffset, UnitOffset};

use super::entries::Entries;
use super::fuel::Fuel;
use super::lines::Position;
use super::names::{DwarfName, Names};
use super::ranges::{AddressRange, RangeAttributes};
use super::units::Units;
use super::{OutOfFuel, Reader, Sections, Stop, Unit};

/// Inlined functions that are nested more deeply are left out: no compiler nests as deep.
const DEEPEST_INLINING: usize = 256;

/// A function's name and its inlined functions.
pub(crate) struct FunctionScope {
    pub(crate) name: Option<Arc<DwarfName>>,
    /// A parent comes before its children, and children before the parent's next sibling.
    inlined: Vec<Inlined>,
    /// Sorted by start.
    stretches: Vec<Stretch>,
}

/// One copy of a function that was inlined.
pub(crate) struct Inlined {
    /// The copy that it was inlined into, as an index; `None` if that is the function itself.
    pub(crate) parent: Option<u32>,
    /// The entry in `.debug_info` that has its name.
    pub(crate) origin: Option<DebugInfoOffset>,
    /// The name to show, once it has been asked for.
    pub(crate) shown: Option<Arc<str>>,
    /// Where it was called.
    pub(crate) call: Position,
}

/// From an address to that of the next stretch, the same copies of functions cover the code.
#[derive(Clone, Copy)]
struct Stretch {
    start: u32,
    /// The innermost of them.
    innermost: Option<u32>,
}

impl FunctionScope {
    /// Reads the tree of a subprogram's entry.
    pub(crate) fn read(
        sections: &Sections<'_>,
        units: &mut Units,
        names: &mut Names,
        unit_index: usize,
        root: UnitOffset,
        fuel: &mut Fuel,
    ) -> Result<FunctionScope, Stop> {
        let (open_unit, kinds) = units.open_with_kinds(sections, unit_index, fuel)?;
        let unit = open_unit.unit_ref(sections);
        let name = names.of_entry(sections, units, &open_unit, root, fuel)?;
        let mut scope = FunctionScope { name, inlined: Vec::new(), stretches: Vec::new() };
        let mut covered: Vec<(AddressRange, u32)> = Vec::new();
        let mut entries = Entries::new(sections, &open_unit, &kinds, Some(root))?;
        // The open copies, outermost first: depth of the entry and index.
        let mut open: Vec<(isize, u32)> = Vec::new();
        // The depth of an entry whose children do not belong here.
        let mut skipped: Option<isize> = None;
        // The root itself lies above all of its own.
        let mut floor = -1;
        while let Some(entry) = entries.next(floor, fuel)? {
            let depth = entry.depth;
            if skipped.is_some_and(|skipped| entry.least_depth <= skipped) {
                skipped = None;
            }
            while open.last().is_some_and(|(open_depth, _)| entry.least_depth <= *open_depth) {
                open.pop();
            }
            let is_inlined = entry.tag == gimli::DW_TAG_inlined_subroutine;
            let is_nested = entry.tag == gimli::DW_TAG_subprogram && floor == 0;
            floor = 0;
            if skipped.is_none() && (is_nested || is_inlined && open.len() >= DEEPEST_INLINING) {
                skipped = Some(depth);
            }
            if skipped.is_some() || !is_inlined {
                entries.skip(entry)?;
                continue;
            }
            let parent = open.last().map(|(_, index)| *index);
            let mut inlined = Inlined { parent, origin: None, shown: None, call: Position::default() };
            let mut ranges = RangeAttributes::default();
            entries.read(entry, |attribute| {
                inlined.note(&open_unit, attribute.name(), attribute.value());
                ranges.note(unit, attribute.name(), attribute.value())
            })?;
            // There are no more than bytes in the file, which is smaller than 4 GiB.
            let index = scope.inlined.len() as u32;
            ranges.read(unit, fuel, |range| covered.push((range, index)))?;
            open.push((depth, index));
            scope.inlined.push(inlined);
        }
        scope.stretches = scope.divide(&covered, fuel)?;
        Ok(scope)
    }

    /// Divides the function into stretches of code that the same copies cover, which is checked in the order of their
    /// entries: of copies that overlap and do not contain each other, the first one counts.
    fn divide(&self, covered: &[(AddressRange, u32)], fuel: &mut Fuel) -> Result<Vec<Stretch>, OutOfFuel> {
        // No body reaches to addresses beyond 32 bits.
        let address = |address: u64| u32::try_from(address).unwrap_or(u32::MAX);
        let ends = covered.iter().flat_map(|(range, _)| [address(range.start), address(range.end)]);
        let mut starts: Vec<u32> = ends.collect();
        starts.sort_unstable();
        starts.dedup();
        let mut stretches: Vec<_> =
            starts.into_iter().map(|start| Stretch { start, innermost: None }).collect();
        for (range, index) in covered {
            let first = stretches.partition_point(|stretch| stretch.start < address(range.start));
            let inside = stretches[first..].iter_mut();
            let parent = self.inlined[*index as usize].parent;
            for stretch in inside.take_while(|stretch| stretch.start < address(range.end)) {
                fuel.burn(1)?;
                if stretch.innermost == parent {
                    stretch.innermost = Some(*index);
                }
            }
        }
        stretches.dedup_by_key(|stretch| stretch.innermost);
        stretches.shrink_to_fit();
        Ok(stretches)
    }

    /// The innermost of the copies that cover an address, as an index; `None` if only the function itself does.
    pub(crate) fn innermost_at(&self, address: u32) -> Option<u32> {
        let after = self.stretches.partition_point(|stretch| stretch.start <= address);
        self.stretches.get(after.checked_sub(1)?)?.innermost
    }

    /// One of the copies, by its index.
    pub(crate) fn copy(&mut self, index: u32) -> Option<&mut Inlined> {
        self.inlined.get_mut(index as usize)
    }
}

impl Inlined {
    fn note(&mut self, unit: &Unit<'_>, name: gimli::DwAt, value: AttributeValue<Reader<'_>>) {
        let number = || value.udata_value().and_then(|value| u32::try_from(value).ok()).unwrap_or_default();
        match (name, &value) {
            (gimli::DW_AT_call_file, AttributeValue::FileIndex(file)) => {
                self.call.file = u32::try_from(*file).ok();
            }
            (gimli::DW_AT_call_line, _) => self.call.line = number(),
            (gimli::DW_AT_call_column, _) => self.call.column = number(),
            (gimli::DW_AT_abstract_origin, AttributeValue::UnitRef(entry)) => {
                self.origin = entry.to_debug_info_offset(&unit.header);
            }
            (gimli::DW_AT_abstract_origin, AttributeValue::DebugInfoRef(entry)) => self.origin = Some(*entry),
            _ => {}
        }
    }
}

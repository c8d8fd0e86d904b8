//! One function and everything that was inlined into it.

use std::sync::Arc;

use gimli::{AttributeValue, UnitOffset};

use super::fuel::Fuel;
use super::lines::Position;
use super::names::Names;
use super::units::{AddressRange, RangeAttributes, Units};
use super::{Reader, Sections, Stop};

/// Inlined functions that are nested more deeply are left out: no compiler nests as deep.
const DEEPEST_INLINING: usize = 256;

/// A function's name and its inlined functions.
pub(crate) struct FunctionScope {
    pub(crate) name: Option<Arc<str>>,
    /// A parent comes before its children, and children before the parent's next sibling.
    inlined: Vec<Inlined>,
}

/// One copy of a function that was inlined.
pub(crate) struct Inlined {
    /// The copy that it was inlined into, as an index; `None` if that is the function itself.
    parent: Option<usize>,
    ranges: Vec<AddressRange>,
    pub(crate) name: Option<Arc<str>>,
    /// Where it was called.
    pub(crate) call: Position,
}

impl FunctionScope {
    /// Reads the tree of a subprogram's entry.
    pub(crate) fn read(
        sections: &Sections<'_>,
        units: &mut Units,
        names: &mut Names,
        unit_index: usize,
        entry: UnitOffset,
        fuel: &mut Fuel,
    ) -> Result<FunctionScope, Stop> {
        let open_unit = units.open(sections, unit_index, fuel)?;
        let unit = open_unit.unit_ref(sections);
        let name = names.of_entry(sections, units, &open_unit, entry, fuel)?;
        let mut scope = FunctionScope { name, inlined: Vec::new() };
        let mut entries = unit.entries_raw(Some(entry))?;
        let root_depth = entries.next_depth();
        // The open copies, outermost first: depth of the entry and index.
        let mut open: Vec<(isize, usize)> = Vec::new();
        // The depth of an entry whose children do not belong here.
        let mut skipped: Option<isize> = None;
        let mut is_root = true;
        while !entries.is_empty() {
            let depth = entries.next_depth();
            if !is_root && depth <= root_depth {
                break;
            }
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            fuel.burn(1 + abbreviation.attributes().len())?;
            if skipped.is_some_and(|skipped| depth <= skipped) {
                skipped = None;
            }
            while open.last().is_some_and(|(open_depth, _)| depth <= *open_depth) {
                open.pop();
            }
            let is_inlined = abbreviation.tag() == gimli::DW_TAG_inlined_subroutine;
            let is_nested = abbreviation.tag() == gimli::DW_TAG_subprogram && !is_root;
            is_root = false;
            if skipped.is_none() && (is_nested || is_inlined && open.len() >= DEEPEST_INLINING) {
                skipped = Some(depth);
            }
            if skipped.is_some() || !is_inlined {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let parent = open.last().map(|(_, index)| *index);
            let mut inlined = Inlined { parent, ranges: Vec::new(), name: None, call: Position::default() };
            let mut ranges = RangeAttributes::default();
            let mut origin = None;
            for specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(*specification)?;
                inlined.note_call(attribute.name(), &attribute.value());
                if attribute.name() == gimli::DW_AT_abstract_origin {
                    origin = Some(attribute.value());
                }
                ranges.note(unit, attribute.name(), attribute.value())?;
            }
            ranges.read(unit, fuel, |range| inlined.ranges.push(range))?;
            if let Some(origin) = origin {
                inlined.name = names.of_reference(sections, units, &open_unit, &origin, fuel)?;
            }
            open.push((depth, scope.inlined.len()));
            scope.inlined.push(inlined);
        }
        Ok(scope)
    }

    /// The inlined functions at an address, outermost first.
    pub(crate) fn inlined_at(&self, address: u32) -> Vec<&Inlined> {
        let address = u64::from(address);
        let mut chain = Vec::new();
        let mut last = None;
        for (index, inlined) in self.inlined.iter().enumerate() {
            let covers = || inlined.ranges.iter().any(|range| range.start <= address && address < range.end);
            if inlined.parent == last && covers() {
                last = Some(index);
                chain.push(inlined);
            }
        }
        chain
    }
}

impl Inlined {
    fn note_call(&mut self, name: gimli::DwAt, value: &AttributeValue<Reader<'_>>) {
        let number = || value.udata_value().and_then(|value| u32::try_from(value).ok()).unwrap_or_default();
        match name {
            gimli::DW_AT_call_file => {
                if let AttributeValue::FileIndex(file) = value {
                    self.call.file = Some(*file);
                }
            }
            gimli::DW_AT_call_line => self.call.line = number(),
            gimli::DW_AT_call_column => self.call.column = number(),
            _ => {}
        }
    }
}

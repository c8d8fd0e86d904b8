//! The compilation units, and which unit's subprogram describes which function.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use gimli::{
    Abbreviations, DebugAbbrevOffset, DebugAddrBase, DebugInfoOffset, DebugLocListsBase, DebugRngListsBase,
    DebugStrOffsetsBase, DwoId, Section, UnitHeader, UnitOffset, UnitType,
};

use super::entries::{Entries, Kinds};
use super::fuel::Fuel;
use super::ranges::{AddressRange, RangeAttributes};
use super::{OutOfFuel, Reader, Sections, Stop, Unit};
use crate::bodies::{Bodies, Body};

/// An index of all units: where they are, and the ranges that they say they cover.
pub(crate) struct Units {
    /// Sorted by offset, since they are read in their order.
    entries: Vec<UnitEntry>,
    /// Sorted by start.
    ranges: Vec<UnitRange>,
    /// What describes a body, by the body's start, according to the units read so far.
    descriptions: HashMap<u32, Description>,
    /// The tables of abbreviations that any unit uses, read when needed.
    abbreviations: BTreeMap<usize, Option<Arc<Abbreviations>>>,
    /// Whether any unit's range or subprogram starts where a body starts.
    any_match: bool,
    /// Whether there is any range at all, and whether all of them start at 0.
    any_code: bool,
    all_zero: bool,
    first_error: Option<gimli::Error>,
}

/// What describes a body.
#[derive(Clone, Copy)]
pub(crate) struct Description {
    pub(crate) unit: usize,
    /// The subprogram that starts where the body starts; without one there are only the unit's lines.
    pub(crate) subprogram: Option<UnitOffset>,
    /// Whether it also ends where the body ends. Of an inline function that several objects define, the linker
    /// keeps one body, but the DWARF of all, which differs if they were compiled in different ways.
    fits: bool,
    /// Whether all units that could have a better one have been read.
    is_final: bool,
}

struct UnitEntry {
    offset: DebugInfoOffset,
    /// Read when the unit is opened for the first time.
    root: Option<Root>,
    /// Worked out when its entries are read for the first time.
    kinds: Option<Arc<Kinds>>,
    /// Whether its subprograms are in the index.
    is_indexed: bool,
}

/// What the root entry says that other entries are read with.
#[derive(Clone, Copy)]
struct Root {
    low_pc: u64,
    str_offsets_base: DebugStrOffsetsBase,
    addr_base: DebugAddrBase,
    loclists_base: DebugLocListsBase,
    rnglists_base: DebugRngListsBase,
    dwo_id: Option<DwoId>,
}

struct UnitRange {
    range: AddressRange,
    unit: usize,
    /// The greatest end of this and all earlier ranges: where a search backwards can stop.
    greatest_end: u64,
}

impl Units {
    /// Reads the headers and root entries of all units.
    pub(crate) fn read(
        sections: &Sections<'_>,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<Units, OutOfFuel> {
        let mut units = Units {
            entries: Vec::new(),
            ranges: Vec::new(),
            descriptions: HashMap::new(),
            abbreviations: BTreeMap::new(),
            any_match: false,
            any_code: false,
            all_zero: true,
            first_error: None,
        };
        let headers = units.read_headers(sections, fuel)?;
        let mut without_ranges = Vec::new();
        for (index, header) in headers {
            let has_ranges = units.read_ranges(sections, header, index, bodies, fuel);
            match units.unless_malformed(has_ranges)? {
                Some(true) => {}
                Some(false) => without_ranges.push(index),
                None => units.entries[index].is_indexed = true,
            }
        }
        units.ranges.sort_by_key(|range| (range.range.start, range.unit));
        let mut greatest = 0;
        for range in &mut units.ranges {
            greatest = range.range.end.max(greatest);
            range.greatest_end = greatest;
        }
        for index in without_ranges {
            units.index(sections, index, bodies, fuel)?;
        }
        Ok(units)
    }

    /// Reads the headers of all units, and gives back those of compilation units.
    fn read_headers<'data>(
        &mut self,
        sections: &Sections<'data>,
        fuel: &mut Fuel,
    ) -> Result<Vec<(usize, UnitHeader<Reader<'data>>)>, OutOfFuel> {
        let mut compilation = Vec::new();
        let mut headers = sections.units();
        loop {
            fuel.burn(1)?;
            let header = match headers.next() {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    self.first_error.get_or_insert(error);
                    break;
                }
            };
            let Some(offset) = header.debug_info_offset() else { continue };
            let is_compilation = matches!(header.type_(), UnitType::Compilation | UnitType::Skeleton(_));
            self.abbreviations.insert(header.debug_abbrev_offset().0, None);
            // Other units only hold what compilation units refer to.
            self.entries.push(UnitEntry { offset, root: None, kinds: None, is_indexed: !is_compilation });
            if is_compilation {
                compilation.push((self.entries.len() - 1, header));
            }
        }
        Ok(compilation)
    }

    /// Says that no address in the DWARF is the start of a function body, and whether all of them are 0.
    pub(crate) fn describe_other_code(&self) -> Option<bool> {
        (self.any_code && !self.any_match).then_some(self.all_zero)
    }

    pub(crate) fn first_error(&self) -> Option<&gimli::Error> {
        self.first_error.as_ref()
    }

    /// Keeps in mind that a part is malformed, and goes on without it.
    pub(crate) fn unless_malformed<T>(&mut self, result: Result<T, Stop>) -> Result<Option<T>, OutOfFuel> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Stop::Malformed(error)) => {
                self.first_error.get_or_insert(error);
                Ok(None)
            }
            Err(Stop::OutOfFuel) => Err(OutOfFuel),
        }
    }

    /// What describes a function, if anything does.
    pub(crate) fn describe(
        &mut self,
        sections: &Sections<'_>,
        bodies: &Bodies,
        body: Body,
        fuel: &mut Fuel,
    ) -> Result<Option<Description>, OutOfFuel> {
        let known = self.descriptions.get(&body.start);
        if let Some(known) = known.filter(|known| known.fits || known.is_final) {
            return Ok(Some(*known));
        }
        if !self.any_match {
            return Ok(None);
        }
        let covering = self.units_covering(body, fuel)?;
        for (_, unit) in &covering {
            if !self.entries[*unit].is_indexed {
                self.index(sections, *unit, bodies, fuel)?;
            }
            if let Some(known) = self.descriptions.get(&body.start).filter(|known| known.fits) {
                return Ok(Some(*known));
            }
        }
        let starting = covering.first().filter(|(starts, _)| *starts).map(|(_, unit)| *unit);
        let lines_only =
            starting.map(|unit| Description { unit, subprogram: None, fits: false, is_final: true });
        let Some(known) = self.descriptions.get(&body.start).copied().or(lines_only) else { return Ok(None) };
        let description = Description { is_final: true, ..known };
        self.descriptions.insert(body.start, description);
        Ok(Some(description))
    }

    /// The units that say they cover the start of a body, and whether they have a range that starts with it:
    /// first those with a range for exactly this body, last those that merely span it.
    fn units_covering(&self, body: Body, fuel: &mut Fuel) -> Result<Vec<(bool, usize)>, OutOfFuel> {
        let (start, end) = (u64::from(body.start), u64::from(body.end));
        let candidates = self.ranges.partition_point(|range| range.range.start <= start);
        let mut covering = Vec::new();
        for range in self.ranges[..candidates].iter().rev().take_while(|range| range.greatest_end > start) {
            fuel.burn(1)?;
            if range.range.end > start {
                covering.push((range.range.start != start, range.range.end != end, range.unit));
            }
        }
        covering.sort_unstable();
        Ok(covering.into_iter().map(|(starts_elsewhere, _, unit)| (!starts_elsewhere, unit)).collect())
    }

    /// Opens a unit to read its entries. What its root entry says has to be read only once, and the abbreviations are
    /// shared with all units that use the same ones.
    pub(crate) fn open<'data>(
        &mut self,
        sections: &Sections<'data>,
        unit: usize,
        fuel: &mut Fuel,
    ) -> Result<Unit<'data>, Stop> {
        let Some(UnitEntry { offset, root: Some(root), .. }) = self.entries.get(unit) else {
            return self.open_with_lines(sections, unit, fuel);
        };
        let (offset, root) = (*offset, *root);
        fuel.burn(1)?;
        let header = sections.debug_info.header_from_offset(offset)?;
        let abbreviations = self.abbreviations(sections, header.debug_abbrev_offset())?;
        Ok(gimli::Unit {
            header,
            abbreviations,
            name: None,
            comp_dir: None,
            low_pc: root.low_pc,
            str_offsets_base: root.str_offsets_base,
            addr_base: root.addr_base,
            loclists_base: root.loclists_base,
            rnglists_base: root.rnglists_base,
            line_program: None,
            dwo_id: root.dwo_id,
        })
    }

    /// Opens a unit to read many of its entries.
    pub(crate) fn open_with_kinds<'data>(
        &mut self,
        sections: &Sections<'data>,
        unit: usize,
        fuel: &mut Fuel,
    ) -> Result<(Unit<'data>, Arc<Kinds>), Stop> {
        let opened = self.open(sections, unit, fuel)?;
        let kinds = &mut self.entries[unit].kinds;
        let kinds = match kinds {
            Some(known) => known,
            None => kinds.insert(Arc::new(Kinds::new(&opened, fuel)?)),
        };
        Ok((opened, kinds.clone()))
    }

    /// Opens a unit with the tables of files and directories of its line program.
    pub(crate) fn open_with_lines<'data>(
        &mut self,
        sections: &Sections<'data>,
        unit: usize,
        fuel: &mut Fuel,
    ) -> Result<Unit<'data>, Stop> {
        let Some(entry) = self.entries.get(unit) else {
            return Err(gimli::Error::OffsetOutOfBounds(unit as u64).into());
        };
        let header = sections.debug_info.header_from_offset(entry.offset)?;
        self.open_header(sections, header, unit, fuel)
    }

    fn open_header<'data>(
        &mut self,
        sections: &Sections<'data>,
        header: UnitHeader<Reader<'data>>,
        index: usize,
        fuel: &mut Fuel,
    ) -> Result<Unit<'data>, Stop> {
        let abbreviations = self.abbreviations(sections, header.debug_abbrev_offset())?;
        let unit = gimli::Unit::new_with_abbreviations(sections, header, abbreviations)?;
        let program = unit.line_program.as_ref().map(|program| program.header());
        let tables =
            program.map_or(0, |program| program.file_names().len() + program.include_directories().len());
        fuel.burn(32 + tables)?;
        self.entries[index].root = Some(Root {
            low_pc: unit.low_pc,
            str_offsets_base: unit.str_offsets_base,
            addr_base: unit.addr_base,
            loclists_base: unit.loclists_base,
            rnglists_base: unit.rnglists_base,
            dwo_id: unit.dwo_id,
        });
        Ok(unit)
    }

    /// A table of abbreviations. It ends where the next one begins at the latest, so that tables that claim
    /// the same bytes cannot be used to make a small file expensive.
    fn abbreviations(
        &mut self,
        sections: &Sections<'_>,
        offset: DebugAbbrevOffset,
    ) -> Result<Arc<Abbreviations>, Stop> {
        if let Some(Some(read)) = self.abbreviations.get(&offset.0) {
            return Ok(read.clone());
        }
        let section = sections.debug_abbrev.reader().slice();
        let next = self.abbreviations.range((Bound::Excluded(offset.0), Bound::Unbounded)).next();
        let end = next.map_or(section.len(), |(next, _)| (*next).min(section.len()));
        let table = section.get(offset.0..end).ok_or(gimli::Error::OffsetOutOfBounds(offset.0 as u64))?;
        let table = gimli::DebugAbbrev::new(table, gimli::LittleEndian);
        let read = Arc::new(table.abbreviations(DebugAbbrevOffset(0))?);
        self.abbreviations.insert(offset.0, Some(read.clone()));
        Ok(read)
    }

    /// The unit that an offset into `.debug_info` lies in.
    pub(crate) fn unit_at(&self, offset: DebugInfoOffset) -> Option<usize> {
        self.entries.partition_point(|entry| entry.offset.0 <= offset.0).checked_sub(1)
    }

    /// Reads the ranges that the unit's root entry gives; false if it gives none.
    fn read_ranges<'data>(
        &mut self,
        sections: &Sections<'data>,
        header: UnitHeader<Reader<'data>>,
        index: usize,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<bool, Stop> {
        let unit = self.open_header(sections, header, index, fuel)?;
        let mut entries = unit.entries_raw(None)?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(false) };
        let mut attributes = RangeAttributes::default();
        for specification in abbreviation.attributes() {
            fuel.burn(1)?;
            let attribute = entries.read_attribute(*specification)?;
            attributes.note(unit.unit_ref(sections), attribute.name(), attribute.value())?;
        }
        let mut ranges = Vec::new();
        attributes.read(unit.unit_ref(sections), fuel, |range| ranges.push(range))?;
        let has_ranges = !ranges.is_empty();
        for range in ranges {
            self.any_match |= bodies.starting_at(range.start).is_some();
            self.any_code = true;
            self.all_zero &= range.start == 0;
            self.ranges.push(UnitRange { range, unit: index, greatest_end: 0 });
        }
        Ok(has_ranges)
    }

    /// Adds the subprograms of a unit to the index.
    fn index(
        &mut self,
        sections: &Sections<'_>,
        index: usize,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<(), OutOfFuel> {
        self.entries[index].is_indexed = true;
        let read = self.read_subprograms(sections, index, bodies, fuel);
        self.unless_malformed(read).map(drop)
    }

    fn read_subprograms(
        &mut self,
        sections: &Sections<'_>,
        index: usize,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<(), Stop> {
        let (unit, kinds) = self.open_with_kinds(sections, index, fuel)?;
        let mut entries = Entries::new(sections, &unit, &kinds, None)?;
        let unit = unit.unit_ref(sections);
        while let Some(entry) = entries.next(isize::MIN, fuel)? {
            if entry.tag != gimli::DW_TAG_subprogram {
                entries.skip(entry)?;
                continue;
            }
            let mut attributes = RangeAttributes::default();
            entries.read(entry, |attribute| attributes.note(unit, attribute.name(), attribute.value()))?;
            attributes.read(unit, fuel, |range| {
                self.any_code = true;
                self.all_zero &= range.start == 0;
                if let Some(body) = bodies.starting_at(range.start) {
                    self.any_match = true;
                    let fits = range.end == u64::from(body.end);
                    let new =
                        Description { unit: index, subprogram: Some(entry.offset), fits, is_final: false };
                    let known = self.descriptions.entry(body.start).or_insert(new);
                    if fits && !known.fits && !known.is_final {
                        *known = new;
                    }
                }
            })?;
        }
        Ok(())
    }
}

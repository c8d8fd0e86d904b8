//! The names of functions, which are often several references away from the entry that needs them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gimli::{AttributeValue, DebugInfoOffset, Reader as _, UnitOffset, UnitRef};

use super::fuel::Fuel;
use super::units::Units;
use super::{Reader, Sections, Stop, Unit};
use crate::name::display_name;

/// How many references from one entry to the next are followed.
const MOST_REFERENCES: usize = 16;

/// Longer names are damage.
const LONGEST_NAME: usize = 64 * 1024;

/// Linkage name of a function, or plain name if there is no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DwarfName {
    /// As written in the DWARF.
    pub(crate) raw: Arc<str>,
    shown: OnceLock<Arc<str>>,
}

impl DwarfName {
    /// Demangled, when it is asked for for the first time.
    pub(crate) fn shown(&self) -> Arc<str> {
        self.shown.get_or_init(|| display_name(&self.raw).into()).clone()
    }
}

/// The names found so far, by the entry's offset in `.debug_info`.
#[derive(Default)]
pub(crate) struct Names(HashMap<usize, Option<Arc<DwarfName>>>);

impl Names {
    /// The linkage name of an entry in `unit`, else its plain name, both looked for along its references.
    pub(crate) fn of_entry<'data>(
        &mut self,
        sections: &Sections<'data>,
        units: &mut Units,
        unit: &Unit<'data>,
        entry: UnitOffset,
        fuel: &mut Fuel,
    ) -> Result<Option<Arc<DwarfName>>, Stop> {
        let Some(offset) = entry.to_debug_info_offset(&unit.header) else { return Ok(None) };
        if let Some(known) = self.0.get(&offset.0) {
            return Ok(known.clone());
        }
        let name = resolve(sections, units, unit, entry, fuel)?;
        let name = name.map(|raw| Arc::new(DwarfName { raw, shown: OnceLock::new() }));
        self.0.insert(offset.0, name.clone());
        Ok(name)
    }

    /// The name of an entry anywhere in `.debug_info`.
    pub(crate) fn at(
        &mut self,
        sections: &Sections<'_>,
        units: &mut Units,
        offset: DebugInfoOffset,
        fuel: &mut Fuel,
    ) -> Result<Option<Arc<DwarfName>>, Stop> {
        if let Some(known) = self.0.get(&offset.0) {
            return Ok(known.clone());
        }
        match open_at(sections, units, offset, fuel)? {
            Some((unit, entry)) => self.of_entry(sections, units, &unit, entry, fuel),
            None => Ok(None),
        }
    }
}

fn open_at<'data>(
    sections: &Sections<'data>,
    units: &mut Units,
    offset: DebugInfoOffset,
    fuel: &mut Fuel,
) -> Result<Option<(Unit<'data>, UnitOffset)>, Stop> {
    let Some(index) = units.unit_at(offset) else { return Ok(None) };
    let unit = units.open(sections, index, fuel)?;
    let entry = offset.to_unit_offset(&unit.header);
    Ok(entry.map(|entry| (unit, entry)))
}

/// Follows references; what the entries on the way are named only plainly is kept in case nothing better comes.
fn resolve<'data>(
    sections: &Sections<'data>,
    units: &mut Units,
    unit: &Unit<'data>,
    mut entry: UnitOffset,
    fuel: &mut Fuel,
) -> Result<Option<Arc<str>>, Stop> {
    let mut other: Option<Unit<'data>> = None;
    let mut plain = None;
    for _ in 0..MOST_REFERENCES {
        let read = read(other.as_ref().unwrap_or(unit).unit_ref(sections), entry, fuel)?;
        if read.linkage.is_some() {
            return Ok(read.linkage);
        }
        plain = plain.or(read.plain);
        match read.reference {
            Some(AttributeValue::UnitRef(next)) => entry = next,
            Some(AttributeValue::DebugInfoRef(offset)) => match open_at(sections, units, offset, fuel)? {
                Some((unit, next)) => {
                    other = Some(unit);
                    entry = next;
                }
                None => break,
            },
            _ => break,
        }
    }
    Ok(plain)
}

/// What one entry says about its name.
#[derive(Default)]
struct Naming<'data> {
    linkage: Option<Arc<str>>,
    plain: Option<Arc<str>>,
    reference: Option<AttributeValue<Reader<'data>>>,
}

fn read<'data>(
    unit: UnitRef<'_, Reader<'data>>,
    entry: UnitOffset,
    fuel: &mut Fuel,
) -> Result<Naming<'data>, Stop> {
    let mut naming = Naming::default();
    let mut entries = unit.entries_raw(Some(entry))?;
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(naming) };
    fuel.burn(1 + abbreviation.attributes().len())?;
    for specification in abbreviation.attributes() {
        let attribute = entries.read_attribute(*specification)?;
        match attribute.name() {
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                naming.linkage = text(unit, attribute.value(), fuel)?;
            }
            gimli::DW_AT_name => naming.plain = text(unit, attribute.value(), fuel)?,
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                naming.reference = Some(attribute.value());
            }
            _ => {}
        }
    }
    Ok(naming)
}

fn text<'data>(
    unit: UnitRef<'_, Reader<'data>>,
    value: AttributeValue<Reader<'data>>,
    fuel: &mut Fuel,
) -> Result<Option<Arc<str>>, Stop> {
    let Ok(name) = unit.attr_string(value) else { return Ok(None) };
    fuel.burn(1 + name.len() / 16)?;
    let is_name = !name.is_empty() && name.len() <= LONGEST_NAME;
    Ok(is_name.then(|| name.to_string_lossy().as_ref().into()))
}

//! The addresses that an entry covers.

use gimli::{AttributeValue, UnitRef};

use super::fuel::Fuel;
use super::{Reader, Stop};

/// A range of addresses, end excluded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The attributes of an entry that say which addresses it covers.
#[derive(Default)]
pub(crate) struct RangeAttributes {
    low: Option<u64>,
    high: Option<u64>,
    size: Option<u64>,
    list: Option<gimli::RangeListsOffset>,
}

impl RangeAttributes {
    pub(crate) fn note<'data>(
        &mut self,
        unit: UnitRef<'_, Reader<'data>>,
        name: gimli::DwAt,
        value: AttributeValue<Reader<'data>>,
    ) -> Result<(), Stop> {
        match (name, value) {
            (gimli::DW_AT_low_pc, value) => self.low = unit.attr_address(value)?,
            (gimli::DW_AT_high_pc, AttributeValue::Udata(size)) => self.size = Some(size),
            (gimli::DW_AT_high_pc, value) => self.high = unit.attr_address(value)?,
            (gimli::DW_AT_ranges, value) => self.list = unit.attr_ranges_offset(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Calls `each` with every range that is not empty.
    pub(crate) fn read(
        &self,
        unit: UnitRef<'_, Reader<'_>>,
        fuel: &mut Fuel,
        mut each: impl FnMut(AddressRange),
    ) -> Result<(), Stop> {
        let mut add = |start: u64, end: u64| {
            if start < end {
                each(AddressRange { start, end });
            }
        };
        if let Some(list) = self.list {
            let mut ranges = unit.ranges(list)?;
            while let Some(range) = ranges.next()? {
                fuel.burn(1)?;
                add(range.begin, range.end);
            }
        } else if let (Some(low), Some(high)) = (self.low, self.high) {
            add(low, high);
        } else if let (Some(low), Some(size)) = (self.low, self.size) {
            // A linker's mark for dropped code, -1, overflows and is ignored.
            add(low, low.wrapping_add(size));
        }
        Ok(())
    }
}

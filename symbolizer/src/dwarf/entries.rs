//! The entries of a unit in their order, of which nearly all are skipped: in a few steps each, that are worked out once for
//! each kind of entry. Whatever is unusual is left to gimli.

use gimli::{Abbreviation, Attribute, DwTag, EntriesRaw, Section as _, UnitOffset};

use super::fuel::Fuel;
use super::{OutOfFuel, Reader, Sections, Stop, Unit};

/// How to skip each kind of entry of one unit.
pub(crate) struct Kinds {
    /// By the code of the abbreviation, as far as codes follow one another; the first is the end of an entry's children.
    kinds: Box<[Kind]>,
    steps: Box<[Step]>,
}

#[derive(Clone, Copy)]
struct Kind {
    /// Of an entry that nobody asks about: its length with its code of one byte, if all such entries have the same. 0 for
    /// the others.
    length: u32,
    /// How many attributes it has, and 1.
    fuel: u32,
    /// By how much deeper the next one lies.
    deeper: i8,
    is_end: bool,
    tag: DwTag,
    /// Where its steps begin and end; `None` if gimli has to skip it.
    steps: Option<(u32, u32)>,
}

#[derive(Clone, Copy)]
enum Step {
    /// So many bytes.
    Bytes(u32),
    /// One number of variable length.
    Number,
    /// One such number, and as many bytes.
    Block,
}

impl Kinds {
    const END: Kind =
        Kind { length: 1, fuel: 1, deeper: -1, is_end: true, tag: gimli::DW_TAG_null, steps: Some((0, 0)) };

    /// Reads the abbreviations of a unit, which it is then used with.
    pub(crate) fn new(unit: &Unit<'_>, fuel: &mut Fuel) -> Result<Kinds, OutOfFuel> {
        let (mut kinds, mut steps) = (vec![Self::END], Vec::new());
        for abbreviation in (1..).map_while(|code| unit.abbreviations.get(code)) {
            // There are no more than bytes in the file, which is smaller than 4 GiB.
            let fuel_of_each = 1 + abbreviation.attributes().len() as u32;
            fuel.burn(fuel_of_each as usize)?;
            let start = steps.len();
            let is_known = add_steps(unit, abbreviation, &mut steps).is_some();
            let length = match &steps[start..] {
                _ if !is_known || is_wanted(abbreviation.tag()) || kinds.len() >= 0x80 => 0,
                [] => 1,
                [Step::Bytes(size)] => size.saturating_add(1),
                _ => 0,
            };
            kinds.push(Kind {
                length,
                fuel: fuel_of_each,
                deeper: abbreviation.has_children().into(),
                is_end: false,
                tag: abbreviation.tag(),
                steps: is_known.then_some((start as u32, steps.len() as u32)),
            });
        }
        Ok(Kinds { kinds: kinds.into(), steps: steps.into() })
    }
}

/// Whether anybody asks about such entries.
fn is_wanted(tag: DwTag) -> bool {
    matches!(tag, gimli::DW_TAG_subprogram | gimli::DW_TAG_inlined_subroutine)
}

/// `None` for a form that is not known here.
fn add_steps(unit: &Unit<'_>, abbreviation: &Abbreviation, steps: &mut Vec<Step>) -> Option<()> {
    let start = steps.len();
    for attribute in abbreviation.attributes() {
        let step = match (attribute.size(&unit.header), attribute.form()) {
            (Some(size), _) => Step::Bytes(u32::try_from(size).ok()?),
            (None, gimli::DW_FORM_udata | gimli::DW_FORM_sdata | gimli::DW_FORM_ref_udata) => Step::Number,
            (None, gimli::DW_FORM_strx | gimli::DW_FORM_addrx) => Step::Number,
            (None, gimli::DW_FORM_loclistx | gimli::DW_FORM_rnglistx) => Step::Number,
            (None, gimli::DW_FORM_exprloc | gimli::DW_FORM_block) => Step::Block,
            _ => return None,
        };
        match (steps[start..].last_mut(), step) {
            (Some(Step::Bytes(before)), Step::Bytes(size)) => *before = before.checked_add(size)?,
            _ => steps.push(step),
        }
    }
    Some(())
}

/// The entry of a function, or of a copy that was inlined. Its attributes have not been read.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) offset: UnitOffset,
    /// How deep it lies below the first one.
    pub(crate) depth: isize,
    /// The least depth of this one and those that were passed over before it.
    pub(crate) least_depth: isize,
    pub(crate) tag: DwTag,
    code: usize,
}

/// A place between the entries of a unit.
pub(crate) struct Entries<'read, 'data> {
    unit: &'read Unit<'data>,
    kinds: &'read Kinds,
    /// The whole unit, from its header on.
    bytes: &'data [u8],
    position: usize,
    depth: isize,
}

impl<'read, 'data> Entries<'read, 'data> {
    /// Begins at an entry, or at the unit's root.
    pub(crate) fn new(
        sections: &Sections<'data>,
        unit: &'read Unit<'data>,
        kinds: &'read Kinds,
        first: Option<UnitOffset>,
    ) -> gimli::Result<Self> {
        let first = unit.header.entries_raw(&unit.abbreviations, first)?.next_offset();
        let section = sections.debug_info.reader().slice();
        let start = unit.header.debug_info_offset().map_or(0, |offset| offset.0);
        // Both fit: the header was read from there.
        let end = start.saturating_add(unit.header.length_including_self()).min(section.len());
        let bytes = section.get(start..end).unwrap_or_default();
        Ok(Self { unit, kinds, bytes, position: first.0, depth: 0 })
    }

    /// The next function or inlined copy, which has to be read or skipped before the one after it; `None` behind the last
    /// one that lies below `floor`.
    pub(crate) fn next(&mut self, floor: isize, fuel: &mut Fuel) -> Result<Option<Entry>, Stop> {
        let mut least_depth = isize::MAX;
        loop {
            least_depth = self.pass_over(floor, least_depth, fuel)?;
            if self.depth <= floor || self.position == self.bytes.len() {
                return Ok(None);
            }
            if self.position > self.bytes.len() {
                return Err(gimli::Error::OffsetOutOfBounds(self.position as u64).into());
            }
            let offset = UnitOffset(self.position);
            let (code, tag) = self.read_code(offset, fuel)?;
            let Some(tag) = tag else { continue };
            let depth = self.depth;
            least_depth = least_depth.min(depth);
            let entry = Entry { offset, depth, least_depth, tag, code };
            if is_wanted(tag) {
                return Ok(Some(entry));
            }
            self.skip(entry)?;
        }
    }

    /// Passes over entries that all of their kind have the same length, as nearly all that nobody asks about.
    fn pass_over(
        &mut self,
        floor: isize,
        mut least_depth: isize,
        fuel: &mut Fuel,
    ) -> Result<isize, OutOfFuel> {
        let (mut position, mut depth, mut burnt) = (self.position, self.depth, 0_usize);
        while depth > floor
            && let Some(&code) = self.bytes.get(position)
            && let Some(kind) = self.kinds.kinds.get(usize::from(code))
            && kind.length != 0
        {
            position += kind.length as usize;
            least_depth = least_depth.min(if kind.is_end { isize::MAX } else { depth });
            depth += isize::from(kind.deeper);
            burnt += kind.fuel as usize;
        }
        (self.position, self.depth) = (position, depth);
        fuel.burn(burnt)?;
        Ok(least_depth)
    }

    /// Reads an entry's code, and gives back its kind's tag; `None` for an end that is written in more than one byte.
    fn read_code(&mut self, offset: UnitOffset, fuel: &mut Fuel) -> Result<(usize, Option<DwTag>), Stop> {
        let mut position = self.position;
        let code = number(self.bytes, &mut position).unwrap_or(usize::MAX);
        let known = self.kinds.kinds.get(code).filter(|kind| !kind.is_end);
        if let Some(kind) = known {
            self.position = position;
            fuel.burn(kind.fuel as usize)?;
            return Ok((code, Some(kind.tag)));
        }
        let (abbreviation, raw) = self.raw(offset)?;
        fuel.burn(1 + abbreviation.map_or(0, |abbreviation| abbreviation.attributes().len()))?;
        if abbreviation.is_none() {
            self.position = raw.next_offset().0;
            self.depth -= 1;
        }
        Ok((code, abbreviation.map(Abbreviation::tag)))
    }

    /// Goes on behind the attributes of the entry that came last.
    pub(crate) fn skip(&mut self, entry: Entry) -> gimli::Result<()> {
        let (position, deeper) = match self.skipped(entry.code) {
            Some(known) => known,
            None => {
                let (abbreviation, mut raw) = self.raw(entry.offset)?;
                raw.skip_attributes(abbreviation.map_or(&[], |abbreviation| abbreviation.attributes()))?;
                (raw.next_offset().0, raw.next_depth())
            }
        };
        self.position = position;
        self.depth = entry.depth + deeper;
        Ok(())
    }

    /// Where the attributes at this place end, and how much deeper the next entry lies; `None` if that is not known, or not
    /// in the unit.
    fn skipped(&self, code: usize) -> Option<(usize, isize)> {
        let kind = self.kinds.kinds.get(code)?;
        let (start, end) = kind.steps?;
        let mut position = self.position;
        for step in &self.kinds.steps[start as usize..end as usize] {
            match step {
                Step::Bytes(size) => position += *size as usize,
                Step::Number => _ = number(self.bytes, &mut position)?,
                Step::Block => position = number(self.bytes, &mut position)?.checked_add(position)?,
            }
        }
        (position <= self.bytes.len()).then_some((position, kind.deeper.into()))
    }

    /// Calls `each` with the attributes of the entry that came last, and goes on behind them.
    pub(crate) fn read(
        &mut self,
        entry: Entry,
        mut each: impl FnMut(Attribute<Reader<'data>>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let (abbreviation, mut raw) = self.raw(entry.offset)?;
        for specification in abbreviation.map_or(&[][..], |abbreviation| abbreviation.attributes()) {
            each(raw.read_attribute(*specification)?)?;
        }
        self.position = raw.next_offset().0;
        self.depth = entry.depth + raw.next_depth();
        Ok(())
    }

    /// An entry as gimli reads it, before its attributes.
    fn raw(
        &self,
        offset: UnitOffset,
    ) -> gimli::Result<(Option<&'read Abbreviation>, EntriesRaw<'read, Reader<'data>>)> {
        let mut raw = self.unit.header.entries_raw(&self.unit.abbreviations, Some(offset))?;
        Ok((raw.read_abbreviation()?, raw))
    }
}

/// Takes in a number of variable length; `None` if it has more bits than any that is in order, or does not end.
fn number(bytes: &[u8], position: &mut usize) -> Option<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(*position)?;
        *position += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

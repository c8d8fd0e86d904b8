//! Source lines and inlined functions from a guest's DWARF.
//!
//! Addresses in a WebAssembly file's DWARF are bytes from the start of the code section's contents. Nothing is
//! believed because it is there: linkers leave entries for code that they dropped, and tools rewrite code
//! without rewriting its DWARF. Only a subprogram that starts exactly where a function body starts describes
//! that function, and only within the function's body; the same goes for sequences of lines.
//!
//! DWARF is hostile input, and a few bytes of it can stand for a lot: lists and tables are shared, attributes
//! can be empty. Hence all reading is paid from one [`Fuel`] for the whole file, nothing recurses, and a unit
//! is read only when a function in its range is asked for.

mod entries;
mod fuel;
mod function;
mod lines;
mod names;
mod ranges;
mod sequences;
mod units;

use std::ops::Range;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, SectionId};

use crate::SourceLocation;
use crate::bodies::{Bodies, Body};
use fuel::Fuel;
use function::FunctionScope;
use lines::Lines;
use names::Names;
use units::{Description, Units};

type Reader<'data> = EndianSlice<'data, LittleEndian>;
type Sections<'data> = gimli::Dwarf<Reader<'data>>;
type Unit<'data> = gimli::Unit<Reader<'data>>;

/// Why reading a part stopped.
#[derive(Debug)]
enum Stop {
    Malformed(gimli::Error),
    OutOfFuel,
}

/// Why all reading stopped; a part that is malformed does not cost the rest.
#[derive(Debug)]
struct OutOfFuel;

impl From<gimli::Error> for Stop {
    fn from(error: gimli::Error) -> Stop {
        Stop::Malformed(error)
    }
}

impl From<OutOfFuel> for Stop {
    fn from(_: OutOfFuel) -> Stop {
        Stop::OutOfFuel
    }
}

/// What is wrong with DWARF that is otherwise used as far as possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// No address is the start of a function; whether all of them are 0.
    DescribesOtherCode { all_zero: bool },
    /// A part could not be read.
    Malformed { message: String },
    /// More work than its size justifies.
    TooExpensive,
}

/// One of the guest's functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defined {
    /// Its place among the functions that the module defines.
    pub(crate) index: u32,
    pub(crate) body: Body,
}

/// The DWARF of one core module, and what has been read of it so far.
pub(crate) struct Dwarf {
    bytes: Arc<[u8]>,
    sections: Vec<(SectionId, Range<usize>)>,
    bodies: Arc<Bodies>,
    state: State,
    damage: Option<Damage>,
}

/// Everything that reading leaves behind.
struct State {
    fuel: Fuel,
    /// Read by the first look-up.
    units: Option<Units>,
    /// By the function's place among those that the module defines, as far as they were asked for.
    functions: Vec<Option<Box<Described>>>,
    names: Names,
    /// By unit, as far as they were asked for.
    lines: Vec<Option<Box<Lines>>>,
}

/// A function that the DWARF describes.
struct Described {
    unit: usize,
    /// Without a subprogram (`-gline-tables-only` has none for functions that inline nothing), only lines.
    scope: Option<FunctionScope>,
    /// The address of its first row. What comes before, such as the check of the stack's limit, belongs to it.
    first: u32,
    /// The sequence of lines that it is in, as far as it is in one.
    sequence: usize,
}

impl Dwarf {
    /// `None` without the sections that any DWARF has.
    pub(crate) fn new(
        bytes: Arc<[u8]>,
        sections: &[(SectionId, Range<usize>)],
        bodies: Arc<Bodies>,
    ) -> Option<Dwarf> {
        let length = |id| sections.iter().find(|(known, _)| *known == id).map_or(0, |(_, range)| range.len());
        if length(SectionId::DebugInfo) == 0 || length(SectionId::DebugAbbrev) == 0 {
            return None;
        }
        let total: usize = sections.iter().map(|(_, range)| range.len()).sum();
        let state = State {
            fuel: Fuel::for_size(total),
            units: None,
            functions: Vec::new(),
            names: Names::default(),
            lines: Vec::new(),
        };
        Some(Dwarf { bytes, sections: sections.to_vec(), bodies, state, damage: None })
    }

    /// What turned out to be wrong so far.
    pub(crate) fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Calls `each` with the shown name and the place of each function that was inlined at an address, innermost first.
    /// Gives back the place in the function itself; `None` if the DWARF does not describe it.
    pub(crate) fn frames(
        &mut self,
        function: Defined,
        address: u32,
        each: impl FnMut(Arc<str>, Option<SourceLocation>),
    ) -> Option<SourceLocation> {
        self.read(|state, sections, bodies| state.frames(sections, bodies, function, address, each))
    }

    /// The line that opens a function.
    pub(crate) fn opening(&mut self, function: Defined) -> Option<SourceLocation> {
        self.read(|state, sections, bodies| {
            let Some(described) = state.described(sections, bodies, function)? else { return Ok(None) };
            let first = described.first;
            state.frames(sections, bodies, function, first, |_, _| {})
        })
    }

    /// The function's linkage name, else its plain name.
    pub(crate) fn raw_name(&mut self, function: Defined) -> Option<Arc<str>> {
        self.read(|state, sections, bodies| {
            let described = state.described(sections, bodies, function)?;
            Ok(described.and_then(|described| Some(described.scope.as_ref()?.name.as_ref()?.raw.clone())))
        })
    }

    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut State, &Sections<'_>, &Bodies) -> Result<Option<T>, OutOfFuel>,
    ) -> Option<T> {
        if matches!(self.damage, Some(Damage::DescribesOtherCode { .. } | Damage::TooExpensive)) {
            return None;
        }
        let sections = load(&self.bytes, &self.sections);
        let Ok(read) = read(&mut self.state, &sections, &self.bodies) else {
            self.damage = Some(Damage::TooExpensive);
            return None;
        };
        self.note_damage();
        read
    }

    fn note_damage(&mut self) {
        if let Some(units) = &self.state.units {
            if let Some(all_zero) = units.describe_other_code() {
                self.damage = Some(Damage::DescribesOtherCode { all_zero });
            } else if let Some(error) = units.first_error() {
                self.damage.get_or_insert(Damage::Malformed { message: error.to_string() });
            }
        }
    }
}

fn load<'data>(bytes: &'data [u8], ranges: &[(SectionId, Range<usize>)]) -> Sections<'data> {
    let section = |id: SectionId| {
        let range = ranges.iter().find(|(known, _)| *known == id).map(|(_, range)| range.clone());
        let data = range.and_then(|range| bytes.get(range)).unwrap_or_default();
        EndianSlice::new(data, LittleEndian)
    };
    let Ok(sections) = gimli::Dwarf::load(|id| Ok::<_, std::convert::Infallible>(section(id)));
    sections
}

impl State {
    /// What describes a function, if anything does.
    fn described(
        &mut self,
        sections: &Sections<'_>,
        bodies: &Bodies,
        function: Defined,
    ) -> Result<Option<&mut Described>, OutOfFuel> {
        let index = function.index as usize;
        if self.functions.get(index).is_none_or(Option::is_none) {
            let Some(described) = self.describe(sections, bodies, function.body)? else { return Ok(None) };
            if self.functions.len() <= index {
                // No index is beyond the bodies.
                self.functions.resize_with(bodies.len().max(index + 1), || None);
            }
            self.functions[index] = Some(Box::new(described));
        }
        Ok(self.functions[index].as_deref_mut())
    }

    fn describe(
        &mut self,
        sections: &Sections<'_>,
        bodies: &Bodies,
        body: Body,
    ) -> Result<Option<Described>, OutOfFuel> {
        let State { fuel, units, names, lines, .. } = self;
        let units = match units {
            Some(units) => units,
            None => units.insert(Units::read(sections, bodies, fuel)?),
        };
        let Some(Description { unit, subprogram, .. }) = units.describe(sections, bodies, body, fuel)? else {
            return Ok(None);
        };
        let read = |entry| FunctionScope::read(sections, units, names, unit, entry, fuel);
        let scope = subprogram.map(read).map_or(Ok(None), |scope| units.unless_malformed(scope))?;
        if lines.len() <= unit {
            lines.resize_with(unit + 1, || None);
        }
        let lines = match &mut lines[unit] {
            Some(known) => known,
            new => {
                let read = Lines::read(sections, units, unit, bodies, fuel);
                new.insert(Box::new(units.unless_malformed(read)?.unwrap_or_default()))
            }
        };
        let first = lines.first(sections, units, body, fuel)?;
        let (sequence, first) = first.unwrap_or((0, body.start));
        Ok(Some(Described { unit, scope, first, sequence }))
    }

    fn frames(
        &mut self,
        sections: &Sections<'_>,
        bodies: &Bodies,
        function: Defined,
        address: u32,
        mut each: impl FnMut(Arc<str>, Option<SourceLocation>),
    ) -> Result<Option<SourceLocation>, OutOfFuel> {
        if self.described(sections, bodies, function)?.is_none() {
            return Ok(None);
        }
        let State { fuel, units: Some(units), functions, names, lines } = self else { return Ok(None) };
        let Some(Described { unit, scope, first, sequence }) =
            functions[function.index as usize].as_deref_mut()
        else {
            return Ok(None);
        };
        let Some(lines) = lines[*unit].as_deref_mut() else { return Ok(None) };
        let address = address.max(*first);
        let innermost = |address| scope.as_ref().and_then(|scope| scope.innermost_at(address));
        let mut copy = innermost(address);
        let is_same = |other| innermost(other) == copy;
        let place = (function.body, address, *sequence);
        let mut position = lines.find(sections, units, place, is_same, fuel)?;
        while let Some(inlined) = copy.zip(scope.as_mut()).and_then(|(copy, scope)| scope.copy(copy)) {
            let name = match &inlined.shown {
                Some(shown) => shown.clone(),
                None => {
                    let name = inlined.origin.map(|origin| names.at(sections, units, origin, fuel));
                    let name = units.unless_malformed(name.unwrap_or(Ok(None)))?.flatten();
                    let shown = name.map_or_else(|| "(inlined)".into(), |name| name.shown());
                    inlined.shown.insert(shown).clone()
                }
            };
            each(name, lines.render(sections, units, *unit, position, fuel)?);
            position = Some(inlined.call);
            copy = inlined.parent;
        }
        lines.render(sections, units, *unit, position, fuel)
    }
}

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

mod fuel;
mod function;
mod lines;
mod names;
mod sequences;
mod units;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, SectionId};

use crate::SourceLocation;
use crate::bodies::{Bodies, Body};
use fuel::Fuel;
use function::FunctionScope;
use lines::Lines;
use names::{DwarfName, Names};
use units::Units;

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

/// One frame of a chain of inlined functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DwarfFrame {
    pub(crate) name: Option<Arc<DwarfName>>,
    pub(crate) location: Option<SourceLocation>,
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
    /// By the start of the function's body; `None` for one that the DWARF does not describe.
    functions: HashMap<u32, Option<Arc<FunctionScope>>>,
    names: Names,
    /// By unit.
    lines: HashMap<usize, Lines>,
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
            functions: HashMap::new(),
            names: Names::default(),
            lines: HashMap::new(),
        };
        Some(Dwarf { bytes, sections: sections.to_vec(), bodies, state, damage: None })
    }

    /// What turned out to be wrong so far.
    pub(crate) fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The frames at an address in a body, innermost inlined function first, the function itself last. Empty
    /// if the DWARF does not describe the function.
    pub(crate) fn frames(&mut self, body: Body, address: u32) -> Vec<DwarfFrame> {
        self.look_up(body, Some(address))
    }

    /// The function itself, at the line that opens it.
    pub(crate) fn opening(&mut self, body: Body) -> Option<DwarfFrame> {
        self.look_up(body, None).pop()
    }

    /// The frames at an address, or at the function's first row.
    fn look_up(&mut self, body: Body, address: Option<u32>) -> Vec<DwarfFrame> {
        if matches!(self.damage, Some(Damage::DescribesOtherCode { .. } | Damage::TooExpensive)) {
            return Vec::new();
        }
        let sections = load(&self.bytes, &self.sections);
        match self.state.frames(&sections, &self.bodies, body, address) {
            Ok(frames) => {
                self.note_damage();
                frames
            }
            Err(OutOfFuel) => {
                self.damage = Some(Damage::TooExpensive);
                Vec::new()
            }
        }
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
    fn frames(
        &mut self,
        sections: &Sections<'_>,
        bodies: &Bodies,
        body: Body,
        address: Option<u32>,
    ) -> Result<Vec<DwarfFrame>, OutOfFuel> {
        let State { fuel, units, functions, names, lines } = self;
        let units = match units {
            Some(units) => units,
            None => units.insert(Units::read(sections, bodies, fuel)?),
        };
        let Some(description) = units.describe(sections, bodies, body, fuel)? else {
            return Ok(Vec::new());
        };
        let unit = description.unit;
        let scope = match functions.get(&body.start) {
            Some(scope) => scope.clone(),
            None => {
                let read = |entry| FunctionScope::read(sections, units, names, unit, entry, fuel);
                let scope = description.subprogram.map(read);
                let scope = scope.map_or(Ok(None), |scope| units.unless_malformed(scope))?.map(Arc::new);
                functions.insert(body.start, scope.clone());
                scope
            }
        };
        let lines = match lines.entry(unit) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let read = Lines::read(sections, units, unit, bodies, fuel);
                new.insert(units.unless_malformed(read)?.unwrap_or_default())
            }
        };
        // What comes before the first row, such as the check of the stack's limit, belongs to it.
        let first = lines.first_address(sections, units, body, fuel)?.unwrap_or(body.start);
        let address = address.map_or(first, |address| address.max(first));
        // Without a subprogram (`-gline-tables-only` has none for functions that inline nothing), only lines.
        let scope = scope.as_deref();
        let innermost = |address| scope.and_then(|scope| scope.innermost_at(address));
        let innermost_here = innermost(address);
        let is_same = |other| innermost(other) == innermost_here;
        let mut position = lines.find(sections, units, (body, address), is_same, fuel)?;
        let mut frames = Vec::new();
        for inlined in scope.into_iter().flat_map(|scope| scope.chain(innermost_here)) {
            let name = match inlined.origin {
                Some(origin) => names.at(sections, units, origin, fuel),
                None => Ok(None),
            };
            let name = units.unless_malformed(name)?.flatten();
            let location = lines.render(sections, units, unit, position, fuel)?;
            frames.push(DwarfFrame { name, location });
            position = Some(inlined.call);
        }
        let location = lines.render(sections, units, unit, position, fuel)?;
        frames.push(DwarfFrame { name: scope.and_then(|scope| scope.name.clone()), location });
        Ok(frames)
    }
}

//! The lines of one unit: its line program, of which each sequence is run when a function in it is asked for.

use std::ops::Range;
use std::sync::Arc;

use gimli::{AttributeValue, ColumnType, Reader as _, UnitRef};

use super::fuel::Fuel;
use super::sequences::{self, Runner};
use super::units::Units;
use super::{OutOfFuel, Reader, Sections, Stop};
use crate::SourceLocation;
use crate::bodies::{Bodies, Body};

/// Longer paths are cut: no file system has them.
const LONGEST_PATH: usize = 4096;

/// How many rows before and after one without a line are looked at for one.
const FARTHEST_LINE: usize = 64;

/// A place in the source, its file by the number that it has in the unit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    pub(crate) file: Option<u32>,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// What a row of a line program says of the code from its address on.
#[derive(Clone, Copy, Debug)]
struct Row {
    file: u32,
    line: u32,
    column: u32,
}

impl Row {
    fn position(self) -> Position {
        Position { file: Some(self.file), line: self.line, column: self.column }
    }
}

/// Rows of consecutive addresses.
struct Sequence {
    start: u32,
    /// The start of the body that it starts in: the first row of a function comes after its locals.
    body: u32,
    /// Where it lies in the line program.
    instructions: Range<u32>,
    /// Run for the first address in it that is asked for.
    rows: Option<Rows>,
}

/// What a sequence says. Without any row if it is damaged. There are about as many as bytes in the line program.
#[derive(Default)]
struct Rows {
    end: u32,
    /// Sorted. Apart from the rest, so that a search stays within few cache lines.
    addresses: Box<[u32]>,
    /// Parallel to `addresses`.
    rows: Box<[Row]>,
}

/// The sequences of one unit that describe functions of the guest.
#[derive(Default)]
pub(crate) struct Lines {
    /// Sorted by start.
    sequences: Vec<Sequence>,
    runner: Runner,
    /// By their numbers: `None` if not asked for so far, within it `None` if there is none.
    files: Vec<Option<Option<Arc<str>>>>,
}

impl Lines {
    /// Looks for the sequences of a unit. Damage ends it; the sequences before it are kept.
    pub(crate) fn read(
        sections: &Sections<'_>,
        units: &mut Units,
        unit_index: usize,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<Lines, Stop> {
        let unit = units.open_with_lines(sections, unit_index, fuel)?;
        let mut lines = Lines::default();
        let Some(program) = &unit.line_program else { return Ok(lines) };
        let header = program.header();
        fuel.burn(header.raw_program_buf().len())?;
        lines.runner = Runner::new(sections, header);
        // They are counted from 0 or from 1.
        lines.files = vec![None; header.file_names().len() + 1];
        let mut others = Vec::new();
        let complete = sequences::cut(header, |cut| match cut.start {
            Some(start) => {
                // An address beyond 32 bits is in no body.
                let start = u32::try_from(start).unwrap_or(u32::MAX);
                lines.add(start, cut.instructions, None, bodies);
            }
            None => others.push(cut.instructions),
        });
        units.unless_malformed(complete.map_err(Stop::from))?;
        for instructions in others {
            let rows = lines.run(sections, instructions.clone(), fuel);
            if let Some(rows) = units.unless_malformed(rows)?
                && let Some(first) = rows.addresses.first()
            {
                lines.add(*first, instructions, Some(rows), bodies);
            }
        }
        lines.sequences.sort_by_key(|sequence| sequence.start);
        lines.sequences.shrink_to_fit();
        Ok(lines)
    }

    /// Keeps a sequence if it starts with or in a body: where linkers leave dropped code, there is none.
    fn add(&mut self, start: u32, instructions: Range<usize>, rows: Option<Rows>, bodies: &Bodies) {
        let body = bodies.starting_at(u64::from(start)).or_else(|| Some(bodies.find(start)?.1));
        if let Some(body) = body {
            // Positions fit: the whole binary is smaller than 4 GiB.
            let instructions = instructions.start as u32..instructions.end as u32;
            self.sequences.push(Sequence { start, body: body.start, instructions, rows });
        }
    }

    fn run(
        &self,
        sections: &Sections<'_>,
        instructions: Range<usize>,
        fuel: &mut Fuel,
    ) -> Result<Rows, Stop> {
        // Instructions that make no row are paid for as well.
        fuel.burn(1 + instructions.len())?;
        let mut rows: Vec<(u32, Row)> = Vec::with_capacity(instructions.len() / 4);
        let mut end = 0;
        self.runner.run(sections, instructions, |row| {
            let address = u32::try_from(row.address()).unwrap_or(u32::MAX);
            if row.end_sequence() {
                end = address;
                return;
            }
            let row = Row {
                file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
                line: row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or_default(),
                column: match row.column() {
                    ColumnType::LeftEdge => 0,
                    ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or_default(),
                },
            };
            // The last of several rows for one address is the one that counts.
            match rows.last_mut() {
                Some(last) if last.0 == address => last.1 = row,
                _ => rows.push((address, row)),
            }
        })?;
        rows.sort_by_key(|(address, _)| *address);
        let (addresses, rows): (Vec<u32>, Vec<Row>) = rows.into_iter().unzip();
        Ok(Rows { end, addresses: addresses.into(), rows: rows.into() })
    }

    /// The rows of a sequence, by its index.
    fn rows(
        &mut self,
        sections: &Sections<'_>,
        units: &mut Units,
        index: usize,
        fuel: &mut Fuel,
    ) -> Result<&Rows, OutOfFuel> {
        if self.sequences[index].rows.is_none() {
            let instructions = self.sequences[index].instructions.clone();
            let run = self.run(sections, instructions.start as usize..instructions.end as usize, fuel);
            self.sequences[index].rows = Some(units.unless_malformed(run)?.unwrap_or_default());
        }
        Ok(self.sequences[index].rows.get_or_insert_default())
    }

    /// The sequence that starts in a function's body, by its index, and the address of its first row.
    pub(crate) fn first(
        &mut self,
        sections: &Sections<'_>,
        units: &mut Units,
        body: Body,
        fuel: &mut Fuel,
    ) -> Result<Option<(usize, u32)>, OutOfFuel> {
        let index = self.sequences.partition_point(|sequence| sequence.body < body.start);
        if self.sequences.get(index).is_none_or(|sequence| sequence.body != body.start) {
            return Ok(None);
        }
        let rows = self.rows(sections, units, index, fuel)?;
        Ok(rows.addresses.first().map(|address| (index, *address)))
    }

    /// The position of an address in a body. `probable` is the sequence that most of the body's addresses are in.
    ///
    /// Compilers give some instructions no line. They get that of the nearest row before, or else after, in the same
    /// function, inlined or not: `is_same` says whether another address is in it.
    pub(crate) fn find(
        &mut self,
        sections: &Sections<'_>,
        units: &mut Units,
        (body, address, probable): (Body, u32, usize),
        is_same: impl Fn(u32) -> bool,
        fuel: &mut Fuel,
    ) -> Result<Option<Position>, OutOfFuel> {
        // The last one that starts before: what overlaps it describes code that the linker dropped.
        let starts_before = |sequence: &Sequence| sequence.start <= address;
        let is_last = |index: usize| {
            self.sequences.get(index).is_some_and(starts_before)
                && !self.sequences.get(index + 1).is_some_and(starts_before)
        };
        let index = match is_last(probable) {
            true => Some(probable),
            false => self.sequences.partition_point(starts_before).checked_sub(1),
        };
        let Some(index) = index else { return Ok(None) };
        Ok(self.rows(sections, units, index, fuel)?.find(body, address, is_same))
    }

    /// The position with its file's path; `None` without a file.
    pub(crate) fn render(
        &mut self,
        sections: &Sections<'_>,
        units: &mut Units,
        unit_index: usize,
        position: Option<Position>,
        fuel: &mut Fuel,
    ) -> Result<Option<SourceLocation>, OutOfFuel> {
        let Some(Position { file: Some(file), line, column }) = position else { return Ok(None) };
        let Some(known) = self.files.get_mut(file as usize) else { return Ok(None) };
        let path = match known {
            Some(path) => path,
            None => {
                let unit = units.open_with_lines(sections, unit_index, fuel);
                let path = unit.and_then(|unit| file_path(unit.unit_ref(sections), file, fuel));
                known.insert(units.unless_malformed(path)?.flatten())
            }
        };
        Ok(path.clone().map(|file| SourceLocation { file, line, column }))
    }
}

impl Rows {
    fn find(&self, body: Body, address: u32, is_same: impl Fn(u32) -> bool) -> Option<Position> {
        let after = self.addresses.partition_point(|start| *start <= address);
        let index = after.checked_sub(1).filter(|_| address < self.end)?;
        let row = self.rows[index];
        if row.line != 0 {
            return Some(row.position());
        }
        let is_near = |index: &usize| {
            let start = self.addresses[*index];
            self.rows[*index].line != 0 && body.contains(start) && is_same(start)
        };
        let nearest = (0..index).rev().take(FARTHEST_LINE).find(is_near);
        let nearest = nearest.or_else(|| (index..self.rows.len()).take(FARTHEST_LINE).find(is_near));
        Some(nearest.map_or(row, |index| self.rows[index]).position())
    }
}

fn file_path(unit: UnitRef<'_, Reader<'_>>, file: u32, fuel: &mut Fuel) -> Result<Option<Arc<str>>, Stop> {
    let Some(program) = &unit.line_program else { return Ok(None) };
    let header = program.header();
    let Some(entry) = header.file(file.into()) else { return Ok(None) };
    let mut text = |value| -> Result<String, Stop> {
        let value = unit.attr_string(value)?;
        fuel.burn(value.len() / 16)?;
        let value = value.to_string_lossy();
        Ok(value.chars().take(LONGEST_PATH).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    };
    let mut path = match unit.comp_dir {
        Some(directory) => text(AttributeValue::String(directory))?,
        None => String::new(),
    };
    // Up to DWARF 4, directory 0 is that of the unit and not in the table.
    if (entry.directory_index() != 0 || header.version() >= 5)
        && let Some(directory) = entry.directory(header)
    {
        push(&mut path, &text(directory)?);
    }
    push(&mut path, &text(entry.path_name())?);
    Ok(Some(path.into()))
}

/// Appends a path to a directory, or replaces it if the path is absolute, on Unix or Windows.
fn push(path: &mut String, part: &str) {
    let is_windows = |path: &str| {
        let bytes = path.as_bytes();
        path.starts_with('\\') || bytes.get(1..3).is_some_and(|root| root == b":\\" || root == b":/")
    };
    if part.starts_with('/') || is_windows(part) {
        path.clear();
    } else if !path.is_empty() && !path.ends_with(['/', '\\']) {
        path.push(if is_windows(path) { '\\' } else { '/' });
    }
    path.push_str(part);
}

#[cfg(test)]
mod tests {
    use super::push;

    #[test]
    fn paths() {
        for (directory, part, whole) in [
            ("/src", "a.c", "/src/a.c"),
            ("/src/", "a.c", "/src/a.c"),
            ("/src", "/usr/a.c", "/usr/a.c"),
            ("", "a.c", "a.c"),
            ("C:\\src", "a.c", "C:\\src\\a.c"),
            ("/src", "C:\\a.c", "C:\\a.c"),
        ] {
            let mut path = directory.to_string();
            push(&mut path, part);
            assert_eq!(path, whole);
        }
    }
}

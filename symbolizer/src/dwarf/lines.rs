//! The line program of one unit, run once and kept as rows.

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{AttributeValue, ColumnType, Reader as _, UnitRef};

use super::fuel::Fuel;
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

/// From an address on, the code comes from a position. There are about as many rows as bytes in the line program.
#[derive(Clone, Copy, Debug)]
struct Row {
    address: u32,
    file: u32,
    line: u32,
    column: u32,
}

impl Row {
    fn position(&self) -> Position {
        Position { file: Some(self.file), line: self.line, column: self.column }
    }
}

/// Rows of consecutive addresses, sorted by address.
struct Sequence {
    start: u32,
    end: u32,
    /// The start of the body that it starts in: the first row of a function comes after its locals.
    body: u32,
    rows: Box<[Row]>,
}

/// The sequences of one unit that describe functions of the guest.
#[derive(Default)]
pub(crate) struct Lines {
    /// Sorted by start.
    sequences: Vec<Sequence>,
    /// The files asked for so far.
    files: HashMap<u32, Option<Arc<str>>>,
}

impl Lines {
    /// Runs the line program of a unit. Damage ends it; the sequences that were complete are kept.
    pub(crate) fn read(
        sections: &Sections<'_>,
        units: &mut Units,
        unit_index: usize,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<Lines, Stop> {
        let unit = units.open_with_lines(sections, unit_index, fuel)?;
        let mut lines = Lines::default();
        if let Some(program) = unit.line_program.clone() {
            let run = lines.run(program, bodies, fuel);
            units.unless_malformed(run)?;
        }
        lines.sequences.sort_by_key(|sequence| sequence.start);
        Ok(lines)
    }

    fn run(
        &mut self,
        program: gimli::IncompleteLineProgram<Reader<'_>>,
        bodies: &Bodies,
        fuel: &mut Fuel,
    ) -> Result<(), Stop> {
        // Instructions that make no row are paid for in advance.
        fuel.burn(program.header().raw_program_buf().len())?;
        let mut rows: Vec<Row> = Vec::new();
        let mut program = program.rows();
        while let Some((_, row)) = program.next_row()? {
            // An address beyond 32 bits is in no body.
            let address = u32::try_from(row.address()).unwrap_or(u32::MAX);
            if row.end_sequence() {
                self.add(&mut rows, address, bodies);
                rows.clear();
                continue;
            }
            let row = Row {
                address,
                file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
                line: row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or_default(),
                column: match row.column() {
                    ColumnType::LeftEdge => 0,
                    ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or_default(),
                },
            };
            // The last of several rows for one address is the one that counts.
            match rows.last_mut() {
                Some(last) if last.address == address => *last = row,
                _ => rows.push(row),
            }
        }
        Ok(())
    }

    /// Keeps a sequence if it starts with or in a body: where linkers leave dropped code, there is none.
    fn add(&mut self, rows: &mut [Row], end: u32, bodies: &Bodies) {
        let Some(start) = rows.iter().map(|row| row.address).min() else { return };
        let body = bodies.starting_at(u64::from(start)).or_else(|| Some(bodies.find(start)?.1));
        if let Some(body) = body.filter(|_| start < end) {
            rows.sort_by_key(|row| row.address);
            self.sequences.push(Sequence { start, end, body: body.start, rows: (&*rows).into() });
        }
    }

    /// The address of a function's first row, at or after the start of its body.
    pub(crate) fn first_address(&self, body: Body) -> Option<u32> {
        let before = self.sequences.partition_point(|sequence| sequence.body < body.start);
        self.sequences
            .get(before)
            .filter(|sequence| sequence.body == body.start)
            .map(|sequence| sequence.start)
    }

    /// The position of an address in a body.
    ///
    /// Compilers give some instructions no line. They get that of the nearest row before, or else after, in the same
    /// function, inlined or not: `is_same` says whether another address is in it.
    pub(crate) fn find(&self, body: Body, address: u32, is_same: impl Fn(u32) -> bool) -> Option<Position> {
        // The last one that starts before: what overlaps it describes code that the linker dropped.
        let end = self.sequences.partition_point(|sequence| sequence.start <= address);
        let sequence = self.sequences[..end].last().filter(|sequence| address < sequence.end)?;
        let index = sequence.rows.partition_point(|row| row.address <= address).checked_sub(1)?;
        let position = sequence.rows[index].position();
        if position.line != 0 {
            return Some(position);
        }
        let (before, after) = sequence.rows.split_at(index);
        let is_near = |row: &&Row| row.line != 0 && body.contains(row.address) && is_same(row.address);
        let nearest = before.iter().rev().take(FARTHEST_LINE).find(is_near);
        let nearest = nearest.or_else(|| after.iter().take(FARTHEST_LINE).find(is_near));
        Some(nearest.map_or(position, Row::position))
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
        let path = match self.files.get(&file) {
            Some(path) => path.clone(),
            None => {
                let unit = units.open_with_lines(sections, unit_index, fuel);
                let path = unit.and_then(|unit| file_path(unit.unit_ref(sections), file, fuel));
                let path = units.unless_malformed(path)?.flatten();
                self.files.insert(file, path.clone());
                path
            }
        };
        Ok(path.map(|file| SourceLocation { file, line, column }))
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

//! A line program cut into its sequences, so that only those of the functions that are asked for have to be run.

use std::ops::Range;

use gimli::{
    DebugLine, DebugLineOffset, LineProgramHeader, LineRow, LittleEndian, Reader as _, Section as _,
};

use super::{Reader, Sections};

/// Where a sequence lies in its program, and where its code begins.
pub(crate) struct Cut {
    pub(crate) instructions: Range<usize>,
    /// The address that it sets; `None` if it sets several, or moves on before.
    pub(crate) start: Option<u64>,
}

/// Finds the sequences of a program by the lengths of its instructions. What comes behind the last one is none.
pub(crate) fn cut(header: &LineProgramHeader<Reader<'_>>, mut each: impl FnMut(Cut)) -> gimli::Result<()> {
    let program = header.raw_program_buf();
    let mut rest = program;
    let mut first = 0;
    let mut start = None;
    let (mut has_moved, mut is_plain) = (false, true);
    while !rest.is_empty() {
        let opcode = gimli::DwLns(rest.read_u8()?);
        match opcode {
            gimli::DwLns(0) => {
                let length = rest.read_uleb128()?;
                let mut operands = rest.split(usize::try_from(length).unwrap_or(usize::MAX))?;
                match gimli::DwLne(operands.read_u8()?) {
                    gimli::DW_LNE_set_address => {
                        is_plain &= !has_moved && start.is_none();
                        start = Some(operands.read_address(header.address_size())?);
                    }
                    gimli::DW_LNE_end_sequence => {
                        let end = program.len() - rest.len();
                        each(Cut { instructions: first..end, start: start.filter(|_| is_plain) });
                        (first, start, has_moved, is_plain) = (end, None, false, true);
                    }
                    _ => {}
                }
            }
            opcode if opcode.0 >= header.opcode_base() => has_moved = true,
            gimli::DW_LNS_copy | gimli::DW_LNS_const_add_pc => has_moved = true,
            gimli::DW_LNS_fixed_advance_pc => {
                has_moved = true;
                rest.skip(2)?;
            }
            gimli::DW_LNS_advance_pc => {
                has_moved = true;
                rest.skip_leb128()?;
            }
            gimli::DW_LNS_advance_line
            | gimli::DW_LNS_set_file
            | gimli::DW_LNS_set_column
            | gimli::DW_LNS_set_isa => rest.skip_leb128()?,
            gimli::DW_LNS_negate_stmt
            | gimli::DW_LNS_set_basic_block
            | gimli::DW_LNS_set_prologue_end
            | gimli::DW_LNS_set_epilogue_begin => {}
            unknown => {
                let lengths = header.standard_opcode_lengths().slice();
                for _ in 0..lengths.get(usize::from(unknown.0) - 1).copied().unwrap_or_default() {
                    rest.skip_leb128()?;
                }
            }
        }
    }
    Ok(())
}

/// What one sequence of a program needs to be run as a program of its own.
#[derive(Default)]
pub(crate) struct Runner {
    /// A header like that of the program, without files and directories.
    header: Vec<u8>,
    address_size: u8,
    /// Where the program's instructions begin in the section.
    base: usize,
}

impl Runner {
    pub(crate) fn new(sections: &Sections<'_>, header: &LineProgramHeader<Reader<'_>>) -> Runner {
        let lengths = header.standard_opcode_lengths().slice();
        let fields = [
            header.minimum_instruction_length(),
            header.maximum_operations_per_instruction(),
            header.default_is_stmt().into(),
            header.line_base().cast_unsigned(),
            header.line_range(),
            header.opcode_base(),
        ];
        // The last two bytes end the empty tables. There are at most 255 lengths.
        let tables = [&fields, lengths, &[0, 0]].concat();
        let program = header.raw_program_buf();
        Runner {
            // Of DWARF 4, in which all fields have a place; the length of all comes before it.
            header: [&4_u16.to_le_bytes()[..], &(tables.len() as u32).to_le_bytes(), &tables].concat(),
            address_size: header.address_size(),
            base: program.slice().as_ptr().addr() - sections.debug_line.reader().slice().as_ptr().addr(),
        }
    }

    /// Runs one sequence.
    pub(crate) fn run(
        &self,
        sections: &Sections<'_>,
        instructions: Range<usize>,
        mut each: impl FnMut(&LineRow),
    ) -> gimli::Result<()> {
        let instructions = self.base + instructions.start..self.base + instructions.end;
        let section = sections.debug_line.reader().slice();
        let instructions = section.get(instructions).unwrap_or_default();
        // Fits, since the whole binary is smaller than 4 GiB, and holds a longer header.
        let length = (self.header.len() + instructions.len()) as u32;
        let program = [&length.to_le_bytes()[..], &self.header, instructions].concat();
        let program = DebugLine::new(&program, LittleEndian);
        let mut rows = program.program(DebugLineOffset(0), self.address_size, None, None)?.rows();
        while let Some((_, row)) = rows.next_row()? {
            each(row);
        }
        Ok(())
    }
}

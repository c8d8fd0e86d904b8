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
    // Where the sequence's address is known, only its end is of interest, and whether another address comes before.
    let mut can_search = header.opcode_base() <= LEAST_UNKNOWN;
    while !rest.is_empty() {
        if can_search && start.is_some() {
            match next_extended(rest.slice(), header.opcode_base()) {
                Some(position) => rest.skip(position)?,
                None => can_search = false,
            }
        }
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

/// The first opcode that version 4 does not define.
const LEAST_UNKNOWN: u8 = 13;

/// Where the next extended instruction is in instructions that nothing unknown is among.
///
/// It begins with a 0, which few other bytes are, and those are operands. Whether one is, is found out from the last place
/// before it where an instruction has to end.
fn next_extended(instructions: &[u8], opcode_base: u8) -> Option<usize> {
    // An instruction begins here, and none before it is an extended one.
    let mut begin = 0;
    for zero in memchr::memchr_iter(0, instructions) {
        // Or it is in an operand that has been passed.
        if begin <= zero {
            begin += last_begin(&instructions[begin..zero], opcode_base);
            while begin < zero {
                begin = instruction_end(instructions, begin, opcode_base);
            }
            if begin == zero {
                return Some(zero);
            }
        }
    }
    None
}

/// The last place, as far as single bytes tell, where an instruction begins in instructions or behind them.
fn last_begin(instructions: &[u8], opcode_base: u8) -> usize {
    let ends = |last: usize| {
        // A byte that is the last of an operand of variable length, or a whole instruction, but not the first of two bytes.
        let is_in_two_bytes =
            last > 0 && gimli::DwLns(instructions[last - 1]) == gimli::DW_LNS_fixed_advance_pc;
        let byte = instructions[last];
        byte != 0 && byte < 0x80 && operand(byte, opcode_base) == Operand::None && !is_in_two_bytes
    };
    (0..instructions.len()).rev().find(|last| ends(*last)).map_or(0, |last| last + 1)
}

#[derive(PartialEq, Eq)]
enum Operand {
    None,
    /// Of variable length.
    Number,
    TwoBytes,
}

/// What follows the opcode of an instruction that is neither extended nor unknown.
fn operand(opcode: u8, opcode_base: u8) -> Operand {
    match gimli::DwLns(opcode) {
        _ if opcode >= opcode_base => Operand::None,
        gimli::DW_LNS_advance_pc
        | gimli::DW_LNS_advance_line
        | gimli::DW_LNS_set_file
        | gimli::DW_LNS_set_column
        | gimli::DW_LNS_set_isa => Operand::Number,
        gimli::DW_LNS_fixed_advance_pc => Operand::TwoBytes,
        _ => Operand::None,
    }
}

/// Where such an instruction ends that begins here.
fn instruction_end(instructions: &[u8], begin: usize, opcode_base: u8) -> usize {
    let operands = &instructions[begin + 1..];
    let length = match operand(instructions[begin], opcode_base) {
        Operand::None => 0,
        Operand::Number => {
            operands.iter().position(|byte| *byte < 0x80).map_or(operands.len(), |last| last + 1)
        }
        Operand::TwoBytes => 2,
    };
    begin + 1 + length
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{instruction_end, next_extended};

    proptest! {
        /// Instruction by instruction, from the first one on.
        #[test]
        fn the_next_extended_instruction_is_the_first_one_that_is_met(
            // As many zeros, opcodes with operands and bytes that go on as it takes to be mistaken.
            bytes in prop::collection::vec(prop_oneof![0_u8..16, Just(0), Just(9), 0x7e_u8..0x84], 0..40),
            opcode_base in 1_u8..=13,
        ) {
            let mut begin = 0;
            while bytes.get(begin).is_some_and(|opcode| *opcode != 0) {
                begin = instruction_end(&bytes, begin, opcode_base);
            }
            prop_assert_eq!(next_extended(&bytes, opcode_base), Some(begin).filter(|begin| *begin < bytes.len()));
        }
    }
}

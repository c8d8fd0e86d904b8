//! A processor that runs just the instructions of prologues, epilogues and tail calls. Instructions are decoded
//! by `iced-x86`, so that nothing here shares an idea of an encoding with the code that is tested.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// The 64-bit registers, a stack that may hold anything where nothing was written, and code.
pub(crate) struct Processor<'a> {
    code_start: usize,
    code: &'a [u8],
    pub(crate) pc: usize,
    registers: BTreeMap<Register, usize>,
    pub(crate) stack: BTreeMap<usize, usize>,
    zero: bool,
    above: bool,
}

/// What an instruction did to the control flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    /// Went to an address outside the code, or to its first byte.
    Left,
}

impl<'a> Processor<'a> {
    pub(crate) fn new(code_start: usize, code: &'a [u8], sp: usize, fp: usize) -> Self {
        let mut registers: BTreeMap<_, _> =
            (0..16).map(|number| (Register::RAX + number, 0xdead_0000 + number as usize)).collect();
        registers.insert(Register::RSP, sp);
        registers.insert(Register::RBP, fp);
        Self {
            code_start,
            code,
            pc: code_start,
            registers,
            stack: BTreeMap::new(),
            zero: false,
            above: false,
        }
    }

    pub(crate) fn register(&self, register: Register) -> usize {
        self.registers[&register]
    }

    pub(crate) fn set(&mut self, register: Register, value: usize) {
        self.registers.insert(register, value);
    }

    fn decode(&self) -> Instruction {
        let offset = self.pc - self.code_start;
        let mut decoder = Decoder::with_ip(64, &self.code[offset..], self.pc as u64, DecoderOptions::NONE);
        let instruction = decoder.decode();
        assert!(!instruction.is_invalid(), "no instruction at offset {offset}");
        instruction
    }

    fn address(&self, instruction: &Instruction) -> usize {
        if instruction.is_ip_rel_memory_operand() {
            return instruction.ip_rel_memory_address() as usize;
        }
        let value = |register| if register == Register::None { 0 } else { self.register(register) };
        value(instruction.memory_base())
            .wrapping_add(value(instruction.memory_index()) * instruction.memory_index_scale() as usize)
            .wrapping_add(instruction.memory_displacement64() as usize)
    }

    fn load(&self, address: usize) -> usize {
        if let Some(offset) = address.checked_sub(self.code_start).filter(|offset| *offset < self.code.len())
        {
            let mut word = [0; 8];
            let bytes = &self.code[offset..self.code.len().min(offset + 8)];
            word[..bytes.len()].copy_from_slice(bytes);
            return usize::from_le_bytes(word);
        }
        self.stack.get(&address).copied().unwrap_or(0xbad_bad)
    }

    fn operand(&self, instruction: &Instruction, index: u32) -> usize {
        match instruction.op_kind(index) {
            OpKind::Register => self.register(instruction.op_register(index)),
            OpKind::Memory => self.load(self.address(instruction)),
            OpKind::NearBranch64 => instruction.near_branch_target() as usize,
            _ => instruction.immediate(index) as usize,
        }
    }

    fn write(&mut self, instruction: &Instruction, value: usize) {
        match instruction.op_kind(0) {
            OpKind::Register => self.set(instruction.op_register(0), value),
            OpKind::Memory => {
                let address = self.address(instruction);
                self.stack.insert(address, value);
            }
            other => panic!("cannot write {other:?}"),
        }
    }

    /// Runs one instruction.
    pub(crate) fn step(&mut self) -> Step {
        let instruction = self.decode();
        let mut next = instruction.next_ip() as usize;
        let sp = self.register(Register::RSP);
        match instruction.mnemonic() {
            Mnemonic::Push => {
                let value = self.operand(&instruction, 0);
                self.set(Register::RSP, sp - 8);
                self.stack.insert(sp - 8, value);
            }
            Mnemonic::Pop => {
                self.set(Register::RSP, sp + 8);
                let value = self.load(sp);
                self.write(&instruction, value);
            }
            Mnemonic::Mov => {
                let value = self.operand(&instruction, 1);
                self.write(&instruction, value);
            }
            Mnemonic::Movsxd => {
                let value = self.operand(&instruction, 1) as u32 as i32;
                self.write(&instruction, value as isize as usize);
            }
            Mnemonic::Lea => {
                let address = self.address(&instruction);
                self.write(&instruction, address);
            }
            Mnemonic::Add | Mnemonic::Sub => {
                let (left, right) = (self.operand(&instruction, 0), self.operand(&instruction, 1));
                let add = instruction.mnemonic() == Mnemonic::Add;
                self.write(
                    &instruction,
                    if add { left.wrapping_add(right) } else { left.wrapping_sub(right) },
                );
            }
            Mnemonic::Cmp => {
                let (left, right) = (self.operand(&instruction, 0), self.operand(&instruction, 1));
                (self.zero, self.above) = (left == right, left > right);
            }
            Mnemonic::Ja if self.above => next = instruction.near_branch_target() as usize,
            Mnemonic::Jne if !self.zero => next = instruction.near_branch_target() as usize,
            Mnemonic::Ja | Mnemonic::Jne | Mnemonic::Nop | Mnemonic::Endbr64 => {}
            Mnemonic::Jmp => next = self.operand(&instruction, 0),
            Mnemonic::Ret => {
                next = self.load(sp);
                let extra = if instruction.op_count() == 1 { instruction.immediate(0) as usize } else { 0 };
                self.set(Register::RSP, sp + 8 + extra);
            }
            Mnemonic::Call => {
                // The callee runs at once, and may leave anything below the stack pointer.
                self.stack.insert(sp - 8, next);
            }
            other => panic!("the processor does not know {other:?}"),
        }
        self.pc = next;
        let inside = (self.code_start + 1..self.code_start + self.code.len()).contains(&next);
        if inside { Step::Next } else { Step::Left }
    }
}

//! What registers and words of the stack hold, in terms of what they held at the beginning.
//!
//! Only what a frame is made of is followed: addresses that are a register and a constant apart, and words that are saved
//! and restored. All else becomes unknown. It is taken for granted, as by every unwinder, that nobody writes to saved
//! registers and return addresses: a write to where it cannot be told does not change what is known of the stack.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// The size of a word of the stack, in bytes.
const WORD: i64 = size_of::<u64>() as i64;
/// What the stack pointer is a multiple of at calls.
const CALL_ALIGNMENT: i64 = 16;
/// By the number that an instruction encodes it with.
pub(super) const STACK_POINTER: u8 = 4;
/// By the number that an instruction encodes it with.
pub(super) const FRAME_POINTER: u8 = 5;
const REGISTERS: usize = 16;
/// Those that a function gives back as it found them, besides the stack pointer: `rbx`, `rbp`, `r12` to `r15`.
pub(super) const CALLEE_SAVED: [u8; 6] = [3, FRAME_POINTER, 12, 13, 14, 15];

/// An address: so many bytes above what a register held at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) base: u8,
    pub(super) offset: i64,
}

impl Place {
    fn overlaps(self, other: Self) -> bool {
        self.base == other.base && (self.offset.wrapping_sub(other.offset)).unsigned_abs() < WORD as u64
    }

    fn above(self, bytes: i64) -> Self {
        Self { offset: self.offset.wrapping_add(bytes), ..self }
    }
}

/// What a register or a word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Unknown,
    Address(Place),
    /// What the word at this place held at the beginning.
    Word(Place),
    /// An address of code or data.
    Known(u64),
    /// An entry of the table of a `switch` at this address: how far from the table the code for a case is.
    TableEntry(u64),
    /// The code for a case of such a table.
    TableTarget(u64),
}

/// The state of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    registers: [Value; REGISTERS],
    /// Words that have been written to since the beginning.
    written: Vec<(Place, Value)>,
    /// Where the stack pointer pointed at the first call.
    first_call: Option<Place>,
}

impl Machine {
    /// At the beginning, which can be where a call has returned.
    pub(super) fn new(has_called: bool) -> Self {
        let at_first = |base| Place { base: base as u8, offset: 0 };
        Self {
            registers: std::array::from_fn(|number| Value::Address(at_first(number))),
            written: Vec::new(),
            first_call: has_called.then_some(Place { base: STACK_POINTER, offset: 0 }),
        }
    }

    /// Whether the stack was aligned at calls, if this is the place of the return address.
    pub(super) fn is_aligned_at_calls(&self, return_address: Place) -> bool {
        self.first_call.is_none_or(|call| {
            let distance = return_address.above(WORD).offset.wrapping_sub(call.offset);
            call.base != return_address.base || distance.rem_euclid(CALL_ALIGNMENT) == 0
        })
    }

    pub(super) fn register(&self, number: u8) -> Value {
        self.registers.get(usize::from(number)).copied().unwrap_or(Value::Unknown)
    }

    /// Where the stack pointer points, if that is known.
    pub(super) fn stack_pointer(&self) -> Option<Place> {
        match self.register(STACK_POINTER) {
            Value::Address(place) => Some(place),
            _ => None,
        }
    }

    /// The word at `place`, of which a part can have been overwritten.
    fn load(&self, place: Place) -> Value {
        let mut overlapping = self.written.iter().filter(|(written, _)| place.overlaps(*written));
        match (overlapping.next(), overlapping.next()) {
            (None, _) => Value::Word(place),
            (Some((written, value)), None) if *written == place => *value,
            _ => Value::Unknown,
        }
    }

    fn store(&mut self, place: Place, value: Value) {
        self.written.retain(|(written, _)| *written != place);
        for (_, value) in self.written.iter_mut().filter(|(written, _)| place.overlaps(*written)) {
            *value = Value::Unknown;
        }
        self.written.push((place, value));
    }

    fn push(&mut self, value: Value) {
        self.move_stack(-WORD);
        if let Some(top) = self.stack_pointer() {
            self.store(top, value);
        }
    }

    fn pop(&mut self) -> Value {
        let value = self.stack_pointer().map_or(Value::Unknown, |top| self.load(top));
        self.move_stack(WORD);
        value
    }

    fn move_stack(&mut self, bytes: i64) {
        let moved = self.stack_pointer().map_or(Value::Unknown, |top| Value::Address(top.above(bytes)));
        self.set(STACK_POINTER, moved);
    }

    fn set(&mut self, number: u8, value: Value) {
        if let Some(register) = self.registers.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// A function is called and has returned.
    pub(super) fn call(&mut self) {
        self.first_call = self.first_call.or(self.stack_pointer());
        self.forget_temporaries();
    }

    /// What a function or a system call need not give back is not known any more.
    pub(super) fn forget_temporaries(&mut self) {
        for number in (0..REGISTERS as u8).filter(|number| !CALLEE_SAVED.contains(number)) {
            if number != STACK_POINTER {
                self.set(number, Value::Unknown);
            }
        }
        // What is below the stack pointer is the function's.
        let Some(top) = self.stack_pointer() else { return };
        self.written.retain(|(written, _)| written.base != top.base || written.offset >= top.offset);
    }

    /// Anything but control flow.
    pub(super) fn execute(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let kinds = (instruction.op0_kind(), instruction.op1_kind());
        match (instruction.mnemonic(), kinds) {
            (Mnemonic::Push, _) if instruction.stack_pointer_increment() == -8 => {
                let value = self.operand(instruction, 0);
                self.push(value);
            }
            (Mnemonic::Pop, (OpKind::Register, _)) if is_whole(instruction.op0_register()) => {
                let value = self.pop();
                self.set(instruction.op0_register().number() as u8, value);
            }
            (Mnemonic::Leave, _) if instruction.stack_pointer_increment() == 0 => {
                self.set(STACK_POINTER, self.register(FRAME_POINTER));
                let value = self.pop();
                self.set(FRAME_POINTER, value);
            }
            (Mnemonic::Mov, (OpKind::Register, _)) if is_whole(instruction.op0_register()) => {
                let value = self.operand(instruction, 1);
                self.set(instruction.op0_register().number() as u8, value);
            }
            (Mnemonic::Mov, (OpKind::Memory, _)) if instruction.memory_size().size() == 8 => {
                let value = self.operand(instruction, 1);
                if let Some(place) = self.place(instruction) {
                    self.store(place, value);
                }
            }
            (Mnemonic::Lea, _) if is_whole(instruction.op0_register()) => {
                let value = match instruction.is_ip_rel_memory_operand() {
                    true => Value::Known(instruction.ip_rel_memory_address()),
                    false => self.place(instruction).map_or(Value::Unknown, Value::Address),
                };
                self.set(instruction.op0_register().number() as u8, value);
            }
            (Mnemonic::Add, (OpKind::Register, OpKind::Immediate8to64 | OpKind::Immediate32to64)) => {
                self.add(instruction, instruction.immediate(1).cast_signed());
            }
            (Mnemonic::Sub, (OpKind::Register, OpKind::Immediate8to64 | OpKind::Immediate32to64)) => {
                self.add(instruction, instruction.immediate(1).cast_signed().wrapping_neg());
            }
            (Mnemonic::Movsxd, (OpKind::Register, OpKind::Memory))
                if is_whole(instruction.op0_register()) =>
            {
                let value = self.table_entry(instruction);
                self.set(instruction.op0_register().number() as u8, value);
            }
            (Mnemonic::Add, (OpKind::Register, OpKind::Register)) if is_whole(instruction.op0_register()) => {
                let value = self.table_target(instruction);
                self.set(instruction.op0_register().number() as u8, value);
            }
            _ => self.forget(instruction, info),
        }
    }

    fn table_target(&self, sum: &Instruction) -> Value {
        match (self.operand(sum, 0), self.operand(sum, 1)) {
            (Value::TableEntry(table), Value::Known(known))
            | (Value::Known(known), Value::TableEntry(table))
                if table == known =>
            {
                Value::TableTarget(table)
            }
            _ => Value::Unknown,
        }
    }

    fn table_entry(&self, instruction: &Instruction) -> Value {
        let base = instruction.memory_base();
        let is_indexed =
            instruction.memory_index() != Register::None && instruction.memory_index_scale() == 4;
        match self.register(base.number() as u8) {
            Value::Known(table)
                if is_indexed && is_whole(base) && instruction.memory_displacement64() == 0 =>
            {
                Value::TableEntry(table)
            }
            _ => Value::Unknown,
        }
    }

    fn add(&mut self, instruction: &Instruction, bytes: i64) {
        let number = instruction.op0_register().number() as u8;
        let value = match self.register(number) {
            Value::Address(place) => Value::Address(place.above(bytes)),
            _ => Value::Unknown,
        };
        self.set(number, value);
    }

    /// The value of an operand of eight bytes.
    fn operand(&self, instruction: &Instruction, index: u32) -> Value {
        match instruction.op_kind(index) {
            OpKind::Register if is_whole(instruction.op_register(index)) => {
                self.register(instruction.op_register(index).number() as u8)
            }
            OpKind::Memory if instruction.memory_size().size() == 8 => {
                self.place(instruction).map_or(Value::Unknown, |place| self.load(place))
            }
            _ => Value::Unknown,
        }
    }

    /// The address of the operand in memory, if it is known.
    fn place(&self, instruction: &Instruction) -> Option<Place> {
        let is_thread_local = matches!(instruction.segment_prefix(), Register::FS | Register::GS);
        let base = instruction.memory_base();
        if instruction.memory_index() != Register::None || is_thread_local || !is_whole(base) {
            return None;
        }
        match self.register(base.number() as u8) {
            Value::Address(place) => Some(place.above(instruction.memory_displacement64().cast_signed())),
            _ => None,
        }
    }

    /// What an instruction writes to is not known any more.
    fn forget(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let writes = |access| {
            use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
        };
        let used = info.info(instruction);
        for memory in used.used_memory().iter().filter(|memory| writes(memory.access())) {
            if memory.index() != Register::None || !is_whole(memory.base()) {
                continue;
            }
            let Value::Address(place) = self.register(memory.base().number() as u8) else { continue };
            let start = place.above(memory.displacement().cast_signed());
            let size = memory.memory_size().size() as i64;
            for offset in (0..size.max(1)).step_by(WORD as usize) {
                self.store(start.above(offset), Value::Unknown);
            }
        }
        let increment = i64::from(instruction.stack_pointer_increment());
        let moved = self.stack_pointer().filter(|_| instruction.is_stack_instruction());
        for register in used.used_registers().iter().filter(|register| writes(register.access())) {
            let whole = register.register().full_register();
            if whole.is_gpr64() {
                self.set(whole.number() as u8, Value::Unknown);
            }
        }
        if let Some(top) = moved.filter(|_| increment != 0) {
            self.set(STACK_POINTER, Value::Address(top.above(increment)));
        }
    }
}

fn is_whole(register: Register) -> bool {
    register.is_gpr64()
}

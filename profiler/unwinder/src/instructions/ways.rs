//! Following code from an instruction on, in all ways that it can go.
//!
//! Conditional jumps are followed to both sides, and jumps to other functions into these. A way ends where it returns, in a
//! trap, in a jump to where it cannot be told, where code ends, and where another way has been with the stack as deep.
//!
//! Of a `switch` the first case is followed. The default is not: where no value leads to it, compilers let it be the beginning
//! of whatever comes next.

use std::collections::VecDeque;

use fnv::FnvHashSet;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind};

use super::machine::{Machine, Place, Value};

/// No instruction is longer, in bytes.
const MOST_BYTES: usize = 15;

/// The code of a process, and the data that it finds its way by.
pub trait Code {
    /// The code from `address` on: an instruction at least, unless the code ends before; empty if there is none.
    fn bytes(&mut self, address: u64) -> &[u8];

    /// Fills the buffer with what lies at `address`, if nobody writes there any more: a pointer that the loader has put where
    /// code expects it, or a table. Code also jumps to where variables point. What one of them holds now says nothing about
    /// where such a jump led before, so there must be no answer for an address that can be written to.
    fn read_only(&mut self, address: u64, buffer: &mut [u8]) -> Option<()>;
}

/// So many bytes of what is only read.
fn read_only<const SIZE: usize>(code: &mut impl Code, address: u64) -> Option<[u8; SIZE]> {
    let mut bytes = [0; SIZE];
    code.read_only(address, &mut bytes)?;
    Some(bytes)
}

/// The instruction at an address; an invalid one if there is none.
pub(super) fn decode(code: &mut impl Code, address: u64) -> Instruction {
    let bytes = code.bytes(address);
    let bytes = bytes.get(..MOST_BYTES).unwrap_or(bytes);
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode()
}

/// Where a jump or a call leads, if that is known.
pub(super) fn target(code: &mut impl Code, instruction: &Instruction) -> Option<u64> {
    if instruction.is_call_near() || instruction.is_jmp_short_or_near() {
        Some(instruction.near_branch_target())
    } else if instruction.is_ip_rel_memory_operand() {
        read_only(code, instruction.ip_rel_memory_address()).map(u64::from_le_bytes)
    } else {
        None
    }
}

/// The first case of a `switch`.
fn first_case(code: &mut impl Code, jump: &Instruction, machine: &Machine) -> Option<u64> {
    if jump.op0_kind() != OpKind::Register {
        return None;
    }
    let Value::TableTarget(table) = machine.register(jump.op0_register().number() as u8) else { return None };
    let distance = read_only(code, table).map(i32::from_le_bytes)?;
    Some(table.wrapping_add_signed(distance.into()))
}

/// The ways from an instruction on.
pub(super) struct Ways {
    /// How many more can be followed.
    pub(super) instructions_left: usize,
    info: InstructionInfoFactory,
    /// The instructions that were followed, each with where the stack pointer points.
    seen: FnvHashSet<(u64, Option<Place>)>,
    waiting: VecDeque<(u64, Machine)>,
    calls: Vec<Call>,
    /// Whether the last one that waits is the default of a `switch`, if there is one.
    is_default: bool,
    /// The states in which ways return.
    pub(super) returned: Vec<Machine>,
    /// Whether there are ways that were not followed.
    pub(super) is_cut: bool,
}

/// A call that a way waits at.
struct Call {
    /// The called function, if it is known.
    function: Option<u64>,
    return_address: u64,
    returned: Machine,
}

impl Ways {
    /// The ways from `start` on, of so many instructions at most.
    pub(super) fn new(start: u64, machine: Machine, most_instructions: usize) -> Self {
        Self {
            instructions_left: most_instructions,
            info: InstructionInfoFactory::new(),
            seen: FnvHashSet::default(),
            waiting: VecDeque::from([(start, machine)]),
            calls: Vec::new(),
            is_default: false,
            returned: Vec::new(),
            is_cut: false,
        }
    }

    /// Follows all ways until they end or come to a call.
    pub(super) fn follow(&mut self, code: &mut impl Code) {
        while let Some((start, machine)) = self.waiting.pop_front() {
            self.run(code, start, machine);
        }
    }

    /// Lets the ways go on behind the calls of functions that return. `false` if there is none.
    pub(super) fn cross_calls(&mut self, mut returns: impl FnMut(Option<u64>) -> bool) -> bool {
        for call in std::mem::take(&mut self.calls) {
            if returns(call.function) {
                self.waiting.push_back((call.return_address, call.returned));
            }
        }
        !self.waiting.is_empty()
    }

    /// Where the stack pointer points when ways come to `address`.
    pub(super) fn stack_pointers_at(&self, address: u64) -> impl Iterator<Item = Option<Place>> + '_ {
        self.seen.iter().filter(move |(seen, _)| *seen == address).map(|(_, stack_pointer)| *stack_pointer)
    }

    fn run(&mut self, code: &mut impl Code, start: u64, mut machine: Machine) {
        let mut next = Some(start);
        self.is_default = false;
        while let Some(address) = next
            && self.seen.insert((address, machine.stack_pointer()))
        {
            let Some(left) = self.instructions_left.checked_sub(1) else {
                self.is_cut = true;
                return;
            };
            self.instructions_left = left;
            let instruction = decode(code, address);
            next = self.step(code, &instruction, &mut machine);
        }
    }

    /// Executes an instruction, and returns the address of the next one.
    fn step(
        &mut self,
        code: &mut impl Code,
        instruction: &Instruction,
        machine: &mut Machine,
    ) -> Option<u64> {
        let next = instruction.next_ip();
        match instruction.flow_control() {
            FlowControl::Next => machine.execute(instruction, &mut self.info),
            FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                let is_new = !self.seen.contains(&(target, machine.stack_pointer()));
                if is_new {
                    self.waiting.push_back((target, machine.clone()));
                }
                self.is_default = is_new && instruction.mnemonic() == Mnemonic::Ja;
            }
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                let target = target(code, instruction).or_else(|| {
                    self.waiting.pop_back_if(|_| self.is_default);
                    first_case(code, instruction, machine)
                });
                // Who jumps with a stack pointer of unknown origin has left this stack: it is how exceptions are thrown.
                self.is_cut |= target.is_none() && machine.stack_pointer().is_some();
                return target;
            }
            FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => machine.forget_temporaries(),
            FlowControl::Call | FlowControl::IndirectCall if is_call(instruction) => {
                let function = target(code, instruction);
                machine.call();
                self.calls.push(Call { function, return_address: next, returned: machine.clone() });
                return None;
            }
            FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => {
                self.returned.push(machine.clone());
                return None;
            }
            _ => return None,
        }
        Some(next)
    }
}

/// Whether the instruction calls a function. One that calls what is behind it wants to know where it is, and no function.
pub(super) fn is_call(instruction: &Instruction) -> bool {
    let is_direct = instruction.is_call_near() && instruction.near_branch_target() != instruction.next_ip();
    is_direct || instruction.is_call_near_indirect()
}

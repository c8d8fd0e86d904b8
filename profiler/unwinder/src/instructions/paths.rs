//! Where a function's caller is found, by following the function's code to where it returns.
//!
//! Of all ways those with the fewest calls that return are believed ([`Ways`]), and they have to agree.
//!
//! Behind a call that does not return another function begins, or code of this one with another depth of the stack. Such a
//! way must not be believed, and is recognized by two signs: the called function has no way to return either ([`Callees`]), or the return
//! address lies where no function that calls others has it, since stacks are aligned at calls.

use super::callees::Callees;
use super::calls::callee_before;
use super::machine::{CALLEE_SAVED, FRAME_POINTER, Machine, Place, STACK_POINTER, Value};
use super::ways::{Code, Ways};

/// Instructions that are followed at most to find one rule. From the middle of a large function it is far to where it returns.
const MOST_INSTRUCTIONS: usize = 2000;

/// A place on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackPlace {
    /// So many bytes above the stack pointer.
    AboveStackPointer(i64),
    /// So many bytes above the frame pointer.
    AboveFramePointer(i64),
}

/// Where a frame keeps what its caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRule {
    /// The return address, above which the caller's stack begins.
    pub return_address: StackPlace,
    /// The caller's frame pointer; `None` if the register still holds it.
    pub frame_pointer: Option<StackPlace>,
}

/// Why there is no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRule {
    /// No way was seen to return.
    NoReturn,
    /// Ways disagree, or one returns as no function does.
    Disagreement,
}

/// Finds rules.
#[derive(Debug, Default)]
pub struct Paths {
    callees: Callees,
}

impl Paths {
    /// The rule of the frame at `pc`: an interrupted instruction, or where a call returns to.
    ///
    /// # Errors
    ///
    /// If nothing is certain.
    pub fn rule(
        &mut self,
        code: &mut impl Code,
        pc: u64,
        is_return_address: bool,
    ) -> Result<FrameRule, NoRule> {
        let mut callees = self.callees.inquiry();
        if is_return_address
            && let Some(callee) = callee_before(code, pc)
            && !callees.returns(code, callee)
        {
            return Err(NoRule::NoReturn);
        }
        let mut ways = Ways::new(pc, Machine::new(is_return_address), MOST_INSTRUCTIONS);
        loop {
            ways.follow(code);
            let mut statements = ways.returned.iter().filter_map(Statement::new);
            if let Some(first) = statements.next() {
                let agree = statements.all(|statement| statement == first);
                return if agree { first.rule() } else { Err(NoRule::Disagreement) };
            }
            if !ways.cross_calls(|callee| callee.is_none_or(|callee| callees.returns(code, callee))) {
                return Err(NoRule::NoReturn);
            }
        }
    }
}

/// What a way says that returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Statement {
    return_address: Place,
    saved: [Value; CALLEE_SAVED.len()],
}

impl Statement {
    /// `None` if nothing is said, or by a way that has gone on behind a call that does not return.
    fn new(returned: &Machine) -> Option<Self> {
        let return_address = returned.stack_pointer().filter(|place| returned.is_aligned_at_calls(*place))?;
        Some(Self { return_address, saved: CALLEE_SAVED.map(|number| returned.register(number)) })
    }

    fn rule(&self) -> Result<FrameRule, NoRule> {
        let place = |place: Place| match place.base {
            STACK_POINTER if place.offset >= 0 => Ok(StackPlace::AboveStackPointer(place.offset)),
            FRAME_POINTER => Ok(StackPlace::AboveFramePointer(place.offset)),
            _ => Err(NoRule::Disagreement),
        };
        let mut frame_pointer = None;
        for (number, value) in CALLEE_SAVED.into_iter().zip(self.saved) {
            match value {
                Value::Address(Place { base, offset: 0 }) if base == number => {}
                Value::Word(saved) if number == FRAME_POINTER => frame_pointer = Some(place(saved)?),
                Value::Word(_) => {}
                _ => return Err(NoRule::Disagreement),
            }
        }
        Ok(FrameRule { return_address: place(self.return_address)?, frame_pointer })
    }
}

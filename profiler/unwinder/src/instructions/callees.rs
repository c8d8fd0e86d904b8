//! Which functions return.
//!
//! A function returns if one of its ways does, of which each call returns; one that calls itself on all of its ways does not.
//! What cannot be followed is taken to return: a jump or a call to where it cannot be told, and what is too long.
//!
//! Only what is certain is remembered. An answer is not if it rests on another one that is only supposed: that a function
//! returns for which no instructions were left, or that one does not return that is still being looked into.

use fnv::FnvHashMap;

use super::machine::{Machine, Place, STACK_POINTER};
use super::ways::{Code, Ways};

/// Instructions that are followed at most of one function.
const MOST_OF_FUNCTION: usize = 1000;
/// Instructions that are followed at most for all answers of an inquiry together. In Wasmtime's C library of versions 25 and 36
/// none of 60,000 rules each is another one with 20 times as many; a quarter is not enough for all of them.
const MOST_OF_INQUIRY: usize = 20_000;
/// Functions that are remembered at most when an inquiry begins.
const MOST_REMEMBERED: usize = 1 << 16;

/// What is known of functions.
#[derive(Debug, Default)]
pub(super) struct Callees {
    /// Whether functions return.
    known: FnvHashMap<u64, bool>,
}

impl Callees {
    pub(super) fn inquiry(&mut self) -> Inquiry<'_> {
        if self.known.len() >= MOST_REMEMBERED {
            self.known.clear();
        }
        Inquiry { known: &mut self.known, instructions_left: MOST_OF_INQUIRY, under_way: Vec::new() }
    }
}

/// Questions that have a number of instructions for all answers together.
pub(super) struct Inquiry<'a> {
    known: &'a mut FnvHashMap<u64, bool>,
    instructions_left: usize,
    /// The functions that are being looked into, each called by the one before. Since instructions are set apart for each,
    /// there are never many.
    under_way: Vec<u64>,
}

/// Whether a function returns.
#[derive(Clone, Copy)]
struct Answer {
    returns: bool,
    /// How many functions were under way when the oldest of those began whose answer this one rests on.
    rests_on: usize,
}

impl Answer {
    /// Rests on no function under way, nor on a guess.
    const CERTAIN: usize = usize::MAX;
    /// Rests on what will not be known when a function that is under way is.
    const GUESSED: usize = 0;
}

impl Inquiry<'_> {
    /// Whether a function is seen to return.
    pub(super) fn returns(&mut self, code: &mut impl Code, function: u64) -> bool {
        self.answer(code, function).returns
    }

    fn answer(&mut self, code: &mut impl Code, function: u64) -> Answer {
        if let Some(returns) = self.known.get(&function) {
            return Answer { returns: *returns, rests_on: Answer::CERTAIN };
        }
        // What calls itself returns if there is a way besides.
        if let Some(index) = self.under_way.iter().position(|other| *other == function) {
            return Answer { returns: false, rests_on: index + 1 };
        }
        let Some(left) = self.instructions_left.checked_sub(MOST_OF_FUNCTION) else {
            return Answer { returns: true, rests_on: Answer::GUESSED };
        };
        self.instructions_left = left;
        self.under_way.push(function);
        let mut answer = self.look_into(code, function);
        if answer.rests_on >= self.under_way.len() {
            answer.rests_on = Answer::CERTAIN;
            self.known.insert(function, answer.returns);
        }
        self.under_way.pop();
        answer
    }

    fn look_into(&mut self, code: &mut impl Code, function: u64) -> Answer {
        let mut ways = Ways::new(function, Machine::new(false), MOST_OF_FUNCTION);
        // Of functions that do not return, and of those that do. That a function returns does not rest on others that do not:
        // if they did, it would all the more; nor the other way around.
        let mut rest_on = [Answer::CERTAIN; 2];
        let returns = loop {
            ways.follow(code);
            if ways.is_cut || ways.returned.iter().any(is_as_entered) {
                break true;
            }
            let mut returns = |callee| {
                let answer = self.answer(code, callee);
                let rests_on = &mut rest_on[usize::from(answer.returns)];
                *rests_on = answer.rests_on.min(*rests_on);
                answer.returns
            };
            if !ways.cross_calls(|callee| callee.is_none_or(&mut returns)) {
                break false;
            }
        };
        self.instructions_left += ways.instructions_left;
        Answer { returns, rests_on: rest_on[usize::from(returns)] }
    }
}

/// Whether what returns does it with the stack that the function began with.
fn is_as_entered(returned: &Machine) -> bool {
    let entry = Place { base: STACK_POINTER, offset: 0 };
    returned.stack_pointer() == Some(entry) && returned.is_aligned_at_calls(entry)
}

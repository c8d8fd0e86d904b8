//! The guests that are profiled, each for a kind of work, and what is known of them.

use std::fs;
use std::path::PathBuf;

use clap::ValueEnum;
use flamewalk_guests::{
    GeneratedGuest, Guest as Committed, HOST_CALL_SHARE, KNOWN_ANSWER, cpython, cpython_script, sqlite,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Guest {
    /// Straight-line code, loops, recursion and indirect calls with known shares, and a host call
    Compute,
    /// Functions of every shape, each for microseconds only, with known shares
    Shapes,
    /// One function called from two places, with known shares
    CallSites,
    /// Recursive Fibonacci numbers: little else than calls
    Calls,
    /// A loop around a host call that does nothing; called asynchronously, the guest is suspended there each time
    HostCalls,
    /// A loop around `memory.grow`
    Growth,
    /// A recursion of 2,000 levels, up and down
    Recursion,
    /// SQLite with mixed SQL in memory
    Sqlite,
    /// CPython with mixed work
    Cpython,
}

/// How a guest is called.
pub enum Entry {
    /// An export with one number, on which the time that it takes depends.
    Export { name: &'static str, start: i32, times: Growth },
    /// The command, with these arguments and this directory (on the host, and as the guest sees it).
    Command { arguments: Vec<String>, directory: Option<(PathBuf, &'static str)> },
}

/// What is done to an export's number to double its time.
#[derive(Clone, Copy)]
pub enum Growth {
    Double,
    /// Fibonacci numbers take about twice as long with the next but one half of the time: one is added.
    AddOne,
}

const HOST_CALLS: &str = r#"(module $host_calls
  (import "env" "nothing" (func $nothing (param i32) (result i32)))
  (func $call_host (export "run") (param $times i32)
    (loop $again
      (drop (call $nothing (local.get $times)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))))"#;

const RECURSION: &str = r#"(module $recursion
  (func $descend (param $levels i32) (result i32)
    (if (result i32) (i32.eqz (local.get $levels))
      (then (i32.const 0))
      (else (i32.add (i32.const 1) (call $descend (i32.sub (local.get $levels) (i32.const 1)))))))
  (func (export "run") (param $times i32)
    (loop $again
      (drop (call $descend (i32.const 2000)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))))"#;

impl Guest {
    /// The guest's binary, made or fetched if it has to be.
    pub fn binary(self) -> Result<Vec<u8>, Error> {
        let path = match self {
            Guest::Compute => Committed::KnownAnswerHost.path(),
            Guest::Calls => Committed::Reactor.path(),
            Guest::Growth => Committed::MemoryGrow.path(),
            Guest::Sqlite => sqlite()?,
            Guest::Cpython => cpython()?,
            Guest::Shapes => return Ok(GeneratedGuest::shapes().binary()),
            Guest::CallSites => return Ok(GeneratedGuest::call_sites().binary()),
            Guest::HostCalls => return Ok(HOST_CALLS.into()),
            Guest::Recursion => return Ok(RECURSION.into()),
        };
        fs::read(&path).map_err(Error::file(path))
    }

    pub fn entry(self) -> Entry {
        let run = |start| Entry::Export { name: "run", start, times: Growth::Double };
        match self {
            Guest::Compute => run(4),
            Guest::Shapes | Guest::CallSites => run(256),
            Guest::HostCalls => run(1 << 16),
            Guest::Recursion => run(64),
            Guest::Calls => Entry::Export { name: "fibonacci", start: 24, times: Growth::AddOne },
            Guest::Growth => Entry::Export { name: "grow", start: 1 << 14, times: Growth::Double },
            Guest::Sqlite => Entry::Command { arguments: vec!["1".to_owned()], directory: None },
            Guest::Cpython => {
                let script = cpython_script();
                let folder = script.parent().map(Into::into).unwrap_or_default();
                Entry::Command {
                    arguments: vec!["/guests/mixed_work.py".to_owned(), "1".to_owned()],
                    directory: Some((folder, "/guests")),
                }
            }
        }
    }

    /// The guest's parts and their true shares, if they are known.
    pub fn truth(self) -> Option<Truth> {
        match self {
            Guest::Compute => Some(Truth::KnownAnswer),
            Guest::Shapes => Some(Truth::Generated(GeneratedGuest::shapes())),
            Guest::CallSites => Some(Truth::Generated(GeneratedGuest::call_sites())),
            _ => None,
        }
    }
}

/// What the shares of a guest's parts really are.
pub enum Truth {
    KnownAnswer,
    Generated(GeneratedGuest),
}

impl Truth {
    fn shares(&self) -> Vec<f64> {
        match self {
            Truth::KnownAnswer => {
                KNOWN_ANSWER.iter().map(|(_, share)| *share).chain([HOST_CALL_SHARE]).collect()
            }
            Truth::Generated(guest) => guest.shares(),
        }
    }

    /// How far this many independent samples are from the truth on average: for each share the mean absolute deviation of
    /// a normal distribution, 0.8 times the standard deviation.
    pub fn chance(&self, samples: u64) -> f64 {
        let deviation =
            |share: f64| (2.0 / std::f64::consts::PI * share * (1.0 - share) / samples as f64).sqrt();
        self.shares().into_iter().map(deviation).sum::<f64>() / 2.0
    }

    /// How far shares of these stacks are from the truth: the total variation, from 0 to 1. Stacks are names, oldest
    /// first, with a weight; what belongs to no part counts as wrong.
    pub fn distance<'s>(&self, stacks: impl Iterator<Item = (Vec<&'s str>, f64)>) -> f64 {
        let truth = self.shares();
        let mut found = vec![0.0; truth.len() + 1];
        for (stack, weight) in stacks {
            found[self.part_of(&stack).unwrap_or(truth.len())] += weight;
        }
        let all: f64 = found.iter().sum();
        let differences =
            found.iter().zip(truth.iter().chain([&0.0])).map(|(found, truth)| (found / all - truth).abs());
        differences.sum::<f64>() / 2.0
    }

    fn part_of(&self, stack: &[&str]) -> Option<usize> {
        match self {
            Truth::Generated(guest) => guest.part_of(stack),
            Truth::KnownAnswer if stack.last() == Some(&crate::peer::HOST) => Some(KNOWN_ANSWER.len()),
            // The youngest that the answer names: some functions are inlined into them.
            Truth::KnownAnswer => {
                stack.iter().rev().find_map(|name| KNOWN_ANSWER.iter().position(|(known, _)| known == name))
            }
        }
    }
}

//! Every guest is what it says it is: built from its sources, and doing what its documentation tells.
#![forbid(unsafe_code)]

mod committed;
mod host;
mod known_answer;
mod programs;
mod runs;

//! What changed from one build to the other, function by function and call by call.

use std::collections::HashMap;

use flamewalk_profile::printable;
use serde::Serialize;

use super::{
    calls::Calls,
    functions::{Function, Functions},
};
use crate::comparison::{Comparison, FunctionChange, Hue, Wording};

#[derive(Serialize)]
pub(super) struct Changes {
    /// What a colour of the difference says, and its shades.
    hues: Vec<Shades>,
    /// In the order of the functions; `None` for those that were not compared.
    functions: Vec<Option<FunctionPart>>,
    /// The call paths that explain what changed, by the size of the change.
    paths: Vec<PathPart>,
    notices: Vec<String>,
    /// Units of work of all profiles of either side, if they are known.
    work: Option<[f64; 2]>,
}

#[derive(Serialize)]
struct Shades {
    label: &'static str,
    ends: [[u8; 3]; 2],
}

#[derive(Serialize)]
struct PathPart {
    /// Positions in the functions.
    functions: Vec<usize>,
    /// In the share, or in the cost per unit of work if that is known.
    change: f64,
}

#[derive(Serialize)]
struct FunctionPart {
    /// Position in the hues, over all callers.
    hue: usize,
    self_is_significant: bool,
    total_is_significant: bool,
    /// Label and value.
    facts: Vec<[String; 2]>,
}

impl Changes {
    pub(super) fn new(comparison: &Comparison, functions: &Functions) -> Self {
        let wording = Wording { comparison };
        let [.., tests] = wording.headline();
        let work = |side: &crate::comparison::SideSummary| Some(side.work? * side.profiles as f64);
        Self {
            hues: Hue::ALL.iter().map(|hue| Shades { label: hue.label(), ends: hue.shades() }).collect(),
            functions: functions
                .all
                .iter()
                .map(|function| Some(FunctionPart::new(&comparison.functions[function.change?], wording)))
                .collect(),
            paths: paths(comparison, functions),
            notices: comparison.notices.iter().map(|notice| printable(notice)).chain([tests]).collect(),
            work: work(&comparison.base).zip(work(&comparison.new)).map(|(base, new)| [base, new]),
        }
    }
}

impl FunctionPart {
    fn new(function: &FunctionChange, wording: Wording<'_>) -> Self {
        let mut facts = Vec::new();
        for (label, change) in [("self", &function.own), ("total", &function.total)] {
            let [costs, difference, interval] = wording.cells(change);
            facts.push([format!("{label}, base → new"), costs]);
            facts.push([format!("{label} change"), format!("{difference} ({interval})")]);
        }
        facts.push(["found by".to_owned(), wording.matched(function).to_owned()]);
        if let Some(base) = function.base_name.as_ref().filter(|&base| *base != function.name) {
            facts.push(["in the base".to_owned(), base.clone()]);
        }
        Self {
            hue: Hue::of_function(function) as usize,
            self_is_significant: function.own.is_significant(),
            total_is_significant: function.total.is_significant(),
            facts,
        }
    }
}

/// The paths of the comparison in terms of the report.
fn paths(comparison: &Comparison, functions: &Functions) -> Vec<PathPart> {
    let of_report: HashMap<usize, usize> = functions
        .all
        .iter()
        .zip(0..)
        .filter_map(|(function, index)| Some((function.change?, index)))
        .collect();
    comparison
        .paths
        .iter()
        .map(|path| PathPart {
            // Whatever the comparison has is on some stack.
            functions: path.functions.iter().map(|function| of_report[function]).collect(),
            change: path.total.leading().estimate,
        })
        .collect()
}

/// A function of the comparison as one of the report.
pub(super) fn function(comparison: &Comparison, change: usize) -> Function {
    let FunctionChange { name, kind, .. } = &comparison.functions[change];
    Function { name: name.clone(), kind: *kind, change: Some(change) }
}

/// The hue of each call of the report. Calls that are too rare to be in the comparison have that of their function.
pub(super) fn hues(comparison: &Comparison, functions: &Functions, calls: &Calls) -> Vec<u64> {
    let compared: HashMap<(Option<usize>, usize), usize> = comparison
        .calls
        .iter()
        .enumerate()
        .map(|(number, call)| ((call.caller, call.function), number))
        .collect();
    // Of each call of the report that one of the comparison, if there is one.
    let mut known: Vec<Option<usize>> = Vec::new();
    let hue = |(parent, function): (Option<usize>, usize)| {
        let change = functions.all[function].change;
        let call = change.and_then(|change| match parent {
            None => compared.get(&(None, change)),
            Some(parent) => compared.get(&(Some(known[parent]?), change)),
        });
        known.push(call.copied());
        match (call, change) {
            (Some(&call), _) => {
                Hue::of(&comparison.calls[call], &comparison.functions[comparison.calls[call].function])
            }
            (None, Some(change)) => Hue::of_function(&comparison.functions[change]),
            (None, None) => Hue::Noise,
        }
    };
    calls.functions().map(hue).map(|hue| hue as u64).collect()
}

//! What changed from one build to the other, function by function and call by call.

use std::collections::HashMap;

use flamewalk_profile::{Profile, printable};
use serde::Serialize;

use super::{
    calls::Calls,
    document::Shades,
    functions::{Function, Functions},
};
use crate::comparison::{Comparison, FunctionChange, Hue, Side, SideSummary, Wording};

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
    /// Of self and total: the size below which a change may be there and was not found. `None` if one was found, or none
    /// was looked for.
    missed: [Option<String>; 2],
    /// Label and value.
    facts: Vec<[String; 2]>,
}

impl Changes {
    pub(super) fn new(comparison: &Comparison, functions: &Functions) -> Self {
        let wording = Wording { comparison };
        let [.., tests] = wording.headline();
        let work = |side: &SideSummary| Some(side.work? * side.profiles as f64);
        Self {
            hues: Hue::ALL.iter().map(|hue| Shades { label: hue.label(), ends: hue.shades() }).collect(),
            functions: functions
                .all
                .iter()
                .map(|function| Some(FunctionPart::new(&comparison.functions[function.change?], wording)))
                .collect(),
            paths: paths(comparison, functions),
            notices: comparison
                .notices
                .iter()
                .map(|notice| printable(notice))
                .chain([tests])
                .chain(wording.detectable())
                .collect(),
            work: work(&comparison.base).zip(work(&comparison.new)).map(|(base, new)| [base, new]),
        }
    }
}

impl FunctionPart {
    fn new(function: &FunctionChange, wording: Wording<'_>) -> Self {
        let mut facts = Vec::new();
        for (label, change) in [("self", &function.own), ("total", &function.total)] {
            let [costs, difference, interval] = wording.cells(change);
            let [percent, points] = if change.per_work.is_some() { [""; 2] } else { [" %", " points"] };
            let interval =
                if change.leading().interval.is_some() { interval } else { "not tested".to_owned() };
            facts.push([format!("{label}, base → new"), format!("{costs}{percent}")]);
            facts.push([format!("{label} change"), format!("{difference}{points} ({interval})")]);
            facts.extend(
                wording
                    .missed(change)
                    .map(|size| [format!("{label} may have"), format!("changed by less than {size}")]),
            );
        }
        facts.push(["found by".to_owned(), wording.matched(function).to_owned()]);
        if let Some(base) = function.base_name.as_ref().filter(|&base| *base != function.name) {
            facts.push(["in the base".to_owned(), base.clone()]);
        }
        Self {
            hue: Hue::of_function(function) as usize,
            self_is_significant: function.own.is_significant(),
            total_is_significant: function.total.is_significant(),
            missed: [&function.own, &function.total].map(|change| wording.missed(change)),
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

/// The functions and calls of the profiles of both builds, which are the new one's from number `first_new` on.
///
/// # Panics
/// If `comparison` is that of other profiles.
pub(super) fn merge(profiles: &[&Profile], first_new: usize, comparison: &Comparison) -> (Functions, Calls) {
    let change = |number: usize, frame| match number.checked_sub(first_new) {
        None => comparison.function_of(Side::Base, number, frame),
        Some(number) => comparison.function_of(Side::New, number, frame),
    };
    let functions = Functions::new(profiles, |number, frame| {
        let position = change(number, frame)?;
        let FunctionChange { name, kind, .. } = &comparison.functions[position];
        Some(Function { name: name.clone(), kind: *kind, change: Some(position) })
    });
    // Frames that the comparison leaves out would look like changes.
    let calls = Calls::new(profiles, &functions, |number, frame| change(number, frame).is_none());
    (functions, calls)
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

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, SourceLocation, Tally};

    use super::*;
    use crate::comparison::ComparisonOptions;

    fn profile(stacks: &[(&[Frame], u64)]) -> Profile {
        let mut profile = Profile::default();
        for (frames, samples) in stacks {
            let ids: Vec<_> = frames.iter().map(|frame| profile.intern(frame.clone())).collect();
            profile.add(&ids, Tally { samples: *samples, weight: *samples }).unwrap();
        }
        profile
    }

    fn inlined(name: &str) -> Frame {
        Frame { inlined: true, ..known(name) }
    }

    fn known(name: &str) -> Frame {
        Frame {
            location: Some(SourceLocation { file: "file".into(), line: 1, column: 0 }),
            ..Frame::guest(name)
        }
    }

    /// The calls of the report of two profiles, as paths of names with their hues.
    fn calls(base: Profile, new: Profile) -> Vec<(String, usize)> {
        let (base, new) = ([base], [new]);
        let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
        let (functions, calls) = merge(&[&base[0], &new[0]], 1, &comparison);
        let mut paths: Vec<String> = Vec::new();
        for (parent, function) in calls.functions() {
            let name = &functions.all[function].name;
            paths.push(parent.map_or_else(|| name.clone(), |parent| format!("{} {name}", paths[parent])));
        }
        paths
            .into_iter()
            .zip(hues(&comparison, &functions, &calls))
            .map(|(path, hue)| (path, hue as usize))
            .collect()
    }

    #[test]
    fn an_inlined_copy_is_a_call_of_its_own_with_the_hue_of_its_path() {
        let build = |slow: u64| {
            profile(&[
                (&[known("main"), known("work")], 1_000),
                (&[known("main"), inlined("work")], 1_000 + slow),
                (&[known("main"), known("idle")], 20),
                (&[known("rest")], 100_000),
            ])
        };
        let expected = [
            ("main", Hue::Costlier as usize),
            ("main idle", Hue::Noise as usize),
            ("main work", Hue::Costlier as usize),
            ("main work", Hue::Costlier as usize),
            ("rest", Hue::Cheaper as usize),
        ];
        let actual = calls(build(0), build(9_000));
        assert_eq!(actual.iter().map(|(path, hue)| (path.as_str(), *hue)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn inlined_frames_that_only_one_side_knows_are_no_change() {
        let base = profile(&[(&[known("main"), inlined("helper"), known("leaf")], 1_000)]);
        let new = profile(&[(&[Frame::guest("main"), Frame::guest("leaf")], 1_000)]);
        let noise = Hue::Noise as usize;
        assert_eq!(calls(base, new), [("main".to_owned(), noise), ("main leaf".to_owned(), noise)]);
    }
}

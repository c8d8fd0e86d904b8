//! Puts a comparison together: functions, matching, counts, tests.

use std::collections::HashMap;

use flamewalk_profile::{FrameKind, Profile, Tally, Unit};

use super::{
    Call, Change, Comparison, ComparisonError, ComparisonOptions, Cost, EventName, FunctionChange, MatchedBy,
    Side, SideSummary,
    counts::{self, Counts, LEFT_OUT, Mass, ROOT, Run},
    family::{Family, Judged, Pending, Runs},
    identity::Identities,
    matching::Matching,
    paths,
    stretches::{Followed, Stretches, UNFOLLOWED},
};

/// The smallest share of a call path that is kept: what a graph of 1,000 pixels can show of it is a tenth of one.
const SMALLEST_CALL: f64 = 0.0001;
/// Guests of which less than this share of the weight falls on functions that both have are not the same guest.
const ANOTHER_GUEST: f64 = 0.25;
/// Fewer runs than this a side find large changes only, by the factor that Student's distribution puts on an interval.
const ENOUGH_RUNS: usize = 5;

/// A function of the comparison, by its positions on the sides.
struct Matched {
    sides: [Option<usize>; 2],
    how: Option<MatchedBy>,
}

pub(super) fn compare(
    base: &[Profile],
    new: &[Profile],
    options: &ComparisonOptions,
) -> Result<Comparison, ComparisonError> {
    check(base, new, options)?;
    let sides = [base, new];
    let identities = sides.map(Identities::new);
    let callers = [0, 1].map(|side| {
        let functions = identities[side].of_frames.iter().map(Vec::as_slice);
        counts::callers(sides[side].iter().zip(functions), identities[side].len())
    });
    let matching = Matching::new(&identities[0], &identities[1], callers.each_ref());
    let functions = functions(&matching);
    let collapse = inlining_of_one_side(sides);
    let mut of_frames = of_frames(sides, &identities, &functions, collapse);

    let mut counts = Counts::default();
    let mut runs = Vec::new();
    for (profile, functions_of) in sides.into_iter().flatten().zip(of_frames.iter().flatten()) {
        let run = Run::new(profile, options.period);
        counts.add(profile, &run, functions_of, functions.len());
        runs.push(run);
    }
    let wholes: Vec<Mass> = runs.iter().map(|run| run.total).collect();
    let work = options.work.map(|(base, new)| [base, new]);
    let testable = runs.iter().all(|run| run.samples_known);
    let mut measured = Measured {
        runs: Runs { wholes: wholes.clone(), base: base.len(), work, testable },
        family: Family::new(options.min_share),
    };

    let whole = measured.add(&wholes);
    let of_run =
        |runs: &[Vec<Mass>], function: usize| -> Vec<Mass> { runs.iter().map(|run| run[function]).collect() };
    let of_functions: Vec<[Counted; 2]> = (0..functions.len())
        .map(|function| [&counts.own, &counts.total].map(|runs| measured.add(&of_run(runs, function))))
        .collect();
    let (of_calls, call_of_path) = calls(&counts, &mut measured);
    let within = measured.within_runs(sides, &of_frames, &counts, &of_functions, &of_calls, &call_of_path);
    let judged = measured.family.judge(options.error_rate);

    let mut changes: Vec<(usize, FunctionChange)> = functions
        .iter()
        .zip(of_functions)
        .enumerate()
        .map(|(index, (function, [own, total]))| {
            let [base_name, new_name] = [0, 1]
                .map(|side| function.sides[side].map(|index| identities[side].get(index).shown.clone()));
            let kind = [0, 1]
                .iter()
                .find_map(|&side| function.sides[side].map(|index| identities[side].get(index).key.kind))
                .unwrap_or(FrameKind::Guest);
            let change = FunctionChange {
                name: new_name.clone().or_else(|| base_name.clone()).unwrap_or_default(),
                kind,
                base_name,
                new_name,
                matched_by: function.how,
                own: own.change(&judged),
                total: total.change(&judged),
            };
            (index, change)
        })
        .filter(|(_, change)| change.total.base.weight > 0 || change.total.new.weight > 0)
        .collect();
    changes.sort_by(|(_, a), (_, b)| {
        order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.name.cmp(&b.name))
    });
    let positions: HashMap<usize, usize> =
        changes.iter().enumerate().map(|(position, (index, _))| (*index, position)).collect();
    let functions: Vec<FunctionChange> = changes.into_iter().map(|(_, change)| change).collect();
    let calls: Vec<Call> = of_calls
        .into_iter()
        .map(|(caller, function, [own, total])| Call {
            caller,
            function: positions[&function],
            own: own.change(&judged),
            total: total.change(&judged),
        })
        .collect();
    let of_frames = of_frames.each_mut().map(|side| {
        side.iter()
            .map(|frames| frames.iter().map(|function| positions.get(function).copied()).collect())
            .collect()
    });
    let paths = paths::explaining(&calls);
    let mut comparison = Comparison {
        event: base[0].metadata.event.clone(),
        base: summary(base, options.work.map(|(base, _)| base)),
        new: summary(new, options.work.map(|(_, new)| new)),
        error_rate: options.error_rate,
        min_share: options.min_share,
        tests: judged.count(),
        detectable: None,
        whole: whole.change(&judged),
        functions,
        paths,
        calls,
        notices: Vec::new(),
        testable,
        of_frames,
    };
    comparison.detectable = comparison
        .functions
        .iter()
        .filter_map(|function| function.own.leading().detectable)
        .max_by(f64::total_cmp);
    comparison.notices = notices(&comparison, collapse, within);
    Ok(comparison)
}

fn check(base: &[Profile], new: &[Profile], options: &ComparisonOptions) -> Result<(), ComparisonError> {
    let refuse = |option, value, allowed| Err(ComparisonError::Option { option, value, allowed });
    if !(options.error_rate > 0.0 && options.error_rate < 1.0) {
        return refuse("the error rate", options.error_rate, "between 0 and 1");
    }
    if !(options.min_share >= 0.0 && options.min_share < 1.0) {
        return refuse("the smallest share", options.min_share, "at least 0 and less than 1");
    }
    for work in options.work.into_iter().flat_map(|(base, new)| [base, new]) {
        if !(work > 0.0 && work.is_finite()) {
            return refuse("the work", work, "more than 0");
        }
    }
    for (side, profiles) in [(Side::Base, base), (Side::New, new)] {
        if profiles.is_empty() || profiles.iter().any(|profile| profile.total().weight == 0) {
            return Err(ComparisonError::EmptySide { side });
        }
    }
    let first = &base[0].metadata.event;
    match base.iter().chain(new).map(|profile| &profile.metadata.event).find(|event| *event != first) {
        None => Ok(()),
        Some(other) => Err(ComparisonError::DifferentEvents {
            first: EventName(first.clone()),
            other: EventName(other.clone()),
        }),
    }
}

/// The functions of the comparison: those of the base, then those that only the new build has.
fn functions(matching: &Matching) -> Vec<Matched> {
    let of_base = matching.of_base.iter().enumerate().map(|(base, matched)| Matched {
        sides: [Some(base), matched.map(|(new, _)| new)],
        how: matched.map(|(_, how)| how),
    });
    let of_new = matching.of_new.iter().enumerate().filter(|(_, matched)| matched.is_none());
    of_base.chain(of_new.map(|(new, _)| Matched { sides: [None, Some(new)], how: None })).collect()
}

/// Whether only one side knows of inlining, since the other one has no debug information.
fn inlining_of_one_side(sides: [&[Profile]; 2]) -> bool {
    let [base, new] = sides.map(|profiles| {
        let any = |of: fn(&flamewalk_profile::Frame) -> bool| {
            profiles
                .iter()
                .any(|profile| profile.frames().any(|(_, frame)| frame.kind == FrameKind::Guest && of(frame)))
        };
        (any(|frame| frame.inlined), any(|frame| frame.location.is_some()))
    });
    matches!((base, new), ((true, _), (false, false)) | ((false, false), (true, _)))
}

/// By side and profile the function of each frame.
fn of_frames(
    sides: [&[Profile]; 2],
    identities: &[Identities; 2],
    functions: &[Matched],
    without_inlined: bool,
) -> [Vec<Vec<usize>>; 2] {
    [0, 1].map(|side| {
        let mut of_identity = vec![LEFT_OUT; identities[side].len()];
        for (index, function) in functions.iter().enumerate() {
            if let Some(identity) = function.sides[side] {
                of_identity[identity] = index;
            }
        }
        let of_profile = |(profile, identities): (&Profile, &Vec<usize>)| {
            profile
                .frames()
                .zip(identities)
                .map(|((_, frame), &identity)| {
                    let left_out = without_inlined && frame.inlined && frame.kind == FrameKind::Guest;
                    if left_out { LEFT_OUT } else { of_identity[identity] }
                })
                .collect()
        };
        sides[side].iter().zip(&identities[side].of_frames).map(of_profile).collect()
    })
}

/// The runs, and the tests of what was counted in them.
struct Measured {
    runs: Runs,
    family: Family,
}

/// A change whose tests may still be to come.
struct Counted {
    costs: [Cost; 2],
    share: Pending,
    per_work: Option<Pending>,
}

impl Measured {
    /// Follows what is tested through the stretches of single runs. Whether that was possible.
    fn within_runs(
        &mut self,
        sides: [&[Profile]; 2],
        of_frames: &[Vec<Vec<usize>>; 2],
        counts: &Counts,
        of_functions: &[[Counted; 2]],
        of_calls: &[CountedCall],
        call_of_path: &[Option<usize>],
    ) -> bool {
        let ([base], [new]) = (sides[0], sides[1]) else { return false };
        let (Some(of_base), Some(of_new)) = (Stretches::new(base), Stretches::new(new)) else { return false };
        let mut tested = Vec::new();
        let mut number = |counted: &Counted| {
            if !counted.is_tested() {
                return UNFOLLOWED;
            }
            tested.push((counted.share, counted.per_work));
            tested.len() - 1
        };
        let functions = of_functions.iter().map(|counted| counted.each_ref().map(&mut number)).collect();
        let calls: Vec<[usize; 2]> =
            of_calls.iter().map(|(_, _, counted)| counted.each_ref().map(&mut number)).collect();
        let of_path = |call: &Option<usize>| call.map_or([UNFOLLOWED; 2], |call| calls[call]);
        let paths = call_of_path.iter().map(of_path).collect();
        let followed = Followed { functions, paths, count: tested.len() };
        let [in_base, in_new] = [(base, &of_base, &of_frames[0]), (new, &of_new, &of_frames[1])]
            .map(|(profile, stretches, frames)| followed.series(profile, &frames[0], counts, stretches));
        for ((share, per_work), parts) in tested.into_iter().zip(in_base.iter().zip(&in_new)) {
            for pending in std::iter::once(share).chain(per_work) {
                let wholes = [&of_base.whole, &of_new.whole];
                self.family.within_runs(&self.runs, pending, [parts.0, parts.1], wholes);
            }
        }
        let disjoint: Vec<Pending> =
            of_functions.iter().flat_map(|[own, _]| std::iter::once(own.share).chain(own.per_work)).collect();
        self.family.moderate(&disjoint);
        true
    }

    fn add(&mut self, parts: &[Mass]) -> Counted {
        let (share, per_work) = self.family.add(&self.runs, parts);
        Counted { costs: [0, 1].map(|side| self.runs.cost(parts, side)), share, per_work }
    }
}

impl Counted {
    fn is_tested(&self) -> bool {
        self.share.is_tested() || self.per_work.is_some_and(Pending::is_tested)
    }

    fn change(&self, judged: &Judged) -> Change {
        Change {
            base: self.costs[0],
            new: self.costs[1],
            share: judged.difference(self.share),
            per_work: self.per_work.map(|pending| judged.difference(pending)),
        }
    }
}

/// A call path with its caller, its function, and its self and total.
type CountedCall = (Option<usize>, usize, [Counted; 2]);

/// The call paths that are wide enough on either side, and for each of all paths which one of them it is.
fn calls(counts: &Counts, measured: &mut Measured) -> (Vec<CountedCall>, Vec<Option<usize>>) {
    let mut kept: Vec<Option<usize>> = Vec::with_capacity(counts.paths.len());
    let mut calls = Vec::new();
    for (path, &(caller, function)) in counts.paths.iter().enumerate() {
        let [own, total] = counts.path(path);
        let wide = [0, 1].iter().any(|&side| measured.runs.cost(&total, side).share >= SMALLEST_CALL);
        kept.push(wide.then_some(calls.len()));
        if wide {
            let caller = if caller == ROOT { None } else { kept[caller] };
            calls.push((caller, function, [measured.add(&own), measured.add(&total)]));
        }
    }
    (calls, kept)
}

/// Sorts significant changes of self first, then those of total, each by size.
fn order(function: &FunctionChange) -> (u8, f64) {
    let size = |change: &Change| -change.leading().estimate.abs();
    if function.own.is_significant() {
        (0, size(&function.own))
    } else if function.total.is_significant() {
        (1, size(&function.total))
    } else {
        (2, size(&function.own).min(size(&function.total)))
    }
}

fn summary(profiles: &[Profile], work: Option<f64>) -> SideSummary {
    let sum = |of: fn(Tally) -> u64| {
        profiles.iter().fold(0_u64, |sum, profile| sum.saturating_add(of(profile.total())))
    };
    SideSummary {
        guest: profiles[0].metadata.guest.clone(),
        profiles: profiles.len(),
        samples: sum(|tally| tally.samples),
        weight: sum(|tally| tally.weight),
        work,
    }
}

fn notices(comparison: &Comparison, collapsed: bool, within: bool) -> Vec<String> {
    let mut notices = Vec::new();
    let guests = || comparison.functions.iter().filter(|function| function.kind == FrameKind::Guest);
    for (side, cost) in [
        (Side::Base, (|change: &Change| change.base.share) as fn(&Change) -> f64),
        (Side::New, |change| change.new.share),
    ] {
        let all: f64 = guests().map(|function| cost(&function.own)).sum();
        let matched: f64 = guests()
            .filter(|function| function.matched_by.is_some())
            .map(|function| cost(&function.own))
            .sum();
        if all > 0.0 && matched < ANOTHER_GUEST * all {
            // The sum of nothing has a minus.
            let percent = (100.0 * matched / all).abs();
            notices.push(format!(
                "only {percent:.0} % of the {side}'s guest code is in functions that the other side has too: \
                 is it a profile of another guest?"
            ));
        }
    }
    if !comparison.testable {
        notices.push(
            "a profile holds neither the number of its samples nor their period: what is noise cannot be told, and \
             nothing is called significant"
                .to_owned(),
        );
        return notices;
    }
    if collapsed {
        notices.push(
            "only one side has debug information: inlined functions count for the functions that they were \
             inlined into"
                .to_owned(),
        );
    }
    match comparison.base.profiles.min(comparison.new.profiles) {
        1 if comparison.base.profiles + comparison.new.profiles == 2 => notices.push(
            if within {
                "one profile a side does not show how runs differ by themselves, nor tell a change in a part of the run \
                 from a disturbance: several, given for either side, do"
            } else {
                "one profile a side does not show how runs differ by themselves: several, given for either side, do"
            }
            .to_owned(),
        ),
        fewest if fewest < ENOUGH_RUNS => notices.push(format!(
            "so few profiles a side tell little of how runs differ, so that only large changes are found: \
             give at least {ENOUGH_RUNS}"
        )),
        _ => {}
    }
    if comparison.whole.per_work.is_some()
        && comparison.event.unit == Unit::Nanoseconds
        && comparison.base.profiles == 1
        && comparison.new.profiles == 1
    {
        notices.push(
            "costs per unit of work also depend on how fast the machine was at the time, which one profile a side does \
             not show"
                .to_owned(),
        );
    }
    notices
}

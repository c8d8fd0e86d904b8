//! The call paths that explain what changed.

use super::change::{Call, PathChange};

/// The part of a path's change that longer paths must account for, so that they are shown in its place.
const EXPLAINED: f64 = 0.75;

/// The most specific paths: those whose self changed significantly, and those whose total did, of which longer paths do
/// not account for most.
pub(super) fn explaining(calls: &[Call]) -> Vec<PathChange> {
    // For each path, the significant changes of the same direction right above it.
    let mut explained = vec![0.0; calls.len()];
    for call in calls.iter().filter(|call| call.total.is_significant()) {
        if let Some(caller) = call.caller {
            let (change, whole) = (call.total.leading().estimate, calls[caller].total.leading().estimate);
            if change.signum() == whole.signum() {
                explained[caller] += change.abs();
            }
        }
    }
    let mut paths: Vec<PathChange> = calls
        .iter()
        .zip(explained)
        .filter(|(call, explained)| {
            let change = call.total.leading();
            call.own.is_significant() || change.significant && *explained < EXPLAINED * change.estimate.abs()
        })
        .map(|(call, _)| PathChange { functions: functions(calls, call), own: call.own, total: call.total })
        .collect();
    let size = |path: &PathChange| {
        let changes = [&path.own, &path.total].into_iter().filter(|change| change.is_significant());
        changes.map(|change| change.leading().estimate.abs()).fold(0.0, f64::max)
    };
    paths.sort_by(|a, b| size(b).total_cmp(&size(a)));
    paths
}

/// The functions of a path, oldest first.
fn functions(calls: &[Call], call: &Call) -> Vec<usize> {
    let mut functions = vec![call.function];
    let mut caller = call.caller;
    while let Some(index) = caller {
        functions.push(calls[index].function);
        caller = calls[index].caller;
    }
    functions.reverse();
    functions
}

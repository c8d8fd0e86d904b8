//! Profiles that cannot be compared, and what is said of those that can be, but not well.

use flamewalk_flamegraphs::comparison::{Comparison, ComparisonError, ComparisonOptions, Side};
use flamewalk_profile::{Event, Frame, Profile, Tally};

use crate::simulation::{at, function};

fn profile(names: &[&str], samples: u64) -> Profile {
    let frames: Vec<_> = names.iter().map(|&name| Frame::guest(name)).collect();
    of_frames(&frames, samples)
}

/// A profile of one stack for each frame, of one caller.
fn of_frames(frames: &[Frame], samples: u64) -> Profile {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    let write = profile.intern(Frame::host_call("env", "write"));
    for frame in frames {
        let frame = profile.intern(frame.clone());
        profile.add(&[frame, write], Tally { samples, weight: 1_000 * samples }).unwrap();
        profile.add(&[frame], Tally { samples, weight: 1_000 * samples }).unwrap();
    }
    profile
}

fn compare(base: &[Profile], new: &[Profile]) -> Result<Comparison, ComparisonError> {
    Comparison::new(base, new, &ComparisonOptions::default())
}

fn has_notice(comparison: &Comparison, part: &str) -> bool {
    comparison.notices.iter().any(|notice| notice.contains(part))
}

#[test]
fn an_empty_side_is_refused() {
    let some = profile(&["f"], 10);
    let empty = Profile::new(some.metadata.clone());
    for (base, new, expected) in [
        (vec![], vec![some.clone()], Side::Base),
        (vec![some.clone()], vec![], Side::New),
        (vec![empty.clone()], vec![some.clone()], Side::Base),
        (vec![some.clone()], vec![some.clone(), empty], Side::New),
    ] {
        match compare(&base, &new) {
            Err(ComparisonError::EmptySide { side }) => assert_eq!(side, expected),
            other => panic!("{other:?}"),
        }
    }
    let error = compare(&[], &[some]).unwrap_err();
    assert_eq!(error.to_string(), "the base has no samples: nothing can be compared with it");
}

#[test]
fn other_events_and_units_are_refused() {
    let cpu = profile(&["f"], 10);
    for event in [Event::time("wall"), Event::count("cpu")] {
        let mut other = cpu.clone();
        other.metadata.event = event.clone();
        match compare(std::slice::from_ref(&cpu), &[cpu.clone(), other]) {
            Err(ComparisonError::DifferentEvents { other, .. }) => assert_eq!(other.0, event),
            result => panic!("{result:?}"),
        }
    }
    let mut other = cpu.clone();
    other.metadata.event = Event::count("page-faults\n");
    let error = compare(&[cpu], &[other]).unwrap_err();
    let expected =
        "profiles of different events cannot be compared: `cpu` (in nanoseconds) and `page-faults` (counted)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let side = [profile(&["f"], 10)];
    type Change = fn(&mut ComparisonOptions);
    let changes: [Change; 7] = [
        |options| options.error_rate = 0.0,
        |options| options.error_rate = 1.0,
        |options| options.error_rate = f64::NAN,
        |options| options.min_share = -0.1,
        |options| options.min_share = 1.0,
        |options| options.work = Some((1.0, 0.0)),
        |options| options.work = Some((f64::INFINITY, 1.0)),
    ];
    for change in changes {
        let mut options = ComparisonOptions::default();
        change(&mut options);
        let refused = Comparison::new(&side, &side, &options);
        assert!(matches!(refused, Err(ComparisonError::Option { .. })), "{options:?}");
    }
    let comparison = compare(&side, &side).unwrap();
    for threshold in [-0.01, f64::NAN, f64::INFINITY] {
        assert!(comparison.fail_above(threshold).is_err());
    }
}

#[test]
fn another_guest_is_noticed() {
    let comparison =
        compare(&[profile(&["a", "b", "c", "d"], 100)], &[profile(&["d", "x", "y", "z"], 100)]).unwrap();
    assert!(!has_notice(&comparison, "another guest"), "a quarter is in both");
    let comparison = compare(&[profile(&["a", "b"], 100)], &[profile(&["x", "y"], 100)]).unwrap();
    assert!(has_notice(&comparison, "only 0 % of the base's guest code"), "{:?}", comparison.notices);
    assert!(has_notice(&comparison, "only 0 % of the new build's guest code"), "{:?}", comparison.notices);
    assert_eq!((comparison.vanished().count(), comparison.appeared().count()), (2, 2));
}

/// Folded stacks hold neither the number of samples nor their period: what is noise is not known, or has to be said.
#[test]
fn without_the_number_of_samples_nothing_is_called_significant() {
    let [base, new] = [1_000_u64, 2_000].map(|weight| {
        let mut profile = Profile::default();
        for (name, weight) in [("f", weight), ("g", 5_000)] {
            let frame = profile.intern(Frame::guest(name));
            profile.add(&[frame], Tally { samples: 0, weight }).unwrap();
        }
        [profile]
    });
    let comparison = compare(&base, &new).unwrap();
    assert_eq!(comparison.tests, 0);
    assert!(!comparison.is_significant());
    assert!(matches!(comparison.fail_above(0.01), Err(ComparisonError::NoiseUnknown)));
    assert!(has_notice(&comparison, "neither the number"), "{:?}", comparison.notices);
    assert!(comparison.functions.iter().any(|function| function.own.share.estimate > 0.1));

    let mut options = ComparisonOptions::default();
    options.period = Some(1);
    assert!(Comparison::new(&base, &new, &options).unwrap().is_significant());
    options.period = Some(1_000);
    assert!(!Comparison::new(&base, &new, &options).unwrap().is_significant());
}

/// One side is stripped, so that what was inlined there is part of the function that it was inlined into.
#[test]
fn inlining_that_only_one_side_knows_of_is_set_aside() {
    let outer = function("outer", 1, 1);
    let inlined = Frame { inlined: true, ..at(Frame::guest("inner"), "a.rs", 7) };
    let mut with = Profile::default();
    let ids = [at(outer.clone(), "a.rs", 3), inlined].map(|frame| with.intern(frame));
    with.add(&ids, Tally { samples: 900, weight: 900 }).unwrap();
    with.add(&ids[..1], Tally { samples: 100, weight: 100 }).unwrap();
    let mut without = Profile::default();
    let id = without.intern(function("", 8, 1));
    without.add(&[id], Tally { samples: 1_000, weight: 1_000 }).unwrap();
    for (base, new) in [(&with, &without), (&without, &with)] {
        let comparison = compare(std::slice::from_ref(base), std::slice::from_ref(new)).unwrap();
        assert_eq!(comparison.functions.len(), 1, "{:?}", comparison.functions);
        assert_eq!(comparison.functions[0].own.share.estimate, 0.0);
        assert_eq!(comparison.functions[0].own.new.share, 1.0);
        assert!(has_notice(&comparison, "debug information"));
    }
}

#[test]
fn the_number_of_profiles_is_remarked_on() {
    let side = |count| vec![profile(&["a", "b"], 100); count];
    assert!(has_notice(&compare(&side(1), &side(1)).unwrap(), "one profile a side"));
    assert!(has_notice(&compare(&side(1), &side(5)).unwrap(), "so few profiles"));
    assert!(compare(&side(5), &side(6)).unwrap().notices.is_empty());
}

/// Weights near 2⁶⁴ on both sides, of several runs.
#[test]
fn huge_weights_are_compared() {
    let huge = |samples| {
        let mut profile = Profile::default();
        for name in ["f", "g"] {
            let frame = profile.intern(Frame::guest(name));
            profile.add(&[frame], Tally { samples, weight: u64::MAX / 2 }).unwrap();
        }
        profile
    };
    for samples in [1, u64::MAX / 2] {
        let comparison = compare(&[huge(samples), huge(samples)], &[huge(samples)]).unwrap();
        assert!(!comparison.is_significant());
        comparison.svg(&Default::default(), Vec::new()).unwrap();
        let _ = (comparison.table().to_string(), comparison.markdown().to_string());
    }
}

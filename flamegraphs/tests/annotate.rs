//! Costs of lines and instructions against a naive count that goes through every sample and every place.

use flamewalk_flamegraphs::{AnnotateError, Annotation, BodyId, Cost, annotate};
use flamewalk_profile::{Frame, Profile, SourceLocation, Tally};
use proptest::{collection::vec, prelude::*};

/// Function, line and offset.
type Choice = (u8, u32, u32);
/// A stack and its weight.
type Sample = (Vec<Choice>, u64);

/// A frame of one of a few functions: `f` and `g` have bodies, `i` was inlined by the guest's compiler and `w` by the
/// runtime's.
fn frame((function, line, offset): Choice) -> Frame {
    let (name, index, inlined) =
        [("f", Some(1), false), ("g", Some(2), false), ("i", None, true), ("w", Some(1), true)]
            [usize::from(function)];
    let name = if name == "w" { "f" } else { name };
    Frame {
        location: (line > 0).then(|| SourceLocation { file: "a.c".into(), line, column: 0 }),
        function_index: index,
        bytecode_offset: Some(offset),
        text_offset: Some(10 * offset),
        inlined,
        ..Frame::guest(name)
    }
}

fn profile(samples: &[Sample]) -> Profile {
    let mut profile = Profile::default();
    for (stack, weight) in samples {
        let frames: Vec<_> = stack.iter().map(|&choice| profile.intern(frame(choice))).collect();
        profile.add(&frames, Tally { samples: 1, weight: *weight }).unwrap();
    }
    profile
}

/// The cost of the places that `is_there` finds in a stack; `is_self` says whether it is self there.
fn cost(samples: &[Sample], is_there: impl Fn(&Frame) -> bool, is_self: impl Fn(&[Frame]) -> bool) -> Cost {
    let mut cost = Cost::default();
    for (stack, weight) in samples {
        let frames: Vec<Frame> = stack.iter().map(|&choice| frame(choice)).collect();
        let places: Vec<usize> = (0..frames.len()).filter(|&index| is_there(&frames[index])).collect();
        if !places.is_empty() {
            cost.total_weight += weight;
        }
        cost.self_weight +=
            weight * places.iter().filter(|&&index| is_self(&frames[index + 1..])).count() as u64;
    }
    cost
}

fn is_youngest(younger: &[Frame]) -> bool {
    younger.is_empty()
}

fn is_in_body(younger: &[Frame]) -> bool {
    younger.iter().all(|frame| frame.inlined && frame.function_index.is_none())
}

proptest! {
    #[test]
    fn costs_agree_with_a_naive_count(
        samples in vec((vec((0_u8..4, 0_u32..3, 0_u32..3), 1..6), 1_u64..100), 1..30)
    ) {
        let profile = profile(&samples);
        for name in ["f", "g", "i"] {
            let Ok(annotation) = annotate(&profile, name) else {
                prop_assert!(samples.iter().all(|(stack, _)| stack.iter().all(|&choice| &*frame(choice).name != name)));
                continue;
            };
            let is = |frame: &Frame| &*frame.name == name;
            prop_assert_eq!(annotation.cost, cost(&samples, is, is_youngest));
            let no_line = cost(&samples, |frame| is(frame) && frame.location.is_none(), is_youngest);
            prop_assert_eq!(annotation.no_line, no_line);
            for line in 1..3 {
                let is_there = |frame: &Frame| is(frame) && frame.location.as_ref().is_some_and(|at| at.line == line);
                let found = annotation.files.get("a.c").and_then(|lines| lines.get(&line)).copied();
                prop_assert_eq!(found.unwrap_or_default(), cost(&samples, is_there, is_youngest));
            }
            for index in 1..3 {
                let body = annotation.bodies.get(&BodyId { module: None, function_index: index });
                for offset in 0..3 {
                    let is_at = |frame: &Frame| {
                        is(frame) && frame.function_index == Some(index) && frame.bytecode_offset == Some(offset)
                    };
                    let found = body.and_then(|body| body.bytecode.get(&offset)).copied().unwrap_or_default();
                    prop_assert_eq!(found, cost(&samples, is_at, is_in_body));
                    let found = body.and_then(|body| body.machine.get(&(10 * offset)));
                    let found = found.map(|(_, cost)| *cost).unwrap_or_default();
                    prop_assert_eq!(found, cost(&samples, |frame| is_at(frame) && !frame.inlined, is_in_body));
                }
            }
            let lines: u64 = annotation.files.values().flat_map(|lines| lines.values()).map(|cost| cost.self_weight).sum();
            prop_assert_eq!(lines + annotation.no_line.self_weight, annotation.cost.self_weight);
        }
    }
}

#[test]
fn functions_are_found_by_their_names() {
    let mut profile = Profile::default();
    let frames = [
        Frame::guest("main"),
        Frame::guest("parse"),
        Frame::guest("parse_line"),
        Frame::builtin("memory.grow"),
    ];
    for (weight, frame) in (1..).zip(frames) {
        let id = profile.intern(frame);
        profile.add(&[id], Tally { samples: 1, weight }).unwrap();
    }
    let found = |name: &str| annotate(&profile, name).map(|Annotation { name, .. }| name);
    assert_eq!(found("parse").unwrap(), "parse");
    assert_eq!(found("line").unwrap(), "parse_line");
    let said = |name: &str| found(name).unwrap_err().to_string();
    assert_eq!(said("pars"), "several functions contain `pars`: `parse_line`, `parse`");
    assert_eq!(said("nope"), "the profile has no function `nope`");
    assert!(matches!(found("[builtin] memory.grow"), Err(AnnotateError::NoCode { .. })));
}

//! The differential flame graph against the comparison that it draws.

use std::collections::BTreeMap;

use flamewalk_flamegraphs::{
    FlamegraphError,
    comparison::{Comparison, ComparisonOptions, DifferentialOptions, Shape},
};
use flamewalk_profile::{Frame, Profile, Tally};
use quick_xml::{Reader, events::Event};

/// The frames of a graph: what each is called, how wide it is and in which colour.
fn frames(comparison: &Comparison, shape: Shape) -> BTreeMap<String, (u64, [u8; 3])> {
    let mut options = DifferentialOptions::default();
    options.shape = shape;
    let mut graph = Vec::new();
    comparison.svg(&options, &mut graph).unwrap();
    let mut reader = Reader::from_reader(graph.as_slice());
    let (mut frames, mut title, mut in_title) = (BTreeMap::new(), String::new(), false);
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return frames,
            Event::Start(start) if start.name().as_ref() == b"title" => {
                title.clear();
                in_title = true;
            }
            Event::End(end) if end.name().as_ref() == b"title" => in_title = false,
            Event::Text(text) if in_title => title.push_str(&text.decode().unwrap()),
            Event::Empty(rect) => {
                let get = |name| {
                    let attribute = rect.try_get_attribute(name).unwrap()?;
                    Some(String::from_utf8(attribute.value.into_owned()).unwrap())
                };
                if let (Some(weight), Some(fill)) = (get("fg:w"), get("fill")) {
                    let fill: Vec<u8> = fill
                        .trim_start_matches("rgb(")
                        .trim_end_matches(')')
                        .split(',')
                        .map(|part| part.parse().unwrap())
                        .collect();
                    let name = title.rsplit_once(" (").unwrap().0.to_owned();
                    frames.insert(name, (weight.parse().unwrap(), fill.try_into().unwrap()));
                }
            }
            _ => {}
        }
    }
}

/// Whether a colour is red, blue or grey.
fn hue([red, green, blue]: [u8; 3]) -> &'static str {
    if red == green && green == blue {
        "grey"
    } else if red > blue {
        "red"
    } else {
        "blue"
    }
}

fn profile(stacks: &[(&[&str], u64)]) -> Profile {
    let mut profile = Profile::default();
    for (names, samples) in stacks {
        let frames: Vec<_> = names.iter().map(|&name| profile.intern(Frame::guest(name))).collect();
        profile.add(&frames, Tally { samples: *samples, weight: 1_000 * samples }).unwrap();
    }
    profile
}

fn comparison() -> Comparison {
    let base = profile(&[
        (&["main", "steady"], 5_000),
        (&["main", "noisy"], 1_000),
        (&["main", "slower"], 1_000),
        (&["main", "faster"], 2_000),
        (&["main", "steady", "gone"], 1_000),
    ]);
    let new = profile(&[
        (&["main", "steady"], 6_000),
        (&["main", "noisy"], 1_010),
        (&["main", "slower"], 1_800),
        (&["main", "faster"], 990),
        (&["main", "fresh"], 200),
    ]);
    Comparison::new(&[base], &[new], &ComparisonOptions::default()).unwrap()
}

#[test]
fn widths_are_those_of_the_side_and_colours_those_of_significant_changes() {
    let comparison = comparison();
    for (shape, expected) in [
        (
            Shape::New,
            vec![
                ("all", 10_000, "grey"),
                ("faster", 990, "blue"),
                ("fresh", 200, "red"),
                ("main", 10_000, "grey"),
                ("noisy", 1_010, "grey"),
                ("slower", 1_800, "red"),
                ("steady", 6_000, "red"),
            ],
        ),
        (
            Shape::Base,
            vec![
                ("all", 10_000, "grey"),
                ("faster", 2_000, "blue"),
                ("gone", 1_000, "blue"),
                ("main", 10_000, "grey"),
                ("noisy", 1_000, "grey"),
                ("slower", 1_000, "red"),
                ("steady", 6_000, "red"),
            ],
        ),
        (
            Shape::Vanished,
            vec![
                ("all", 1_000, "grey"),
                ("gone", 1_000, "blue"),
                ("main", 1_000, "grey"),
                ("steady", 1_000, "red"),
            ],
        ),
    ] {
        let drawn = frames(&comparison, shape);
        let drawn: Vec<_> =
            drawn.iter().map(|(name, &(weight, fill))| (name.as_str(), weight / 1_000, hue(fill))).collect();
        assert_eq!(drawn, expected, "{shape:?}");
    }
}

#[test]
fn nothing_vanished_is_said_before_anything_is_written() {
    let side = [profile(&[(&["main"], 10)])];
    let comparison = Comparison::new(&side, &side, &ComparisonOptions::default()).unwrap();
    let mut options = DifferentialOptions::default();
    options.shape = Shape::Vanished;
    let mut output = Vec::new();
    let refused = comparison.svg(&options, &mut output);
    assert!(matches!(refused, Err(FlamegraphError::NothingVanished)), "{refused:?}");
    assert!(output.is_empty());
}

#[test]
fn a_very_deep_stack_is_compared_and_drawn() {
    let names: Vec<String> = (0..20_000).map(|depth| format!("f{depth}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let [base, new] = [100, 120].map(|samples| [profile(&[(&names, samples)])]);
    let comparison = Comparison::new(&base, &new, &ComparisonOptions::default()).unwrap();
    assert_eq!(comparison.calls.len(), names.len());
    comparison.svg(&DifferentialOptions::default(), Vec::new()).unwrap();
}

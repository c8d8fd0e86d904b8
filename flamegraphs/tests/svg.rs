//! Flame graphs against other ways to come to the same numbers: what inferno draws from the folded stacks, and a
//! naive count over all stacks.

use std::collections::{BTreeMap, BTreeSet};

use flamewalk_flamegraphs::{FlamegraphError, Options, Orientation, svg};
use flamewalk_profile::{Event, Frame, FrameKind, Names, Profile, SourceLocation, Tally, folded};
use proptest::{collection::vec, prelude::*};
use quick_xml::{Reader, events::Event as Xml};

/// A frame as it is in the document.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Drawn {
    /// 0 for the frame at the bottom: in a flame graph, the one below all others.
    depth: u64,
    start: u64,
    weight: u64,
    title: String,
    text: String,
    fill: String,
}

impl Drawn {
    fn name(&self) -> &str {
        self.title.rsplit_once(" (").expect("details at the end").0
    }
}

fn drawn(document: &str) -> Vec<Drawn> {
    let mut reader = Reader::from_str(document);
    let (mut inside, mut element) = (false, String::new());
    let mut frames: Vec<(u64, Drawn)> = Vec::new();
    let (mut title, mut bottom) = (String::new(), 0);
    loop {
        match reader.read_event().expect("well-formed XML") {
            Xml::Eof => break,
            Xml::Start(start) => {
                element = String::from_utf8(start.name().as_ref().to_vec()).unwrap();
                inside |=
                    start.try_get_attribute("id").unwrap().is_some_and(|id| id.value.as_ref() == b"frames");
                if element == "title" {
                    title.clear();
                }
            }
            Xml::End(_) => element.clear(),
            Xml::Empty(rect) if inside => {
                let get = |name| {
                    let attribute = rect.try_get_attribute(name).unwrap().expect(name);
                    String::from_utf8(attribute.value.into_owned()).unwrap()
                };
                let y = get("y").parse().unwrap();
                bottom = bottom.max(y);
                let frame = Drawn {
                    depth: 0,
                    start: get("fg:x").parse().unwrap(),
                    weight: get("fg:w").parse().unwrap(),
                    title: title.clone(),
                    text: String::new(),
                    fill: get("fill"),
                };
                frames.push((y, frame));
            }
            Xml::Text(text) if inside => add(&element, &text.decode().unwrap(), &mut title, &mut frames),
            Xml::GeneralRef(reference) if inside => {
                let name = reference.decode().unwrap();
                let text = quick_xml::escape::resolve_predefined_entity(&name).expect("a predefined entity");
                add(&element, text, &mut title, &mut frames);
            }
            _ => {}
        }
    }
    let mut frames: Vec<_> =
        frames.into_iter().map(|(y, frame)| Drawn { depth: (bottom - y) / 16, ..frame }).collect();
    frames.sort();
    frames
}

fn add(element: &str, text: &str, title: &mut String, frames: &mut [(u64, Drawn)]) {
    match element {
        "title" => title.push_str(text),
        "text" => frames.last_mut().expect("a frame before its text").1.text.push_str(text),
        _ => {}
    }
}

fn draw(profile: &Profile) -> String {
    draw_as(profile, Orientation::Flames)
}

fn draw_as(profile: &Profile, orientation: Orientation) -> String {
    let mut options = Options::default();
    options.orientation = orientation;
    let mut output = Vec::new();
    svg(profile, &options, &mut output).unwrap();
    String::from_utf8(output).unwrap()
}

fn profile(stacks: &[(Vec<Frame>, u64)]) -> Profile {
    let mut profile = Profile::default();
    for (frames, weight) in stacks {
        let ids: Vec<_> = frames.iter().map(|frame| profile.intern(frame.clone())).collect();
        profile.add(&ids, Tally { samples: 1, weight: *weight }).unwrap();
    }
    profile
}

fn guests(names: &[&str]) -> Vec<Frame> {
    names.iter().map(|&name| Frame::guest(name)).collect()
}

proptest! {
    /// Names of letters, so that the order of lines is that of the tree, and stacks wide enough not to be left out.
    #[test]
    fn frames_are_where_inferno_draws_them_from_the_folded_stacks(
        stacks in vec((vec("[a-d]{1,2}", 1..6), 1_u64..100), 1..40)
    ) {
        let stacks: Vec<_> = stacks
            .into_iter()
            .map(|(names, weight)| (names.into_iter().map(Frame::guest).collect(), weight))
            .collect();
        let profile = profile(&stacks);

        let mut lines = Vec::new();
        folded::write(&profile, folded::Value::Weight, &mut lines)?;
        let mut expected = Vec::new();
        inferno::flamegraph::from_reader(&mut inferno::flamegraph::Options::default(), lines.as_slice(), &mut expected)?;
        let place = |frame: &Drawn| (frame.depth, frame.start, frame.weight, frame.name().to_owned());
        let expected: Vec<_> = drawn(std::str::from_utf8(&expected)?).iter().map(place).collect();
        let actual: Vec<_> = drawn(&draw(&profile)).iter().map(place).collect();
        prop_assert_eq!(actual, expected);
    }

    /// Any names and kinds: each chain of functions is one frame as wide as all stacks that start with it.
    #[test]
    fn widths_agree_with_a_naive_count(
        stacks in vec((vec((0_usize..5, ".{0,3}|a|a-|a;|\\[host\\] a"), 1..6), 1_u64..100), 1..30)
    ) {
        let kinds = [FrameKind::Guest, FrameKind::Guest, FrameKind::HostCall, FrameKind::Builtin, FrameKind::Host];
        let stacks: Vec<_> = stacks
            .into_iter()
            .map(|(frames, weight)| {
                let frame = |(kind, name): (usize, String)| Frame { inlined: kind == 1, ..Frame::new(kinds[kind], name) };
                (frames.into_iter().map(frame).collect::<Vec<_>>(), weight)
            })
            .collect();
        let profile = profile(&stacks);
        let names = Names::new(&profile);

        let mut expected = BTreeMap::new();
        for stack in profile.stacks() {
            for depth in 1..=stack.frames.len() {
                let chain: Vec<_> = stack.frames[..depth]
                    .iter()
                    .map(|&id| (names.of(id), profile.frame(id).kind, profile.frame(id).inlined))
                    .collect();
                *expected.entry(chain).or_default() += stack.tally.weight;
            }
        }
        let mut expected: Vec<(u64, u64, &str)> =
            expected.iter().map(|(chain, &weight)| (chain.len() as u64, weight, chain[chain.len() - 1].0)).collect();
        expected.push((0, profile.total().weight, "all"));
        expected.sort();

        let frames = drawn(&draw(&profile));
        let mut actual: Vec<_> = frames.iter().map(|frame| (frame.depth, frame.weight, frame.name())).collect();
        actual.sort();
        prop_assert_eq!(actual, expected);

        for frame in frames.iter().filter(|frame| frame.depth > 0) {
            let below = frames.iter().filter(|below| {
                below.depth + 1 == frame.depth
                    && below.start <= frame.start
                    && frame.start + frame.weight <= below.start + below.weight
            });
            prop_assert_eq!(below.count(), 1, "{:?} lies on no frame", frame);
        }
    }
}

proptest! {
    /// Whatever the names are, inferno reads from the folded stacks the names and weights that were written.
    #[test]
    fn inferno_reads_the_folded_stacks_as_they_are_meant(
        stacks in vec((vec(".{1,3}|# ?|[ab]?[ ;.0-9]{1,4}|\\[host\\] 5", 1..4), 1_u64..100), 1..20)
    ) {
        let stacks: Vec<_> = stacks
            .into_iter()
            .map(|(names, weight)| (names.into_iter().map(Frame::guest).collect(), weight))
            .collect();
        let profile = profile(&stacks);
        let names = Names::new(&profile);
        let mut expected = BTreeMap::new();
        for stack in profile.stacks() {
            for (depth, &frame) in (1_u64..).zip(stack.frames) {
                let plain = names.of(frame).replace(';', "；");
                *expected.entry((depth, look(&plain))).or_default() += stack.tally.weight;
            }
        }
        expected.insert((0, "all".to_owned()), profile.total().weight);

        let mut lines = Vec::new();
        folded::write(&profile, folded::Value::Weight, &mut lines)?;
        let mut options = inferno::flamegraph::Options::default();
        options.min_width = 0.0;
        let mut document = Vec::new();
        inferno::flamegraph::from_reader(&mut options, lines.as_slice(), &mut document)?;
        let mut actual = BTreeMap::new();
        for frame in drawn(std::str::from_utf8(&document)?) {
            *actual.entry((frame.depth, look(frame.name()))).or_default() += frame.weight;
        }
        prop_assert_eq!(actual, expected);
    }
}

/// A name with what folded stacks replace made equal to its look-alike.
fn look(name: &str) -> String {
    name.replace('\u{a0}', " ").replace('＃', "#")
}

#[test]
fn no_two_kinds_share_a_color_even_under_one_name() {
    let frames = [
        Frame::guest("x"),
        Frame { inlined: true, ..Frame::guest("x") },
        Frame::guest("[host] x"),
        Frame::new(FrameKind::HostCall, "x"),
        Frame::builtin("x"),
        Frame::new(FrameKind::Host, "x"),
        Frame::truncated(),
    ];
    let stacks: Vec<_> = frames.into_iter().map(|frame| (vec![frame], 1)).collect();
    let document = draw(&profile(&stacks));
    let frames = drawn(&document);
    let fills: BTreeSet<_> = frames.iter().map(|frame| &frame.fill).collect();
    assert_eq!((frames.len(), fills.len()), (8, 8), "{frames:#?}");
    for entry in [
        "guest",
        "guest, inlined",
        "host call",
        "runtime builtin",
        "native host code",
        "older frames missing",
    ] {
        assert!(document.contains(&format!(">{entry}</text>")), "no legend for {entry}");
    }
    // The word was there, and could not be seen.
    let style =
        document.split("<style").nth(1).and_then(|rest| rest.split("</style>").next()).expect("a style");
    let opacity = |rule: &str| rule.split_once("opacity:")?.1.split(';').next()?.parse::<f64>().ok();
    let search = style.lines().filter(|rule| rule.starts_with("#search {")).filter_map(opacity).next_back();
    assert!(search >= Some(0.6), "{style}");
    let fill = |name: &str| frames.iter().find(|frame| frame.name() == name).expect(name).fill.clone();
    let others = drawn(&draw(&profile(&[(guests(&["y", "x"]), 3)])));
    assert_eq!(others[2].fill, fill("x"), "a function has another color in another graph");
}

#[test]
fn the_text_for_the_pointer_says_what_is_known() {
    let at = |file: &str, line| {
        let location = Some(SourceLocation { file: file.into(), line, column: 0 });
        Frame { location, ..Frame::guest("f") }
    };
    let mut profile = profile(&[
        (vec![at("src (1)/a.c", 3)], 1_000_000),
        (vec![at("src (1)/a.c", 9)], 2_000_000),
        (vec![at("b.c", 0)], 4_000_000),
        (guests(&["g"]), 1_000_000),
    ]);
    profile.metadata.event = Event::time("cpu");
    let titles: Vec<_> = drawn(&draw(&profile)).into_iter().map(|frame| frame.title).collect();
    let expected = [
        "all (8.00 ms, 100.00%, 4 samples)",
        "f (7.00 ms, 87.50%, 3 samples, src [1]/a.c:9 and 1 more line)",
        "g (1.00 ms, 12.50%, 1 sample)",
    ];
    assert_eq!(titles, expected);

    profile.metadata.event = Event::count("page-faults");
    assert_eq!(drawn(&draw(&profile))[2].title, "g (1,000,000 page-faults, 12.50%, 1 sample)");
}

#[test]
fn icicles_are_flames_upside_down() {
    let profile = profile(&[
        (guests(&["main", "parse", "read"]), 60),
        (guests(&["main", "parse"]), 30),
        (guests(&["main"]), 10),
    ]);
    let [flames, icicles] =
        [Orientation::Flames, Orientation::Icicles].map(|orientation| drawn(&draw_as(&profile, orientation)));
    let deepest = flames.iter().map(|frame| frame.depth).max().unwrap();
    assert_eq!(deepest, 3);
    let mut turned: Vec<Drawn> =
        icicles.into_iter().map(|frame| Drawn { depth: deepest - frame.depth, ..frame }).collect();
    turned.sort();
    assert_eq!(turned, flames);
}

#[test]
fn markup_in_names_and_titles_is_text() {
    let names = ["a<b>&\"c'</title><script>alert(1)</script>", "]]>", "--", "-", "x_[j]", "12", "all", "# 5"];
    let mut profile = profile(&[(guests(&names), 1)]);
    profile.metadata.guest = Some("<g&uest>.wasm\u{1}".into());
    profile.metadata.engine = Some("<e&ngine>".into());
    let document = draw(&profile);
    let drawn = drawn(&document);
    assert_eq!(drawn.iter().skip(1).map(Drawn::name).collect::<Vec<_>>(), names);
    assert_eq!(drawn.iter().skip(1).map(|frame| frame.text.as_str()).collect::<Vec<_>>(), names);
    assert!(document.contains("&lt;g&amp;uest&gt;.wasm␁"));
    assert!(document.contains("&lt;e&amp;ngine&gt;"));
    assert_eq!(document.matches("<script").count(), 1);
}

#[test]
fn names_are_cut_to_their_frames() {
    let long =
        "std::__2::basic_string<char, std::__2::char_traits<char>>::append(char const*, unsigned long)";
    let frames = drawn(&draw(&profile(&[(guests(&[long]), 1), (guests(&["b"]), 9), (guests(&["tiny"]), 1)])));
    let texts: Vec<_> = frames.iter().map(|frame| frame.text.as_str()).collect();
    assert_eq!(texts, ["all", "b", "std::__2::bas..", "tiny"]);
}

#[test]
fn what_is_too_narrow_counts_for_its_caller() {
    let stacks = [
        (guests(&["main", "wide"]), 99_990),
        (guests(&["main", "narrow"]), 9),
        (guests(&["main", "just"]), 11),
    ];
    let frames = drawn(&draw(&profile(&stacks)));
    let widths: Vec<_> = frames.iter().map(|frame| (frame.name(), frame.weight)).collect();
    assert_eq!(widths, [("all", 100_010), ("main", 100_010), ("just", 11), ("wide", 99_990)]);
}

#[test]
fn one_profile_gives_one_document() {
    let stacks: Vec<_> =
        (0..50).map(|i| (guests(&["main", ["f", "g", "h"][i % 3], &format!("leaf{i}")]), 7)).collect();
    let mut reversed = stacks.clone();
    reversed.reverse();
    assert_eq!(draw(&profile(&stacks)), draw(&profile(&reversed)));
}

#[test]
fn nothing_to_draw_is_an_error() {
    let mut profile = profile(&[(guests(&["main"]), 0)]);
    profile.metadata.statistics.ticks.samples = 9;
    profile.metadata.statistics.outside.samples = 8;
    profile.metadata.statistics.lost.insert("ring full".into(), Tally { samples: 1, weight: 0 });
    for profile in [&Profile::default(), &profile] {
        let mut output = Vec::new();
        let error = svg(profile, &Options::default(), &mut output).unwrap_err();
        assert!(matches!(error, FlamegraphError::NoSamples { .. }));
        assert!(output.is_empty());
    }
    let error = svg(&profile, &Options::default(), Vec::new()).unwrap_err();
    let expected = "there are no samples to draw (ticks: 9, outside the guest: 8, lost: 1)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_very_deep_stack_is_drawn() {
    let mut profile = Profile::default();
    let recurse = profile.intern(Frame::guest("recurse"));
    profile.add(&vec![recurse; 20_000], Tally { samples: 1, weight: 1 }).unwrap();
    let frames = drawn(&draw(&profile));
    assert_eq!(frames.len(), 20_001);
    assert_eq!(frames.last().map(|frame| frame.depth), Some(20_000));
}

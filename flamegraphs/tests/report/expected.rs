//! What the page has to show, counted the slow way: stack by stack, over all samples.

use std::collections::{BTreeMap, BTreeSet};

use flamewalk_profile::{FrameKind, Names, Profile, Sample};
use serde::Serialize;

/// A frame as the graph tells frames apart, in the order of siblings.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) name: String,
    kind: FrameKind,
    inlined: bool,
}

/// A stack, oldest frame first, and what fell on it.
pub(crate) type Weighed = (Vec<Key>, u64);

/// A drawn frame.
#[derive(Debug, Serialize)]
pub(crate) struct Drawn {
    depth: usize,
    /// In weights, from the left.
    start: u64,
    weight: u64,
    name: String,
    share: String,
}

/// A row of the table of functions.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    self_share: String,
    total_share: String,
    self_samples: u64,
    samples: u64,
}

/// A source line: number, shares.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    number: u32,
    self_share: String,
    total_share: String,
}

pub(crate) fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", 100.0 * (part as f64 / whole as f64))
}

/// The samples that pass, as a profile of their own.
pub(crate) fn filtered(profile: &Profile, passes: impl Fn(&Sample) -> bool) -> Profile {
    let mut rest = Profile::new(profile.metadata.clone());
    for (_, frame) in profile.frames() {
        rest.intern(frame.clone());
    }
    for sample in profile.samples().filter(passes) {
        rest.add(profile.stack(sample.stack).frames, sample.tally).unwrap();
    }
    rest
}

pub(crate) fn stacks(profile: &Profile) -> Vec<Weighed> {
    let names = Names::new(profile);
    let key = |&id| {
        let frame = profile.frame(id);
        Key { name: names.of(id).to_owned(), kind: frame.kind, inlined: frame.inlined }
    };
    profile.stacks().map(|stack| (stack.frames.iter().map(key).collect(), stack.tally.weight)).collect()
}

/// From the youngest frame on.
pub(crate) fn reversed(stacks: &[Weighed]) -> Vec<Weighed> {
    stacks.iter().map(|(keys, weight)| (keys.iter().rev().cloned().collect(), *weight)).collect()
}

/// What a function is called by, its callers first, or what it calls: from its outermost frame on, without that.
pub(crate) fn around(stacks: &[Weighed], name: &str, callers: bool) -> Vec<Weighed> {
    stacks
        .iter()
        .filter_map(|(keys, weight)| {
            let outermost = keys.iter().position(|key| key.name == name)?;
            let rest: Vec<Key> = if callers {
                keys[..outermost].iter().rev().cloned().collect()
            } else {
                keys[outermost + 1..].to_vec()
            };
            Some((rest, *weight))
        })
        .collect()
}

/// All frames above the one that is the root, siblings in the order of their keys. Shares are of `whole`.
pub(crate) fn frames(stacks: &[Weighed], whole: u64) -> Vec<Drawn> {
    let paths: BTreeSet<&[Key]> =
        stacks.iter().flat_map(|(keys, _)| (1..=keys.len()).map(|length| &keys[..length])).collect();
    let weight = |prefix: &[Key]| -> u64 {
        stacks.iter().filter(|(keys, _)| keys.starts_with(prefix)).map(|(_, weight)| weight).sum()
    };
    let start = |path: &[Key]| -> u64 {
        // Left of it is what branches off to the left anywhere below.
        let left = |keys: &[Key]| {
            let shared = keys.iter().zip(path).take_while(|(a, b)| a == b).count();
            shared < keys.len() && shared < path.len() && keys[shared] < path[shared]
        };
        stacks.iter().filter(|(keys, _)| left(keys)).map(|(_, weight)| weight).sum()
    };
    paths
        .into_iter()
        .map(|path| Drawn {
            depth: path.len(),
            start: start(path),
            weight: weight(path),
            name: path[path.len() - 1].name.clone(),
            share: percent(weight(path), whole),
        })
        .collect()
}

/// The table, in its first order.
pub(crate) fn rows(profile: &Profile) -> Vec<Row> {
    let names = Names::new(profile);
    let whole = profile.total().weight;
    let mut functions = profile.functions(&names);
    functions.retain(|function| function.total_tally.weight > 0);
    functions.sort_by_key(|function| {
        let weights = (function.self_tally.weight, function.total_tally.weight);
        (std::cmp::Reverse(weights), names.text(function.name))
    });
    functions
        .into_iter()
        .map(|function| Row {
            name: names.text(function.name).to_owned(),
            self_share: percent(function.self_tally.weight, whole),
            total_share: percent(function.total_tally.weight, whole),
            self_samples: function.self_tally.samples,
            samples: function.total_tally.samples,
        })
        .collect()
}

/// The share of the stacks that have a function whose name passes.
pub(crate) fn matched(stacks: &[Weighed], passes: impl Fn(&str) -> bool) -> String {
    let has = |keys: &[Key]| keys.iter().any(|key| passes(&key.name));
    let sum = |stacks: &mut dyn Iterator<Item = &Weighed>| stacks.map(|(_, weight)| weight).sum::<u64>();
    percent(sum(&mut stacks.iter().filter(|(keys, _)| has(keys))), sum(&mut stacks.iter()))
}

/// The sampled lines of a file.
pub(crate) fn lines(profile: &Profile, file: &str) -> Vec<Line> {
    let mut figures: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
    for stack in profile.stacks() {
        let line = |id| {
            let location = profile.frame(id).location.as_ref()?;
            (&*location.file == file).then_some(location.line)
        };
        let on_stack: BTreeSet<u32> = stack.frames.iter().filter_map(|&id| line(id)).collect();
        for number in on_stack {
            figures.entry(number).or_default()[1] += stack.tally.weight;
        }
        if let Some(number) = stack.frames.last().and_then(|&id| line(id)) {
            figures.entry(number).or_default()[0] += stack.tally.weight;
        }
    }
    let whole = profile.total().weight;
    let share = |weight| if weight > 0 { percent(weight, whole) } else { String::new() };
    figures
        .into_iter()
        .map(|(number, [own, total])| Line { number, self_share: share(own), total_share: share(total) })
        .collect()
}

/// The lines, then the bytecode offsets, of the last frame of a path in the graph, heaviest first, as the details
/// have them. `towards_callers` if stacks start with their youngest frames.
pub(crate) fn places(profile: &Profile, path: &[&str], towards_callers: bool) -> Vec<String> {
    let names = Names::new(profile);
    let (mut lines, mut offsets) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    for stack in profile.stacks() {
        let mut frames = stack.frames.to_vec();
        if towards_callers {
            frames.reverse();
        }
        let shown = frames.iter().map(|&id| (names.of(id), profile.frame(id).inlined));
        if frames.len() >= path.len() && shown.zip(path).all(|(frame, wanted)| frame == (*wanted, false)) {
            let frame = profile.frame(frames[path.len() - 1]);
            let location = frame.location.as_ref().unwrap();
            *lines.entry(format!("{}:{}", location.file, location.line)).or_default() += stack.tally.weight;
            let offset = frame.bytecode_offset.unwrap();
            *offsets.entry(format!("{offset:#x}")).or_default() += stack.tally.weight;
        }
    }
    let list = |places: BTreeMap<String, u64>| {
        let whole = places.values().sum();
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        places.into_iter().map(move |(label, weight)| format!("{}{label}", percent(weight, whole)))
    };
    list(lines).chain(list(offsets)).collect()
}

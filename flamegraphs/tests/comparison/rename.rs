//! Functions found again in another build of the same guest, of which the truth is known: every function of the
//! simulated guest carries its identity along, and each test changes what a rebuild changes.

use std::collections::BTreeMap;

use flamewalk_flamegraphs::comparison::{Comparison, ComparisonOptions, MatchedBy, Side};
use flamewalk_profile::{Frame, FrameId, Profile, Tally};

use crate::simulation::{Random, at, function};

const FUNCTIONS: u32 = 300;

/// A function of the guest as a build has it. `id` says which it is in every build.
struct Built {
    id: u32,
    frame: Frame,
}

/// A build of the guest: its functions, by what `frame` makes of each.
fn build(frame: impl Fn(u32) -> Frame) -> Vec<Built> {
    (0..FUNCTIONS).map(|id| Built { id, frame: frame(id) }).collect()
}

/// Small functions share their body with others, as getters do: one in ten.
fn body(id: u32) -> u64 {
    Random(u64::from(if id % 10 == 9 { id % 30 } else { 1_000 + id })).bits()
}

/// The same but for integers in it.
fn body_with_other_constants(id: u32) -> u64 {
    body(id) ^ 0x5a
}

/// The guest's call graph is the same in every build.
fn profile(build: &[Built], random: &mut Random) -> (Profile, BTreeMap<FrameId, u32>) {
    let mut profile = Profile::default();
    let frames: BTreeMap<u32, FrameId> =
        build.iter().map(|built| (built.id, profile.intern(built.frame.clone()))).collect();
    let write = profile.intern(Frame::host_call("wasi_snapshot_preview1", "fd_write"));
    for _ in 0..10_000 {
        // Hot functions are those of low numbers; a function is called by those at a third of its number.
        let mut id = (f64::from(FUNCTIONS) * random.unit().powi(3)) as u32;
        let mut stack = vec![frames[&id]];
        while id > 0 {
            id /= 3;
            stack.push(frames[&id]);
        }
        stack.reverse();
        if random.below(20) == 0 {
            stack.push(write);
        }
        profile.add(&stack, Tally { samples: 1, weight: 1_000 }).unwrap();
    }
    (profile, frames.into_iter().map(|(id, frame)| (frame, id)).collect())
}

/// The share of both sides' weight, by self, that falls on functions which are matched right, and how often each rule
/// was the one that did it. A wrong match fails at once.
fn matched(base: &[Built], new: &[Built]) -> (f64, BTreeMap<MatchedBy, usize>) {
    let mut random = Random(42);
    let (base, base_ids) = profile(base, &mut random);
    let (new, new_ids) = profile(new, &mut random);
    let sides = [(&base, &base_ids, Side::Base), (&new, &new_ids, Side::New)];
    let comparison = Comparison::new(
        std::slice::from_ref(&base),
        std::slice::from_ref(&new),
        &ComparisonOptions::default(),
    )
    .unwrap();

    let mut of_function = vec![[None; 2]; comparison.functions.len()];
    for (profile, ids, side) in sides {
        for (frame, _) in profile.frames() {
            if let (Some(function), Some(&id)) = (comparison.function_of(side, 0, frame), ids.get(&frame)) {
                of_function[function][side as usize] = Some(id);
            }
        }
    }
    let (mut right, mut all) = (0.0, 0.0);
    let mut rules = BTreeMap::new();
    for (function, ids) in comparison.functions.iter().zip(of_function) {
        let share = function.own.base.share + function.own.new.share;
        all += share;
        if let [Some(base), Some(new)] = ids {
            assert_eq!(base, new, "{} is taken for {:?}", function.name, function.base_name);
        }
        if let Some(rule) = function.matched_by {
            right += share;
            *rules.entry(rule).or_default() += 1;
        }
    }
    (right / all, rules)
}

#[test]
fn with_and_without_names() {
    let named = build(|id| function(&format!("app::f{id}"), id, body(id)));
    let unnamed = build(|id| function("", id, body(id)));
    let (share, rules) = matched(&named, &unnamed);
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::Body] > 100 && rules[&MatchedBy::BodyAndCallers] > 5, "{rules:?}");
}

/// Without names on either side, and each index is that of another function.
#[test]
fn functions_inserted_in_the_middle() {
    let before = build(|id| function("", id, body(id)));
    let mut after = build(|id| function("", moved(id), body(id)));
    after.extend(
        (0..7)
            .map(|new| Built { id: FUNCTIONS + new, frame: function("", 50 + new, 5_000 + u64::from(new)) }),
    );
    let (share, rules) = matched(&before, &after);
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::Name] >= 50 && rules[&MatchedBy::Body] > 100, "{rules:?}");
}

/// Where seven functions were inserted before the fiftieth.
fn moved(id: u32) -> u32 {
    if id < 50 { id } else { id + 7 }
}

/// Every third function takes the address of another one, and the table of functions has shifted.
#[test]
fn functions_inserted_before_those_that_take_addresses() {
    let before = build(|id| function("", id, body(id)));
    let after = build(|id| {
        let body = if id % 3 == 0 { body_with_other_constants(id) } else { body(id) };
        function("", moved(id), body)
    });
    let (share, rules) = matched(&before, &after);
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::BodyAndPosition] > 80, "{rules:?}");
    let named = build(|id| function(&format!("app::f{id}"), id, body(id)));
    let (share, rules) = matched(&named, &after);
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::BodyAndPosition] > 80, "{rules:?}");
}

/// A body that is the same but for integers is matched only where the functions around it say that it is, and only one is
/// there: what lies between functions that moved differently may have moved like either of them.
#[test]
fn a_similar_body_elsewhere_is_another_function() {
    let before = build(|id| function("", id, body(id)));
    let after = |index: u32| {
        build(|id| match id {
            50 => function("", index, body_with_other_constants(50)),
            _ => function("", moved(id), body(id)),
        })
    };
    for index in [50, 57] {
        let (_, rules) = matched(&before, &after(index));
        assert_eq!(rules[&MatchedBy::BodyAndPosition], 1);
    }
    let (_, rules) = matched(&before, &after(1_000));
    assert!(!rules.contains_key(&MatchedBy::BodyAndPosition), "elsewhere: {rules:?}");

    let twin = Built { id: FUNCTIONS, frame: function("", 50, body_with_other_constants(50) ^ 1) };
    let mut two = after(57);
    two.push(twin);
    let (_, rules) = matched(&before, &two);
    assert!(!rules.contains_key(&MatchedBy::BodyAndPosition), "one of two: {rules:?}");
    let (_, rules) = matched(&two, &before);
    assert!(!rules.contains_key(&MatchedBy::BodyAndPosition), "two of one: {rules:?}");

    let named = |name: &str| {
        build(|id| match id {
            50 => function(name, 50, if name == "old" { body(50) } else { body_with_other_constants(50) }),
            _ => function("", id, body(id)),
        })
    };
    let (_, rules) = matched(&named("old"), &named("new"));
    assert!(!rules.contains_key(&MatchedBy::BodyAndPosition), "another name: {rules:?}");
}

#[test]
fn other_hashes() {
    let with_hash = |seed: u64| {
        build(|id| {
            let hash = Random(seed + u64::from(id)).bits();
            let name = match id % 3 {
                0 => format!("app::f{id}::h{hash:016x}"),
                1 => format!("app[{hash:x}]::f{id}"),
                _ => format!("app::f{id}.llvm.{hash}"),
            };
            // The code has changed too.
            function(&name, id, hash)
        })
    };
    let (share, rules) = matched(&with_hash(1), &with_hash(1_000));
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::StableName] > 250, "{rules:?}");
}

/// A closure was inserted before the others, so that each has the number of another one.
#[test]
fn numbers_of_closures_move() {
    let before = build(|id| function(&format!("app::run::{{closure#{id}}}"), id, body(1_000 + 10 * id)));
    let after =
        build(|id| function(&format!("app::run::{{closure#{}}}", id + 1), id + 1, body(1_000 + 10 * id)));
    let (share, rules) = matched(&before, &after);
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::NameAndBody] > 250, "{rules:?}");
}

/// Every tenth function has another name and other code, but is where it was: below lines that were inserted.
#[test]
fn the_source_tells_what_was_renamed() {
    let line = |id: u32| 10 + 20 * id;
    let before = build(|id| at(function(&format!("f{id}"), id, body(id)), "/old/src/app.rs", line(id)));
    let after = build(|id| {
        let name = if id % 10 == 0 { format!("renamed{id}") } else { format!("f{id}") };
        let line = if id < 100 { line(id) } else { line(id) + 37 };
        at(function(&name, id, 50_000 + u64::from(id)), "/new/src/app.rs", line)
    });
    let (share, rules) = matched(&before, &after);
    assert!(share >= 0.95, "{share} {rules:?}");
    assert!(rules[&MatchedBy::Source] >= 25, "{rules:?}");
}

/// Neither names nor bodies are known: an index alone says nothing, and nothing is matched but the host's functions.
#[test]
fn what_might_be_anything_stays_unmatched() {
    let before = build(|id| Frame { body_hash: None, ..function("", id, 0) });
    let (_, rules) = matched(&before, &before);
    assert_eq!(rules, BTreeMap::from([(MatchedBy::Name, 1)]));
    let same_body = build(|id| function("", id + 1_000, 7));
    let (_, rules) = matched(&build(|id| function("", id, 7)), &same_body);
    assert_eq!(rules, BTreeMap::from([(MatchedBy::Name, 1)]), "all of one body");
}

/// The module's name is that of a file, which a build may name anew.
#[test]
fn modules_of_other_names() {
    let of_module = |module: &'static str| {
        build(move |id| Frame { module: Some(module.into()), ..function(&format!("f{id}"), id, body(id)) })
    };
    let (share, rules) = matched(&of_module("app-1.0.wasm"), &of_module("app-1.1.wasm"));
    assert!(share >= 0.95, "{share} {rules:?}");
    assert_eq!(rules.keys().copied().collect::<Vec<_>>(), [MatchedBy::Name]);
}

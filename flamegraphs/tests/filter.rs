//! Filters against a list of samples that is filtered one by one.

use std::{collections::BTreeMap, time::Duration};

use flamewalk_flamegraphs::{Filter, FilterError, merge};
use flamewalk_profile::{Frame, Headroom, Labels, Names, Origin, Profile, Tally, Thread};
use proptest::{collection::vec, option, prelude::*};

/// One sample with all that filters look at.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct One {
    stack: Vec<String>,
    thread: Option<u64>,
    tenant: Option<String>,
    slice: Option<u32>,
}

const SLICE: Duration = Duration::from_millis(10);

fn one() -> impl Strategy<Value = One> {
    (vec("[abc]|[host] x|ab", 1..6), option::of(0_u64..3), option::of("[xy]"), option::of(0_u32..5))
        .prop_map(|(stack, thread, tenant, slice)| One { stack, thread, tenant, slice })
}

fn profile(samples: &[(One, u64)]) -> Profile {
    let mut profile = Profile::default();
    profile.metadata.slice = Some(SLICE);
    for (one, weight) in samples {
        let frames: Vec<_> =
            one.stack.iter().map(|name| profile.intern(Frame::guest(name.as_str()))).collect();
        let thread = one
            .thread
            .map(|id| profile.intern_thread(Thread { id, name: (id == 2).then(|| "worker".into()) }));
        let labels: Labels = one.tenant.iter().map(|tenant| ("tenant", tenant.as_str())).collect();
        let origin = Origin { thread, labels: profile.intern_labels(labels), slice: one.slice };
        profile.add_from(&frames, origin, Tally { samples: 1, weight: *weight }).unwrap();
    }
    profile
}

/// What a profile holds, by all that filters look at.
fn content(profile: &Profile) -> BTreeMap<One, Tally> {
    let names = Names::new(profile);
    let mut content: BTreeMap<One, Tally> = BTreeMap::new();
    for sample in profile.samples() {
        let labels = profile.labels(sample.origin.labels);
        let one = One {
            stack: profile.stack(sample.stack).frames.iter().map(|&id| names.of(id).to_owned()).collect(),
            thread: sample.origin.thread.map(|id| profile.thread(id).id),
            tenant: labels.get("tenant").map(str::to_owned),
            slice: sample.origin.slice,
        };
        let entry = content.entry(one).or_default();
        *entry = entry.checked_add(sample.tally).unwrap();
    }
    content
}

fn filter(change: impl FnOnce(&mut Filter)) -> Filter {
    let mut filter = Filter::default();
    change(&mut filter);
    filter
}

proptest! {
    #[test]
    fn what_is_left_is_what_each_sample_says(
        samples in vec((one(), 1_u64..100), 1..40),
        thread in option::of(0_u64..3),
        tenants in vec("[xy]", 0..3),
        (from, to) in (option::of(0_u64..30), option::of(30_u64..60)),
        focus in vec("[abx]", 0..3),
        ignore in vec("[bcx]", 0..2),
        collapse in any::<bool>(),
    ) {
        let whole = profile(&samples);
        let filter = filter(|filter| {
            // By name where there is one.
            filter.threads = thread.iter().map(|id| if *id == 2 { "worker".into() } else { id.to_string() }).collect();
            filter.labels = tenants.iter().map(|tenant| ("tenant".into(), tenant.clone())).collect();
            filter.from = from.map(Duration::from_millis);
            filter.to = to.map(Duration::from_millis);
            filter.focus = focus.iter().map(|text| text.parse().unwrap()).collect();
            filter.ignore = ignore.iter().map(|text| text.parse().unwrap()).collect();
            filter.collapse_recursion = collapse;
        });

        let mut expected: BTreeMap<One, Tally> = BTreeMap::new();
        for (one, weight) in &samples {
            let start = one.slice.map(|slice| u64::from(slice) * 10);
            let has = |text: &String| one.stack.iter().any(|name| name.contains(text.as_str()));
            if thread.is_some_and(|thread| one.thread != Some(thread))
                || (!tenants.is_empty() && !one.tenant.as_ref().is_some_and(|own| tenants.contains(own)))
                || from.is_some_and(|from| start.is_none_or(|start| start < from))
                || to.is_some_and(|to| start.is_none_or(|start| start >= to))
                || !focus.iter().all(has)
                || ignore.iter().any(has)
            {
                continue;
            }
            let mut one = one.clone();
            if collapse {
                one.stack.dedup();
            }
            let entry = expected.entry(one).or_default();
            *entry = entry.checked_add(Tally { samples: 1, weight: *weight }).unwrap();
        }
        match filter.apply(&whole) {
            Ok(left) => {
                prop_assert_eq!(&content(&left), &expected);
                prop_assert_eq!(left.metadata.notices.len(), usize::from(!filter.is_empty()));
                prop_assert_eq!(left.metadata.statistics.check(), Ok(()));
            }
            // Only for what the profile does not have at all.
            Err(FilterError::UnknownThread { .. } | FilterError::UnknownLabel { .. } | FilterError::NoTimes) => {
                prop_assert!(expected.is_empty() || tenants.len() > 1);
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Two ranges that meet are the whole.
    #[test]
    fn ranges_of_time_divide_a_profile(samples in vec((one(), 1_u64..100), 1..40), at in 1_u64..60) {
        let mut samples = samples;
        samples.iter_mut().for_each(|(one, _)| one.slice = Some(one.slice.unwrap_or_default()));
        let whole = profile(&samples);
        let at = Some(Duration::from_millis(at));
        let before = filter(|filter| filter.to = at).apply(&whole).unwrap();
        let after = filter(|filter| filter.from = at).apply(&whole).unwrap();
        prop_assert_eq!(content(&merge(&[before, after]).unwrap()), content(&whole));
    }
}

fn small() -> Profile {
    let one = |stack: &[&str], thread| One {
        stack: stack.iter().map(|&name| name.to_owned()).collect(),
        thread: Some(thread),
        tenant: Some("x".into()),
        slice: Some(1),
    };
    profile(&[(one(&["main", "fib", "fib", "fib"], 1), 30), (one(&["main", "other"], 2), 10)])
}

#[test]
fn the_notice_and_the_statistics_say_what_is_left() {
    let mut whole = small();
    whole.metadata.statistics.lost.insert("ring full".into(), Tally { samples: 1_500, weight: 9 });
    whole.metadata.statistics.outside = Tally { samples: 7, weight: 7 };
    let left = filter(|filter| {
        filter.threads = vec!["worker".into()];
        filter.focus = vec!["^oth".parse().unwrap()];
    })
    .apply(&whole)
    .unwrap();
    assert_eq!(
        left.metadata.notices,
        [
            "filtered by thread worker, focus `^oth`: 25.00% of the weight is left, 1 of 2 samples; of the whole profile, \
          1,500 were lost besides"
        ]
    );
    let statistics = &left.metadata.statistics;
    assert_eq!((statistics.ticks, statistics.delivered), (left.total(), Tally { samples: 1, weight: 10 }));
    assert_eq!(statistics.total_lost(), Tally::default());
    // Nothing of what was dropped is left.
    assert_eq!((left.frames().len(), left.threads().len()), (2, 1));

    let collapsed = filter(|filter| filter.collapse_recursion = true).apply(&whole).unwrap();
    assert_eq!(collapsed.metadata.statistics, whole.metadata.statistics);
    assert_eq!(collapsed.metadata.notices, ["filtered by collapsed recursion"]);
}

#[test]
fn a_collapsed_frame_is_in_the_place_of_the_youngest() {
    let mut whole = Profile::default();
    let frames = [(1, false), (2, true), (3, true)].map(|(offset, inlined)| {
        whole.intern(Frame { bytecode_offset: Some(offset), inlined, ..Frame::guest("f") })
    });
    let stack = whole.add(&frames, Tally { samples: 1, weight: 1 }).unwrap();
    let headroom = Headroom { deepest_use: 5, least_left: 6 };
    whole.note_headroom(stack, headroom);
    let left = filter(|filter| filter.collapse_recursion = true).apply(&whole).unwrap();
    let expected = Frame { bytecode_offset: Some(3), ..Frame::guest("f") };
    assert_eq!(left.frames().map(|(_, frame)| frame).collect::<Vec<_>>(), [&expected]);
    assert_eq!(left.stacks().next().unwrap().headroom, Some(headroom));
}

#[test]
fn what_a_profile_does_not_have_is_said() {
    let whole = small();
    let said = |change: &dyn Fn(&mut Filter)| filter(change).apply(&whole).unwrap_err().to_string();
    assert_eq!(
        said(&|filter| filter.threads = vec!["3".into()]),
        "the profile has no thread `3`; its threads are 1, 2 (worker)"
    );
    assert_eq!(
        said(&|filter| filter.labels = vec![("tenant".into(), "z".into())]),
        "the profile has no samples with the label `tenant=z`; it has tenant=x"
    );
    assert_eq!(
        said(&|filter| filter.labels = vec![("user".into(), "z".into())]),
        "the profile has no samples with the label `user=z`; it has tenant"
    );
    let range = |filter: &mut Filter| {
        (filter.from, filter.to) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(2)));
    };
    assert_eq!(said(&range), "the time range from 2.00 s to 2.00 s is empty");

    let mut timeless = whole.clone();
    timeless.metadata.slice = None;
    let from = filter(|filter| filter.from = Some(Duration::ZERO));
    assert!(matches!(from.apply(&timeless), Err(FilterError::NoTimes)));
    let pattern = "a(".parse::<flamewalk_flamegraphs::Pattern>().unwrap_err().to_string();
    assert!(pattern.starts_with("`a(` is not a regular expression: "), "{pattern}");
}

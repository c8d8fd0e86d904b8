//! Merging against sums that are made by hand.

use std::time::{Duration, SystemTime};

use flamewalk_flamegraphs::{MergeError, merge};
use flamewalk_profile::{
    EndReason, Event, Frame, Headroom, Labels, Origin, Profile, ProfileError, Tally, Thread,
};

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A profile of `main` and one more function, with samples in the given slices.
fn profile(start: Option<Duration>, slice: Duration, function: &str, slices: &[u32]) -> Profile {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    profile.metadata.start = start.map(|start| START + start);
    profile.metadata.slice = Some(slice);
    profile.metadata.duration = Some(milliseconds(500));
    profile.metadata.guest = Some("guest.wasm".into());
    profile.metadata.end = Some(EndReason::Finished);
    // Interned first, so that ids differ between profiles.
    let other = profile.intern(Frame::guest(function));
    let main = profile.intern(Frame::guest("main"));
    let thread = Some(profile.intern_thread(Thread { id: 7, name: None }));
    let labels: Labels = [("function", function.to_owned())].into_iter().collect();
    let labels = profile.intern_labels(labels);
    for &slice in slices {
        let origin = Origin { thread, labels, slice: Some(slice) };
        let stack = profile.add_from(&[main, other], origin, Tally { samples: 1, weight: 10 }).unwrap();
        let headroom =
            Headroom { deepest_use: u64::from(slice), least_left: 100_u64.saturating_sub(u64::from(slice)) };
        profile.note_headroom(stack, headroom);
    }
    profile.metadata.statistics.ticks = Tally { samples: 2 + slices.len() as u64, weight: 0 };
    profile.metadata.statistics.lost.insert("ring full".into(), Tally { samples: 2, weight: 0 });
    profile
}

fn slices(profile: &Profile) -> Vec<(Option<u32>, u64)> {
    let mut slices: Vec<_> =
        profile.samples().map(|sample| (sample.origin.slice, sample.tally.weight)).collect();
    slices.sort_unstable();
    slices
}

#[test]
fn stacks_add_up_and_slices_go_where_they_were() {
    // The second started 25 ms earlier, with slices four times as long.
    let late = profile(Some(milliseconds(1025)), milliseconds(5), "a", &[0, 1, 3]);
    let early = profile(Some(milliseconds(1000)), milliseconds(20), "a", &[0, 1, 2]);
    let merged = merge(&[late.clone(), early.clone()]).unwrap();
    assert_eq!(merged.metadata.slice, Some(milliseconds(20)));
    assert_eq!(merged.metadata.start, early.metadata.start);
    // At 25, 30 and 40 ms; and at 0, 20 and 40 ms.
    assert_eq!(slices(&merged), [(Some(0), 10), (Some(1), 30), (Some(2), 20)]);
    assert_eq!((merged.stacks().len(), merged.threads().len(), merged.label_sets().len()), (1, 1, 2));
    assert_eq!(merged.total(), Tally { samples: 6, weight: 60 });
    let stack = merged.stacks().next().unwrap();
    assert_eq!(stack.tally, merged.total());
    assert_eq!(stack.headroom, Some(Headroom { deepest_use: 3, least_left: 97 }));

    let metadata = &merged.metadata;
    assert_eq!(metadata.duration, Some(milliseconds(1000)));
    assert_eq!(metadata.guest.as_deref(), Some("guest.wasm"));
    assert_eq!(metadata.end, Some(EndReason::Finished));
    assert_eq!(metadata.notices, ["merged from 2 profiles"]);
    assert_eq!(metadata.statistics.ticks, Tally { samples: 10, weight: 0 });
    assert_eq!(metadata.statistics.total_lost(), Tally { samples: 4, weight: 0 });

    assert_eq!(slices(&merge(std::slice::from_ref(&late)).unwrap()), slices(&late));
}

#[test]
fn what_profiles_do_not_agree_about_is_unknown() {
    let one = profile(None, milliseconds(1), "a", &[4]);
    let mut other = profile(None, milliseconds(1), "b", &[4]);
    other.metadata.guest = Some("other.wasm".into());
    other.metadata.end = Some(EndReason::Interrupted);
    other.metadata.duration = None;
    other.metadata.engine = Some("perf cpu-clock".into());
    other.metadata.notices = vec!["no names".into()];
    let mut third = other.clone();
    third.metadata.slice = None;
    let merged = merge(&[one, other, third]).unwrap();
    let metadata = &merged.metadata;
    assert_eq!((&metadata.guest, &metadata.end, metadata.duration), (&None, &None, None));
    assert_eq!(metadata.engine, None);
    assert_eq!(metadata.notices, ["merged from 3 profiles", "no names"]);
    // A profile without a length of its slices has no times.
    assert_eq!(slices(&merged), [(None, 10), (Some(4), 10), (Some(4), 10)]);
    assert_eq!(merged.stacks().len(), 2);
}

#[test]
fn profiles_that_are_years_apart_get_longer_slices() {
    let early = profile(Some(Duration::ZERO), milliseconds(1), "a", &[0]);
    let late = profile(Some(Duration::from_secs(3 * 365 * 24 * 3600)), milliseconds(1), "a", &[1]);
    let merged = merge(&[early, late]).unwrap();
    let [(Some(0), 10), (Some(last), 10)] = *slices(&merged) else { panic!("{:?}", slices(&merged)) };
    assert!((1 << 19..1 << 20).contains(&last), "{last}");
    let hostile = profile(None, Duration::MAX, "a", &[u32::MAX]);
    assert_eq!(slices(&merge(&[hostile.clone(), hostile]).unwrap()), [(None, 20)]);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    assert!(matches!(merge(&[]), Err(MergeError::Nothing)));
    let one = profile(None, milliseconds(1), "a", &[4]);
    let mut other = one.clone();
    other.metadata.event = Event::count("page-faults");
    let error = merge(&[one.clone(), one.clone(), other]).unwrap_err().to_string();
    assert_eq!(error, "profile 3 is of `page-faults`, a count, and the first one of `cpu`, time");

    let mut huge = Profile::new(one.metadata.clone());
    let main = huge.intern(Frame::guest("main"));
    huge.add(&[main], Tally { samples: 1, weight: u64::MAX - 5 }).unwrap();
    let error = merge(&[one, huge]).unwrap_err();
    assert!(matches!(error, MergeError::Profile(ProfileError::Overflow { what: "weight", .. })), "{error}");
}

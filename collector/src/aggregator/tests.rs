//! The aggregate against a list of all samples.

use std::collections::BTreeMap;

use flamewalk_handler::record::Header;
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Labels, Metadata, Profile};
use flamewalk_symbolizer::{HostObject, HostSymbolizer};
use proptest::prelude::*;

use super::*;
use crate::labels::LabelTable;
use crate::symbols::{self, Taken};

const START: u64 = 1 << 40;

/// One sample on a stack of the host's code, which needs no image.
#[derive(Clone, Debug)]
struct One {
    /// Youngest first.
    stack: Vec<usize>,
    thread: u64,
    tenant: usize,
    /// Since the start, in nanoseconds.
    time: u64,
    weight: u64,
    room: u32,
}

const TENANTS: [&str; 3] = ["a", "b", "c"];

fn tenant(index: usize) -> Labels {
    [("tenant", TENANTS[index]), ("kind", "test")].into_iter().collect()
}

fn thread(number: u64) -> Thread {
    Thread { id: number, name: Some(format!("worker {number}").into()) }
}

fn words(one: &One, labels: &LabelTable) -> Vec<u64> {
    let header = Header {
        ticks: 1,
        end: WalkEnd::EntryTrampoline,
        weight: one.weight,
        time: START + one.time,
        generation: 1,
        labels: labels.intern(tenant(one.tenant)),
        stack_used: 1000 - one.room,
        stack_left: one.room,
    };
    let frames = one.stack.iter().enumerate().map(|(index, address)| match index {
        0 => Frame::HostInstruction(*address),
        _ => Frame::HostReturnAddress(*address + 1),
    });
    header.encode(one.stack.len()).into_iter().chain(frames.map(Frame::encode)).collect()
}

struct Aggregated {
    aggregator: Aggregator,
    labels: LabelTable,
    registry: CodeRegistry,
}

impl Aggregated {
    fn new(options: &Options) -> Self {
        let aggregator = Aggregator::new(options, START);
        Self { aggregator, labels: LabelTable::default(), registry: CodeRegistry::default() }
    }

    fn add(&mut self, one: &One) {
        let words = words(one, &self.labels);
        let sample = Sample::decode(&words).unwrap();
        self.aggregator.add(&sample, one.thread, &thread(one.thread), &self.registry);
    }

    fn of(samples: &[One], options: &Options) -> Self {
        let mut all = Self::new(options);
        samples.iter().for_each(|one| all.add(one));
        all
    }

    fn profile(&self, only: Option<&Labels>) -> (Profile, Taken) {
        let object = HostObject {
            name: "host".into(),
            path: None,
            bias: 0,
            code: std::iter::once(0..1 << 40).collect(),
            build_id: None,
        };
        let mut host = HostSymbolizer::new(vec![object]);
        let mut profile = Profile::new(Metadata::default());
        let taken = symbols::add_stacks(
            &self.aggregator,
            &self.registry,
            &self.labels,
            &mut host,
            only,
            &mut profile,
        );
        (profile, taken.unwrap())
    }
}

fn options(max_stack_bytes: usize, max_sums: usize) -> Options {
    Options { drain_interval: None, max_stack_bytes, max_sums }
}

fn stack_of(one: &One) -> String {
    let names: Vec<String> = one.stack.iter().rev().map(|address| format!("host+{address:#x}")).collect();
    names.join(";")
}

type Rows = BTreeMap<(String, Option<u64>, Option<String>, Option<u32>), (u64, u64)>;

/// Stack, thread, tenant and slice of everything in a profile.
fn rows(profile: &Profile) -> Rows {
    let mut rows = Rows::new();
    for sample in profile.samples() {
        let frames = profile.stack(sample.stack).frames;
        let stack: Vec<&str> = frames.iter().map(|frame| profile.frame(*frame).name.as_ref()).collect();
        let thread = sample.origin.thread.map(|id| profile.thread(id).id);
        let tenant = profile.labels(sample.origin.labels).get("tenant").map(str::to_owned);
        let row = rows.entry((stack.join(";"), thread, tenant, sample.origin.slice)).or_default();
        *row = (row.0 + sample.tally.samples, row.1 + sample.tally.weight);
    }
    rows
}

fn expected<'s>(samples: impl IntoIterator<Item = &'s One>, slice_length: u64) -> Rows {
    let mut rows = Rows::new();
    for one in samples {
        let slice = u32::try_from(one.time / slice_length).unwrap();
        let tenant = TENANTS[one.tenant].to_owned();
        let row = rows.entry((stack_of(one), Some(one.thread), Some(tenant), Some(slice))).or_default();
        *row = (row.0 + 1, row.1 + one.weight);
    }
    rows
}

prop_compose! {
    fn one()(
        stack in prop::collection::vec(1usize..4, 1..4),
        thread in 0u64..3,
        tenant in 0..TENANTS.len(),
        time in 0u64..1 << 36,
        weight in 1u64..100,
        room in 0u32..1000,
    ) -> One {
        One { stack, thread, tenant, time, weight, room }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_while_slices_double(
        samples in prop::collection::vec(one(), 1..200),
        max_sums in 1usize..300,
    ) {
        let all = Aggregated::of(&samples, &options(usize::MAX, max_sums));
        let (profile, _) = all.profile(None);
        let length = all.aggregator.slices.length();
        prop_assert_eq!(rows(&profile), expected(&samples, length));
        // No longer than they have to be.
        if length > 1_000_000 {
            prop_assert!(expected(&samples, length / 2).len() > max_sums);
        }
        if samples.iter().any(|one| one.time >= length) {
            prop_assert!(all.aggregator.sums.len() <= max_sums);
        }

        let room = samples.iter().map(|one| u64::from(one.room)).min();
        let least = profile.stacks().filter_map(|stack| Some(stack.headroom?.least_left)).min();
        prop_assert_eq!(least, room);
    }

    /// A profile of one tenant is the profile of a run without the others.
    #[test]
    fn a_tenant_sees_nothing_of_others(samples in prop::collection::vec(one(), 1..200), wanted in 0..TENANTS.len()) {
        let limits = options(usize::MAX, usize::MAX);
        let all = Aggregated::of(&samples, &limits);
        let only = [("tenant", TENANTS[wanted])].into_iter().collect();
        let (profile, _) = all.profile(Some(&only));
        let of_tenant: Vec<One> = samples.iter().filter(|one| one.tenant == wanted).cloned().collect();
        let (alone, _) = Aggregated::of(&of_tenant, &limits).profile(None);
        prop_assert!(profile.frames().eq(alone.frames()));
        prop_assert!(profile.stacks().eq(alone.stacks()));
        prop_assert!(profile.samples().eq(alone.samples()));
        prop_assert!(profile.threads().eq(alone.threads()));
        prop_assert!(profile.label_sets().eq(alone.label_sets()));
    }

    /// Whatever is merged: sums for each tenant are exact, and so are those of the youngest frames that are left.
    #[test]
    fn the_rarest_are_merged_when_memory_is_used_up(
        samples in prop::collection::vec((prop::collection::vec(1usize..20, 1..40), one()), 1..300),
        max_bytes in 0usize..200_000,
    ) {
        let samples: Vec<One> = samples.into_iter().map(|(stack, one)| One { stack, ..one }).collect();
        let mut all = Aggregated::new(&options(max_bytes, 1 << 16));
        for one in &samples {
            all.add(one);
            // What cannot be let go of: a sum for each tenant, three threads, and the sample that was just added.
            prop_assert!(all.aggregator.bytes() <= max_bytes.max(12_000) + 1_000);
        }
        let (profile, taken) = all.profile(None);
        let count = samples.len() as u64;
        let weight: u64 = samples.iter().map(|one| one.weight).sum();
        prop_assert_eq!(profile.total(), Tally { samples: count, weight });
        prop_assert_eq!(all.aggregator.delivered(), profile.total());
        let merged: u64 = profile
            .stacks()
            .filter(|stack| profile.frame(stack.frames[0]).kind == flamewalk_profile::FrameKind::Truncated)
            .map(|stack| stack.tally.samples)
            .sum();
        prop_assert_eq!(taken.merged.samples, merged);

        let mut by_tenant: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, _, tenant, _), (_, weight)) in rows(&profile) {
            *by_tenant.entry(tenant.unwrap()).or_default() += weight;
        }
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for one in &samples {
            *expected.entry(TENANTS[one.tenant].to_owned()).or_default() += one.weight;
        }
        prop_assert_eq!(by_tenant, expected);
        let is_whole = |stack: &str| samples.iter().any(|one| stack_of(one) == stack);
        for ((stack, ..), _) in rows(&profile) {
            let cut = stack.strip_prefix(';').map(|youngest| samples.iter().any(|one| stack_of(one).ends_with(youngest)));
            prop_assert!(stack.is_empty() || cut.unwrap_or_else(|| is_whole(&stack)), "{}", stack);
        }
    }
}

/// What is sampled most is kept as it is, however many rare stacks come along.
#[test]
fn the_hottest_stack_survives() {
    let bound = 200_000;
    let mut all = Aggregated::new(&options(bound, 1 << 16));
    let rare = |index: usize| One {
        stack: (0..40).map(|depth| 1_000 + index * 40 + depth).collect(),
        thread: 1,
        tenant: 1,
        time: index as u64,
        weight: 1,
        room: 5,
    };
    let hot = One { stack: vec![1, 2, 3], thread: 0, tenant: 0, time: 0, weight: 1, room: 5 };
    let rounds = 5_000;
    for index in 0..rounds {
        all.add(&hot);
        all.add(&rare(index));
        assert!(all.aggregator.bytes() <= bound, "{}", all.aggregator.bytes());
    }
    let (profile, taken) = all.profile(None);
    let kept = rows(&profile);
    let of_hot: u64 = kept.iter().filter(|row| row.0.0 == stack_of(&hot)).map(|row| row.1.0).sum();
    assert_eq!(of_hot, rounds as u64);
    assert!(taken.merged.samples > rounds as u64 / 2, "{taken:?}");
    let notices: Vec<String> = taken.about_memory(profile.total(), bound).collect();
    assert!(notices.len() == 1 && notices[0].contains("cut to their youngest frames"), "{notices:?}");
}

/// A pool that starts and ends threads: where samples come from is let go of before what they are.
#[test]
fn threads_without_end_take_no_stack_with_them() {
    let bound = 100_000;
    let mut all = Aggregated::new(&options(bound, 1 << 16));
    let threads = 20_000;
    for thread in 0..threads {
        all.add(&One { stack: vec![1, 2, 3], thread, tenant: 0, time: 0, weight: 1, room: 5 });
        assert!(all.aggregator.bytes() <= bound, "{}", all.aggregator.bytes());
    }
    let (profile, taken) = all.profile(None);
    assert_eq!(profile.stacks().len(), 1);
    assert_eq!(profile.total().samples, threads);
    assert_eq!(taken.merged, Tally::default());
    assert!(taken.without_origin.samples > threads / 2, "{taken:?}");
    let notices: Vec<String> = taken.about_memory(profile.total(), bound).collect();
    assert!(notices.len() == 1 && notices[0].contains("thread and time"), "{notices:?}");
}

/// In an hour, in a day, in a year: as many sums as in a minute.
#[test]
fn a_run_of_any_length_fits() {
    let mut all = Aggregated::new(&options(usize::MAX, 1_000));
    for second in 0..100_000u64 {
        let time = second * 300 * 1_000_000_000;
        all.add(&One { stack: vec![1], thread: 0, tenant: 0, time, weight: 1, room: 5 });
        assert!(all.aggregator.sums.len() <= 1_000);
    }
    assert!(all.aggregator.sums.len() > 400);
    assert_eq!(all.profile(None).0.total().samples, 100_000);
}

//! A collector, its thread and all, against a count of everything that was written into the rings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use flamewalk_collector::{Channel, Collector, Extent, LabelTable, Options, Sampling, Window};
use flamewalk_handler::record::{Frame, Header};
use flamewalk_handler::statistics::{Fate, LossCause};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Labels, Metadata, Profile, Statistics, Tally};
use flamewalk_symbolizer::registry::CodeRegistry;
use flamewalk_symbolizer::{HostObject, HostSymbolizer};
use proptest::prelude::*;

struct Rig {
    labels: Arc<LabelTable>,
    collector: Arc<Collector>,
    window: Window,
}

impl Rig {
    fn new() -> Self {
        let labels = Arc::new(LabelTable::default());
        let object = HostObject {
            name: "host".into(),
            path: None,
            bias: 0,
            code: std::iter::once(0..1 << 40).collect(),
            build_id: None,
        };
        let mut options = Options::default();
        // Drained when something is asked for.
        options.drain_interval = Some(Duration::from_secs(3_600));
        let registry = Arc::new(CodeRegistry::default());
        let host = HostSymbolizer::new(vec![object]);
        let collector = Arc::new(Collector::start(registry, Arc::clone(&labels), host, &options).unwrap());
        let window = collector.open().unwrap();
        Self { labels, collector, window }
    }

    fn thread(&self) -> Arc<Channel> {
        self.thread_with(|| {})
    }

    fn thread_with(&self, on_drain: impl Fn() + Send + Sync + 'static) -> Arc<Channel> {
        let channel = Arc::new(Channel::new(1 << 12, std::process::id().cast_signed(), on_drain));
        self.collector.add(Arc::clone(&channel));
        channel
    }

    fn profile(&self, sampling: Sampling, extent: Extent) -> Profile {
        profile(&self.window, sampling, extent)
    }
}

fn profile(window: &Window, sampling: Sampling, extent: Extent) -> Profile {
    let profile = window.snapshot(|_| Metadata::default(), sampling, extent).unwrap().unwrap();
    profile.metadata.statistics.check().unwrap();
    assert_eq!(profile.metadata.statistics.delivered, profile.total());
    profile
}

/// What a handler does.
fn tick(channel: &Channel, fate: Fate, address: usize, labels: u64, weight: u64) {
    if fate == Fate::Delivered {
        let header = Header {
            ticks: 1,
            end: WalkEnd::EntryTrampoline,
            weight,
            time: u64::MAX / 2,
            generation: 0,
            labels,
            stack_used: u32::MAX,
            stack_left: u32::MAX,
        };
        let mut record = channel.ring.begin();
        for word in header.encode(1).into_iter().chain([Frame::HostInstruction(address).encode()]) {
            record.push(word).unwrap();
        }
        record.commit();
    }
    channel.counters.count(fate, 1, weight);
}

/// Who writes outside of a signal handler asks for it when a ring is half full.
#[test]
fn rings_are_drained_soon_if_asked_for() {
    let rig = Rig::new();
    let (drained, has_drained) = mpsc::channel();
    let thread = rig.thread_with(move || _ = drained.send(()));
    assert!(!thread.ring.is_half_full());
    while !thread.ring.is_half_full() {
        tick(&thread, Fate::Delivered, 1, 0, 1);
    }
    rig.collector.drain_soon();
    // It would be in an hour otherwise.
    has_drained.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[derive(Clone, Debug)]
enum Action {
    Tick {
        thread: usize,
        fate: usize,
        address: usize,
        weight: u64,
    },
    EndThread {
        thread: usize,
    },
    Take,
    Look,
    /// Opens a second window, or closes the one that is open.
    Beside,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (0usize..3, 0usize..4, 1usize..5, 1u64..100)
            .prop_map(|(thread, fate, address, weight)| Action::Tick { thread, fate, address, weight }),
        1 => (0usize..3).prop_map(|thread| Action::EndThread { thread }),
        1 => Just(Action::Take),
        1 => Just(Action::Look),
        1 => Just(Action::Beside),
    ]
}

const FATES: [Fate; 4] =
    [Fate::Delivered, Fate::Outside, Fate::Lost(LossCause::RingFull), Fate::Lost(LossCause::UnknownCode)];

fn add(sum: &mut Tally, more: Tally) {
    *sum = sum.checked_add(more).unwrap();
}

/// By what is told: ticks, delivered and outside, each cause of loss, and each function.
fn told(sums: &mut BTreeMap<String, Tally>, profile: &Profile) {
    let Statistics { ticks, delivered, outside, lost, .. } = &profile.metadata.statistics;
    for (name, tally) in [("ticks", ticks), ("delivered", delivered), ("outside", outside)] {
        add(sums.entry(name.to_owned()).or_default(), *tally);
    }
    for (cause, tally) in lost {
        add(sums.entry(cause.to_string()).or_default(), *tally);
    }
    for stack in profile.stacks() {
        add(sums.entry(profile.frame(stack.frames[0]).name.to_string()).or_default(), stack.tally);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Threads come and go and profiles are taken in between: each tick is in exactly one of the profiles, and what is
    /// in a window beside them is what fell between its opening and its closing.
    #[test]
    fn taken_profiles_share_all_ticks_among_them(actions in prop::collection::vec(action(), 0..200)) {
        let rig = Rig::new();
        let mut threads: Vec<_> = (0..3).map(|_| rig.thread()).collect();
        let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
        for name in ["ticks", "delivered", "outside"] {
            expected.insert(name.to_owned(), Tally::default());
        }
        let mut beside: Option<(Window, BTreeMap<String, Tally>)> = None;
        for action in actions {
            match action {
                Action::Tick { thread, fate, address, weight } => {
                    let fate = FATES[fate];
                    tick(&threads[thread], fate, address, 0, weight);
                    let one = Tally { samples: 1, weight };
                    let mut count = |name: &str| {
                        add(expected.entry(name.to_owned()).or_default(), one);
                        if let Some((_, expected)) = &mut beside {
                            add(expected.entry(name.to_owned()).or_default(), one);
                        }
                    };
                    count("ticks");
                    match fate {
                        Fate::Delivered => {
                            count("delivered");
                            count(&format!("host+{address:#x}"));
                        }
                        Fate::Outside => count("outside"),
                        Fate::Lost(cause) => count(cause.describe()),
                    }
                }
                Action::EndThread { thread } => threads[thread] = rig.thread(),
                Action::Take => told(&mut found, &rig.profile(Sampling::Ongoing, Extent::Rest)),
                Action::Look => {
                    rig.window.statistics().unwrap().check().unwrap();
                    let look = rig.profile(Sampling::Ongoing, Extent::All);
                    prop_assert_eq!(look.metadata.statistics, rig.window.statistics().unwrap());
                }
                Action::Beside => match beside.take() {
                    None => {
                        let none = ["ticks", "delivered", "outside"].map(|name| (name.to_owned(), Tally::default()));
                        beside = Some((rig.collector.open().unwrap(), none.into()));
                    }
                    Some((window, expected)) => {
                        // Nothing moves on while this is looked at, so that both have to say the same.
                        for sampling in [Sampling::Ongoing, Sampling::Ended] {
                            let mut found = BTreeMap::new();
                            told(&mut found, &profile(&window, sampling, Extent::All));
                            prop_assert_eq!(&found, &expected);
                        }
                    }
                },
            }
        }
        told(&mut found, &rig.profile(Sampling::Ended, Extent::All));
        prop_assert_eq!(found, expected);
    }
}

/// A pool that starts and ends threads all day.
#[test]
fn channels_of_ended_threads_are_drained_and_freed() {
    let rig = Rig::new();
    // Every channel holds it.
    let held = Arc::new(());
    for _ in 0..100 {
        let hold = Arc::clone(&held);
        let channel = rig.thread_with(move || _ = Arc::strong_count(&hold));
        tick(&channel, Fate::Delivered, 1, 0, 10);
        tick(&channel, Fate::Outside, 1, 0, 1);
    }
    let running = rig.thread();
    tick(&running, Fate::Delivered, 1, 0, 10);
    assert_eq!(rig.window.statistics().unwrap().delivered, Tally { samples: 101, weight: 1_010 });
    assert_eq!(Arc::strong_count(&held), 1);
    tick(&running, Fate::Delivered, 1, 0, 10);
    let profile = rig.profile(Sampling::Ended, Extent::All);
    assert_eq!(profile.total(), Tally { samples: 102, weight: 1_020 });
    assert_eq!(profile.metadata.statistics.outside, Tally { samples: 100, weight: 100 });
}

/// How long a profile was of was taken before the rings were drained: on a machine where the collector's thread had to
/// wait for its turn, there was more time in the samples than in the profile.
#[test]
fn metadata_is_made_when_all_rings_are_drained() {
    let rig = Rig::new();
    let is_drained = Arc::new(AtomicBool::new(false));
    let drained = Arc::clone(&is_drained);
    let channel = rig.thread_with(move || drained.store(true, Ordering::Relaxed));
    tick(&channel, Fate::Delivered, 1, 0, 10);
    let seen = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&seen);
    let describe = move |_| {
        sees.store(is_drained.load(Ordering::Relaxed), Ordering::Relaxed);
        Metadata::default()
    };
    let profile = rig.window.snapshot(describe, Sampling::Ongoing, Extent::All).unwrap().unwrap();
    assert_eq!(profile.total(), Tally { samples: 1, weight: 10 });
    assert!(seen.load(Ordering::Relaxed), "the rings were not drained yet");
}

/// Not a name, a thread, a notice or a number of anybody else.
#[test]
fn a_tenants_profile_holds_its_own_only() {
    let rig = Rig::new();
    let tenant = |name: &str| -> Labels { [("tenant", name), ("request", "1")].into_iter().collect() };
    let (ours, theirs) = (rig.labels.intern(tenant("ours")), rig.labels.intern(tenant("theirs")));
    // Others' labels are too long, which is told in everybody's profile.
    rig.labels.intern([("tenant", "x".repeat(1 << 20))].into_iter().collect());
    let channel = rig.thread();
    tick(&channel, Fate::Delivered, 1, ours, 10);
    tick(&channel, Fate::Delivered, 2, theirs, 20);
    tick(&channel, Fate::Delivered, 3, 0, 30);
    tick(&channel, Fate::Outside, 0, 0, 40);
    tick(&channel, Fate::Lost(LossCause::RingFull), 0, 0, 50);

    let only: Labels = [("tenant", "ours")].into_iter().collect();
    let profile = rig.profile(Sampling::Ongoing, Extent::Labelled(only));
    let own = Tally { samples: 1, weight: 10 };
    assert_eq!(profile.total(), own);
    let mut expected = Statistics::default();
    (expected.ticks, expected.delivered) = (own, own);
    assert_eq!(profile.metadata.statistics, expected);
    assert_eq!(profile.metadata.notices, Vec::<String>::new());
    assert_eq!(profile.frames().map(|(_, frame)| frame.name.to_string()).collect::<Vec<_>>(), ["host+0x1"]);
    let labels: Vec<_> = profile.label_sets().map(|(_, labels)| labels.get("tenant")).collect();
    assert_eq!(labels, [None, Some("ours")]);

    let nobody: Labels = [("tenant", "nobody")].into_iter().collect();
    let profile = rig.profile(Sampling::Ongoing, Extent::Labelled(nobody));
    assert!(profile.is_empty() && profile.threads().len() == 0 && profile.frames().len() == 0);

    // Nothing was taken away from the whole.
    let all = rig.profile(Sampling::Ended, Extent::All);
    assert_eq!(all.total(), Tally { samples: 3, weight: 60 });
    assert_eq!(all.metadata.notices.len(), 1);
}

/// A server that labels each request: sets used to be kept for good, so that after 65,536 requests all further ones were
/// one, whatever else their labels said.
#[test]
fn labels_of_requests_without_end_stay_apart() {
    let rig = Rig::new();
    let channel = rig.thread();
    let mut requests = 0..200_000_u32;
    let mut lasting = None;
    while !requests.is_empty() {
        let batch: Vec<u32> = requests.by_ref().take(10_000).collect();
        for request in &batch {
            let labels = [("request", request.to_string()), ("tenant", (request % 3).to_string())];
            let number = rig.labels.intern(labels.into_iter().collect());
            // Few requests are hit by a tick.
            if request % 100 == 0 {
                tick(&channel, Fate::Delivered, 1, number, 1);
            }
            match lasting {
                // One store has its labels all the time, and is hit at the end only.
                None => lasting = Some(number),
                Some(_) => rig.labels.release(number),
            }
        }
        let profile = rig.profile(Sampling::Ongoing, Extent::Rest);
        let seen: Vec<u32> = profile
            .samples()
            .map(|sample| profile.labels(sample.origin.labels))
            .map(|labels| labels.get("request").expect("every sample has one").parse().unwrap())
            .collect();
        assert_eq!(seen, batch.into_iter().step_by(100).collect::<Vec<_>>());
        assert!(profile.metadata.notices.is_empty(), "{:?}", profile.metadata.notices);
    }
    tick(&channel, Fate::Delivered, 1, lasting.unwrap(), 1);
    let last = rig.profile(Sampling::Ended, Extent::All);
    assert_eq!(last.label_sets().last().and_then(|(_, labels)| labels.get("request")), Some("0"));
}

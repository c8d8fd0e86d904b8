//! The bound on memory, against what the allocator has really given out: also while tables grow, and while stacks are
//! merged.
//!
//! A crate of its own, whose allocator counts.

use std::sync::Arc;
use std::time::Duration;

use flamewalk_collector::{Channel, Collector, Extent, LabelTable, Options, Sampling};
use flamewalk_handler::record::{Frame, Header};
use flamewalk_handler::statistics::Fate;
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Metadata, Tally};
use flamewalk_symbolizer::registry::CodeRegistry;
use flamewalk_symbolizer::{HostObject, HostSymbolizer};
use nix::time::{ClockId, clock_gettime};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Of each window.
const BOUND: usize = 1 << 20;
/// What is no table: the record that is read, messages, and the stack of the last sample.
const BESIDES: usize = 96 << 10;
const SAMPLES: u64 = 20_000;
const RING_WORDS: usize = 1 << 16;

/// Takes as many samples as would need many times the bound, and returns the most that was in use meanwhile.
///
/// `stack` gives the addresses of each sample, youngest first. There is one in each millisecond.
fn most_in_use(bound: usize, stack: impl Fn(u64, &mut Vec<usize>)) -> usize {
    let code = std::iter::once(0..1 << 50).collect();
    let object = HostObject { name: "host".into(), path: None, bias: 0, code, build_id: None };
    let mut options = Options::default();
    options.drain_interval = Some(Duration::from_secs(3_600));
    (options.max_stack_bytes, options.max_sums) = (bound, usize::MAX);
    let host = HostSymbolizer::new(vec![object]);
    let (registry, labels) = (Arc::new(CodeRegistry::default()), Arc::new(LabelTable::default()));
    let collector = Arc::new(Collector::start(registry, labels, host, &options).unwrap());
    let window = collector.open().unwrap();
    let channel = Arc::new(Channel::new(RING_WORDS, std::process::id().cast_signed(), || {}));
    collector.add(Arc::clone(&channel));
    let start = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap().as_nanos() as u64;
    let (mut addresses, mut words) = (Vec::new(), Vec::new());
    window.statistics().unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for sample in 0..SAMPLES {
        addresses.clear();
        stack(sample, &mut addresses);
        let header = Header {
            ticks: 1,
            end: WalkEnd::EntryTrampoline,
            weight: 10,
            time: start + sample * 1_000_000,
            generation: 1,
            labels: 0,
            stack_used: 1,
            stack_left: 1,
        };
        words.clear();
        words.extend(header.encode(addresses.len()));
        words.extend(addresses.iter().map(|address| Frame::HostReturnAddress(*address).encode()));
        let mut record = channel.ring.begin();
        record.extend(&words, |word| word).unwrap();
        record.commit();
        channel.counters.count(Fate::Delivered, 1, 10);
        if sample % 50 == 0 {
            window.statistics().unwrap();
        }
    }
    window.statistics().unwrap();
    let most = MEMORY.peak_usage() - before;
    // What it says of itself is no less than what it has: the rings are not part of it.
    let told = window.statistics().unwrap().resources.memory.stacks;
    let has = MEMORY.current_usage() - before;
    assert!(told as usize + BESIDES >= has, "{has} bytes in use, and {told} are told");
    let profile = window.snapshot(|_| Metadata::default(), Sampling::Ended, Extent::All).unwrap().unwrap();
    assert_eq!(profile.total(), Tally { samples: SAMPLES, weight: SAMPLES * 10 });
    assert_eq!(profile.metadata.statistics.total_lost(), Tally::default());
    most
}

/// Numbers that look random, one for each input.
fn scattered(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
}

/// One test, since there is one count of memory.
#[test]
fn no_more_is_in_use_than_was_asked_for() {
    type Shape = fn(u64, &mut Vec<usize>);
    let all_frames: Shape = |sample, stack| stack.extend((0..30).map(|depth| (sample * 30 + depth) as usize));
    let few_frames: Shape =
        |sample, stack| stack.extend((0..60).map(|depth| 1 + scattered(sample * 60 + depth) as usize % 50));
    let steps_of_recursion: Shape = |sample, stack| stack.extend((0..sample as usize % 900).rev());
    let one_stack: Shape = |_, stack| stack.extend([1, 2, 3]);
    let shapes = [
        ("stacks that share nothing", all_frames),
        ("stacks of few frames", few_frames),
        ("steps of a recursion through different functions", steps_of_recursion),
        ("one stack at different times", one_stack),
    ];
    for (what, shape) in shapes {
        for bound in [BOUND / 4, BOUND] {
            let most = most_in_use(bound, shape);
            println!("{what}: {:.1} % of {bound} bytes", most as f64 * 100.0 / bound as f64);
            assert!(most <= bound + BESIDES, "{what}: {most} bytes were in use, of {bound}");
        }
    }
}

//! How long the collector takes for a sample, by how many stacks there are and how deep they are.
//!
//! The floor is to copy the same records out of a ring.

use std::hint::black_box;
use std::time::Duration;

use flamewalk_handler::ring::{Ring, Word};
use flamewalk_measure::{Run, row, work};

use crate::rig::{Random, Rig, collector_time};
use crate::stacks::Sqlite;

const ROUNDS: usize = 31;
const RING_WORDS: usize = 1 << 21;
/// Samples in each round.
const SAMPLES: usize = 5_000;
const PERIOD: Duration = Duration::from_micros(1_003);

/// By the number of stacks, all 24 frames deep, of which a few are seen most often.
pub(crate) fn by_stacks(run: &mut Run, guest: &Sqlite) {
    if !run.section("throughput by stacks, 24 frames deep", HEADS) {
        return;
    }
    for stacks in [1, 100, 1_000, 10_000, 100_000] {
        measure(run, guest, stacks, 24, stacks);
    }
}

/// By depth, with 1,000 stacks.
pub(crate) fn by_depth(run: &mut Run, guest: &Sqlite) {
    if !run.section("throughput by depth, 1,000 stacks", HEADS) {
        return;
    }
    for depth in [1, 8, 24, 64, 256] {
        measure(run, guest, 1_000, depth, depth);
    }
}

const HEADS: &[&str] = &["", "copy ns", "collect ns", "collect / copy", "% at 997 Hz"];

fn measure(run: &mut Run, guest: &Sqlite, stacks: usize, depth: usize, varied: usize) {
    let all = tree(guest, stacks, depth);
    let mut random = Random(1);
    // Of a thousand stacks, the first ten have a third of all samples.
    let drawn: Vec<&[u64]> =
        (0..SAMPLES).map(|_| &*all[(stacks as f64).powf(random.share()) as usize - 1]).collect();
    let mut rig = Rig::new(guest, RING_WORDS);
    let plain = Ring::new((0..RING_WORDS).map(|_| Word::default()).collect::<Box<[Word]>>());
    let mut copied: Vec<u64> = Vec::new();
    let fill_plain = || {
        for stack in &drawn {
            let mut record = plain.begin();
            let length = stack.len() as u64 + 6;
            record.extend(&[length, 0, 0, 0, 0, 0], |word| word).expect("there is room");
            record.extend(stack, |word| word).expect("there is room");
            record.commit();
        }
    };
    let mut round = 0;
    let mut fill = |rig: &mut Rig| {
        for (index, stack) in drawn.iter().enumerate() {
            rig.sample(stack, PERIOD * (round * SAMPLES + index) as u32, 1_003_000);
        }
        round += 1;
    };
    fill_plain();
    fill(&mut rig);
    let rig = std::cell::RefCell::new(rig);
    let copy = work(1, || {
        copied.clear();
        while plain.pop(|word| copied.push(word)) {}
        black_box(copied.len())
    });
    let collect = work(1, || rig.borrow().drain()).clock(collector_time);
    let works = [copy.afterwards(fill_plain), collect.afterwards(|| fill(&mut rig.borrow_mut()))];
    if let Some(medians) = run.measure(ROUNDS, works) {
        let [copy, collect] = medians.map(|nanoseconds| nanoseconds / SAMPLES as f64);
        row(varied, &[copy, collect, collect / copy, collect * 997.0 / 1e7]);
    }
}

/// So many stacks of real frames, youngest first, that share their older frames as the leaves of a tree do.
pub(crate) fn tree(guest: &Sqlite, stacks: usize, depth: usize) -> Vec<Vec<u64>> {
    let callers = guest.callers();
    let stack = |number: usize| {
        let frame = |level: usize| {
            // Two callees for each caller, towards the youngest frames.
            let path = number.checked_shr(level as u32).unwrap_or(0);
            callers[Random((path * 256 + level) as u64).below(callers.len())]
        };
        (0..depth).map(frame).collect()
    };
    (0..stacks).map(stack).collect()
}

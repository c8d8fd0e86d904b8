//! Looking code up, by the number of images that are registered; and registering it, while handlers look it up.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flamewalk_handler::code::{CodeKind, Function};
use flamewalk_handler::registry::{Reader, Registry};
use flamewalk_measure::{Run, row, work};

use crate::stacks::{Guest, Sampler};

const ROUNDS: usize = 101;
const COUNTS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// A small module: its text, and where the next one begins.
const TEXT_BYTES: usize = 4 << 10;
const DISTANCE: usize = 64 << 10;

/// The addresses of other images' code: half of them below any address that a program of this machine can have.
fn others(count: usize) -> Vec<Range<usize>> {
    let texts = |count: usize, first: usize| {
        (0..count).map(move |index| first + index * DISTANCE).map(|start| start..start + TEXT_BYTES)
    };
    texts(count / 2, 1 << 20).chain(texts(count - count / 2, 1 << 60)).collect()
}

/// A look-up in a handler, of code that was looked up before, and of code somewhere in any image; and a whole sample. The
/// goal is that 100,000 images cost less than twice as much as one.
pub(crate) fn look_ups(run: &mut Run) {
    if !run.section("modules registered", &["modules", "look-up ns", "anywhere ns", "24 frames ns"]) {
        return;
    }
    let guest = Guest::new(24, 1);
    let mut rows = Vec::new();
    for count in COUNTS {
        let others = others(count - 1);
        let sampler = Sampler::new(&others);
        let known = others.first().map_or_else(|| guest.code_address(), |text| text.start);
        // No order that a processor could guess.
        let mut number = 1usize;
        let anywhere = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            others.get((number >> 33) % others.len().max(1)).map_or(known, |text| text.start)
        };
        let mut anywhere = anywhere;
        let find = |address: usize| {
            // SAFETY: the reader is registered, and this is the only thread.
            unsafe { sampler.registry.read(&sampler.reader, |table| table.find(address).is_some()) }
        };
        let sample = work(100, || sampler.sample(&guest)).afterwards(|| sampler.drain());
        let works =
            [work(1000, || find(black_box(known))), work(1000, || find(black_box(anywhere()))), sample];
        let medians = run.measure(ROUNDS, works);
        if let Some(medians) = medians {
            row(count, &medians);
        }
        rows.push(medians);
    }
    let growth = |column: usize| {
        let (first, last) = (rows.first().copied()??, rows.last().copied()??);
        Some(last[column] / first[column])
    };
    run.goal("growth of a look-up from 1 to 100,000 modules", growth(0), 2.0);
    run.goal("growth of a sample from 1 to 100,000 modules", growth(2), 2.0);
}

/// Publishing an image and retiring it again, by images registered, without anybody else and while another thread does
/// nothing but look up code. The floor is a copy of a table of as many addresses.
pub(crate) fn publishing(run: &mut Run) {
    if !run.section(
        "publishing and retiring an image",
        &["modules", "memcpy ns", "alone ns", "beside a reader ns", "alone / memcpy"],
    ) {
        return;
    }
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("  not measured: with one processor, no other thread reads at the same time");
        return;
    }
    for count in COUNTS {
        let registry = Registry::default();
        let functions: Arc<[Function]> =
            [Function { start: 0, length: TEXT_BYTES as u32, kind: CodeKind::Guest, frame_size: 0 }].into();
        let publish = |text| registry.publish(text, Arc::clone(&functions)).expect("no overlap");
        others(count).into_iter().for_each(|text| _ = publish(text));
        let text = 1 << 40..(1 << 40) + TEXT_BYTES;
        let cycle = || {
            publish(text.clone());
            registry.retire(text.start)
        };
        let starts: Vec<usize> = (0..count).collect();
        let Some([copy, alone]) =
            run.measure(ROUNDS, [work(10, || black_box(&starts).clone()), work(10, cycle)])
        else {
            continue;
        };
        let reader = Arc::new(Reader::default());
        registry.add_reader(Arc::clone(&reader));
        let is_over = AtomicBool::new(false);
        let beside = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // SAFETY: the reader is registered, and this is the only thread that uses it.
                    unsafe { registry.read(&reader, |table| black_box(table.find(1 << 20).is_some())) };
                }
            });
            let beside = run.measure(ROUNDS, [work(10, cycle)]);
            is_over.store(true, Ordering::Relaxed);
            beside
        });
        let [beside] = beside.unwrap_or([f64::NAN]);
        row(count, &[copy, alone, beside, alone / copy]);
    }
}

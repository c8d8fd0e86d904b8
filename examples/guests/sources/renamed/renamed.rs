//! A guest whose names change from build to build: crate hashes, mangling, closures, generic functions, traits.
//!
//! It runs the same mixed work over and over: words are made up, counted, sorted, and summed in several ways. With
//! `--cfg inserted` there are more functions and closures, in the middle of the others.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{boxed::Box, collections::BTreeMap, format, string::String, vec::Vec};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;

/// Hands out memory from the end of the guest's own; all of it is free again when a round begins.
struct Rounds {
    next: Cell<usize>,
}

const MEMORY: usize = 8 << 20;
#[repr(align(16))]
struct Memory([u8; MEMORY]);
static mut MEMORY_OF_ROUND: Memory = Memory([0; MEMORY]);

// SAFETY: the guest has one thread.
unsafe impl Sync for Rounds {}

// SAFETY: what was handed out is not handed out again before the next round, which uses nothing of the last one.
unsafe impl GlobalAlloc for Rounds {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.next.get().next_multiple_of(layout.align());
        self.next.set(start + layout.size());
        if start + layout.size() > MEMORY { core::arch::wasm32::unreachable() }
        // SAFETY: within the memory.
        unsafe { (&raw mut MEMORY_OF_ROUND).cast::<u8>().add(start) }
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Rounds = Rounds { next: Cell::new(0) };

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

struct Random(u64);

impl Random {
    #[inline(never)]
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

trait Summary {
    fn add(&mut self, word: &str);
    fn result(&self) -> u64;
}

/// A sum over letters, by what a function makes of each.
struct Letters<F> {
    of: F,
    sum: u64,
}

impl<F: Fn(u8) -> u64> Summary for Letters<F> {
    #[inline(never)]
    fn add(&mut self, word: &str) {
        for letter in word.bytes() {
            self.sum = self.sum.rotate_left(5) ^ (self.of)(letter);
        }
    }
    fn result(&self) -> u64 {
        self.sum
    }
}

/// How many words there are of each length.
struct Lengths<const MOST: usize>([u64; MOST]);

impl<const MOST: usize> Summary for Lengths<MOST> {
    #[inline(never)]
    fn add(&mut self, word: &str) {
        self.0[word.len().min(MOST - 1)] += word.chars().filter(|c| c.is_alphabetic()).count() as u64;
    }
    fn result(&self) -> u64 {
        self.0.iter().enumerate().map(|(length, count)| length as u64 * count).sum()
    }
}

mod words {
    use super::*;

    #[inline(never)]
    pub fn make(random: &mut Random) -> String {
        const SYLLABLES: [&str; 8] = ["an", "bel", "cor", "dra", "el", "fin", "gor", "hal"];
        (0..1 + random.below(4)).map(|_| SYLLABLES[random.below(8) as usize]).collect()
    }

    #[cfg(inserted)]
    #[inline(never)]
    pub fn reversed(word: &str) -> String {
        let swap = |c: char| if c == 'a' { 'e' } else { c };
        word.chars().rev().map(swap).collect()
    }

    #[cfg(inserted)]
    #[inline(never)]
    pub fn longest<'w>(words: &[&'w str]) -> Option<&'w str> {
        words.iter().copied().max_by_key(|word| (word.len(), *word))
    }

    #[inline(never)]
    pub fn count(words: &[String]) -> BTreeMap<&str, u32> {
        let mut counts = BTreeMap::new();
        for word in words {
            *counts.entry(word.as_str()).or_insert(0) += 1;
        }
        counts
    }
}

#[inline(never)]
fn sorted_by<K: Ord>(counts: &BTreeMap<&str, u32>, key: impl Fn(&str, u32) -> K) -> Vec<(K, u32)> {
    let mut sorted: Vec<(K, u32)> = counts.iter().map(|(word, &count)| (key(word, count), count)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
}

#[inline(never)]
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[inline(never)]
fn round(random: &mut Random) -> u64 {
    let words: Vec<String> = (0..3_000).map(|_| words::make(random)).collect();
    let counts = words::count(&words);
    #[cfg(inserted)]
    let counts = {
        let all: Vec<&str> = counts.keys().copied().collect();
        let longest = words::longest(&all).map(words::reversed).unwrap_or_default();
        counts.into_iter().filter(|(word, _)| **word != *longest).collect::<BTreeMap<_, _>>()
    };
    let by_count = sorted_by(&counts, |word, count| (u32::MAX - count, word.len()));
    let by_end = sorted_by(&counts, |word, _| word.bytes().rev().fold(0_u64, |sum, b| sum * 7 + u64::from(b)));
    let mut summaries: Vec<Box<dyn Summary>> = Vec::new();
    summaries.push(Box::new(Letters { of: |letter: u8| u64::from(letter).wrapping_mul(31), sum: 1 }));
    #[cfg(inserted)]
    summaries.push(Box::new(Lengths([0; 5])));
    summaries.push(Box::new(Letters { of: |letter: u8| u64::from(letter.count_ones()) << (letter % 17), sum: 2 }));
    summaries.push(Box::new(Lengths([0; 12])));
    for summary in &mut summaries {
        words.iter().for_each(|word| summary.add(word));
    }
    let mut result = summaries.iter().map(|summary| summary.result()).fold(0, u64::wrapping_add);
    for pair in words.windows(2).step_by(4) {
        result += edit_distance(pair[0].as_bytes(), pair[1].as_bytes()) as u64;
    }
    let text = format!("{:?} {:x?}", by_count.first(), by_end.last());
    result ^ text.bytes().map(u64::from).sum::<u64>()
}

/// Some hundreds of milliseconds.
#[unsafe(no_mangle)]
extern "C" fn _start() {
    let mut random = Random(42);
    let mut result = 0_u64;
    for _ in 0..300 {
        ALLOCATOR.next.set(0);
        result ^= round(&mut random);
    }
    core::hint::black_box(result);
}

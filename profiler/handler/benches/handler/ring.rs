//! Records through the ring, in and out. The floor is a `memcpy` of the same words, twice.

use std::hint::black_box;

use flamewalk_handler::record::{Frame, HEADER_WORDS, Header};
use flamewalk_handler::recorder::{Recorder, Visit};
use flamewalk_handler::ring::{Ring, Word};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_measure::{Run, row, work};

const ROUNDS: usize = 201;
const CALLS: usize = 1000;

/// By the frames of a record.
pub(crate) fn records(run: &mut Run) {
    if !run.section("records through the ring", &["frames", "memcpy ns", "ring ns", "ring / memcpy"]) {
        return;
    }
    for frames in [1usize, 8, 64, 512] {
        let addresses: Vec<usize> = (0..frames).collect();
        let words: Vec<u64> = vec![Frame::ReturnAddress(1).encode(); HEADER_WORDS + frames];
        let (mut copy, mut again) = (words.clone(), words.clone());
        let memcpy = || {
            copy.copy_from_slice(black_box(&words));
            again.copy_from_slice(black_box(&copy));
        };
        let ring = Ring::new((0..1usize << 12).map(|_| Word::default()).collect::<Box<[Word]>>());
        let header = Header {
            ticks: 1,
            end: WalkEnd::EntryTrampoline,
            weight: 1,
            time: 1,
            generation: 1,
            labels: 0,
            stack_used: 0,
            stack_left: 0,
        };
        let mut read = Vec::with_capacity(words.len());
        let through = || {
            let mut recorder = Recorder::begin(&ring);
            let visited = recorder.return_addresses(black_box(&addresses));
            assert!(visited.is_continue() && recorder.commit(&header).is_ok());
            read.clear();
            assert!(ring.pop(|word| read.push(word)) && read.len() == HEADER_WORDS + frames);
        };
        if let Some([copy, ring]) = run.measure(ROUNDS, [work(CALLS, memcpy), work(CALLS, through)]) {
            row(frames, &[copy, ring, ring / copy]);
        }
    }
}

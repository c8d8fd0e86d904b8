//! Samples written frame by frame and run by run, against what a plain list holds.

use std::collections::VecDeque;

use flamewalk_handler::record::{Frame, Header, Sample};
use flamewalk_handler::recorder::{Recorder, Visit};
use flamewalk_handler::ring::{Full, Ring, Word};
use flamewalk_handler::walk::WalkEnd;
use proptest::prelude::*;

const HEADER: Header = Header {
    ticks: 1,
    end: WalkEnd::EntryTrampoline,
    weight: 2,
    time: 3,
    generation: 4,
    labels: 5,
    stack_used: 6,
    stack_left: 7,
};
/// So small that records lie across its end most of the time, and often do not fit.
const RING_WORDS: usize = 32;

fn ring() -> Ring<Box<[Word]>> {
    Ring::new((0..RING_WORDS).map(|_| Word::default()).collect())
}

fn frames_of(words: &[u64]) -> Vec<Frame> {
    let sample = Sample::decode(words).expect("a whole record");
    assert_eq!(sample.header, HEADER);
    sample.frames().collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Each sample is the interrupted instruction and some runs of return addresses; a run of `None` stands for reading one.
    #[test]
    fn what_is_read_is_what_was_written(
        samples in prop::collection::vec(prop::option::of(prop::collection::vec(0usize..9, 0..4)), 1..40),
    ) {
        let ring = ring();
        let mut written: VecDeque<Vec<Frame>> = VecDeque::new();
        let mut used = 0;
        for (number, runs) in samples.into_iter().enumerate() {
            let Some(runs) = runs else {
                let mut words = Vec::new();
                prop_assert_eq!(ring.pop(|word| words.push(word)), !written.is_empty());
                if let Some(frames) = written.pop_front() {
                    prop_assert_eq!(frames_of(&words), frames);
                    used -= words.len();
                }
                continue;
            };
            let mut recorder = Recorder::begin(&ring);
            let mut frames = vec![Frame::Instruction(number)];
            let mut flow = recorder.frame(frames[0]);
            for run in runs {
                let addresses: Vec<usize> = (0..run).map(|index| number * 100 + index).collect();
                frames.extend(addresses.iter().map(|address| Frame::ReturnAddress(*address)));
                if flow.is_continue() {
                    flow = recorder.return_addresses(&addresses);
                }
            }
            let length = flamewalk_handler::record::HEADER_WORDS + frames.len();
            let fits = used + length <= RING_WORDS;
            prop_assert_eq!(flow.is_continue(), fits);
            prop_assert_eq!(recorder.is_full(), !fits);
            prop_assert_eq!(recorder.commit(&HEADER), if fits { Ok(()) } else { Err(Full) });
            if fits {
                used += length;
                written.push_back(frames);
            }
        }
    }
}

#[test]
fn only_frames_of_guests_make_a_guests_sample() {
    let ring = ring();
    {
        let mut recorder = Recorder::begin(&ring);
        assert!(recorder.frame(Frame::HostInstruction(1)).is_continue() && !recorder.has_guest());
        assert!(recorder.return_addresses(&[]).is_continue() && !recorder.has_guest());
        assert!(recorder.return_addresses(&[2]).is_continue() && recorder.has_guest());
    }
    assert!(!ring.pop(|_| {}), "nothing was written");
}

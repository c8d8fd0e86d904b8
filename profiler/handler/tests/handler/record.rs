//! Records come back as they were written; words that are no record are refused.

use flamewalk_handler::record::{Frame, HEADER_WORDS, Header, Sample, record_length};
use flamewalk_handler::statistics::{Counters, Fate, LossCause};
use flamewalk_handler::walk::WalkEnd;
use proptest::prelude::*;

fn frame() -> impl Strategy<Value = Frame> {
    let address = 0usize..1 << 56;
    prop_oneof![
        address.clone().prop_map(Frame::Instruction),
        address.clone().prop_map(Frame::ReturnAddress),
        address.clone().prop_map(Frame::HostCall),
        address.clone().prop_map(Frame::HostInstruction),
        address.prop_map(Frame::HostReturnAddress),
        Just(Frame::HostGap),
    ]
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    #[test]
    fn records_come_back(
        ticks in 0u32..1 << 24,
        end in prop::sample::select(&WalkEnd::ALL[..]),
        [weight, time, generation, labels] in any::<[u64; 4]>(),
        [stack_used, stack_left] in any::<[u32; 2]>(),
        frames in prop::collection::vec(frame(), 0..30),
    ) {
        let header = Header { ticks, end, weight, time, generation, labels, stack_used, stack_left };
        let mut words = header.encode(frames.len()).to_vec();
        words.extend(frames.iter().map(|frame| frame.encode()));
        prop_assert_eq!(record_length(words[0]), words.len());
        let sample = Sample::decode(&words).unwrap();
        prop_assert_eq!(sample.header, header);
        prop_assert_eq!(sample.frames().collect::<Vec<_>>(), frames);
        prop_assert_eq!(sample.frame_words(), &words[HEADER_WORDS..]);
        words.push(0);
        prop_assert!(Sample::decode(&words).is_none());
    }

    #[test]
    fn any_words_are_read(words in prop::collection::vec(any::<u64>(), 0..12), honest in any::<bool>()) {
        let mut words = words;
        let length = words.len() as u64;
        if honest && let Some(first) = words.first_mut() {
            *first = *first & !0xffff_ffff | length;
        }
        if let Some(sample) = Sample::decode(&words) {
            prop_assert!(sample.frames().count() <= words.len() - HEADER_WORDS);
        }
    }
}

#[test]
fn numbers_of_reasons_are_their_places() {
    assert!(WalkEnd::ALL.iter().enumerate().all(|(number, end)| *end as usize == number));
    assert!(LossCause::ALL.iter().enumerate().all(|(number, cause)| *cause as usize == number));
    assert!(WalkEnd::ALL.iter().all(|end| end.is_sound() == LossCause::of_walk(*end).is_none()));
}

#[test]
fn fates_add_up_to_all_ticks() {
    let counters = Counters::default();
    let fates = [Fate::Delivered, Fate::Outside].into_iter().chain(LossCause::ALL.map(Fate::Lost));
    for (index, fate) in fates.enumerate() {
        counters.count(fate, 1 << index, 10 << index);
    }
    let lost: u64 = LossCause::ALL.iter().map(|cause| counters.lost(*cause).ticks).sum();
    assert_eq!(counters.delivered().ticks + counters.outside().ticks + lost, counters.all().ticks);
    let all = (1 << (LossCause::ALL.len() + 2)) - 1;
    assert_eq!(counters.all().ticks, all);
    assert_eq!(counters.all().weight, 10 * all);
}

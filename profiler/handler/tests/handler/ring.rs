//! The ring on one thread, against a queue of records. Two threads are in `tests/loom.rs`.

use std::collections::VecDeque;

use flamewalk_handler::ring::{Ring, Word};
use proptest::prelude::*;

fn words(count: usize) -> Box<[Word]> {
    (0..count).map(|_| Word::default()).collect()
}

fn write(ring: &Ring<Box<[Word]>>, record: &[u64], commit: bool) -> bool {
    let mut writer = ring.begin();
    // Begun with a wrong length, which is put right at the end, as by a handler that does not know it beforehand.
    let whole = record
        .iter()
        .enumerate()
        .all(|(index, word)| writer.push(if index == 0 { 0 } else { *word }).is_ok());
    if whole && commit {
        assert_eq!(writer.length(), record.len());
        writer.set(0, record[0]);
        writer.set(record.len(), u64::MAX);
        writer.commit();
    }
    whole && commit
}

proptest! {
    #![proptest_config(crate::cases(2_000))]

    #[test]
    fn ring_agrees_with_a_queue(
        storage in 0usize..40,
        actions in prop::collection::vec(prop::option::of((1usize..12, prop::bool::weighted(0.9))), 0..200),
    ) {
        let ring = Ring::new(words(storage));
        let capacity = if storage == 0 { 0 } else { storage.next_power_of_two() >> usize::from(!storage.is_power_of_two()) };
        prop_assert_eq!(ring.capacity(), capacity);
        let mut queue: VecDeque<Vec<u64>> = VecDeque::new();
        let (mut used, mut most) = (0, 0);
        for (id, action) in actions.into_iter().enumerate() {
            match action {
                Some((length, commit)) => {
                    let record: Vec<u64> = (0..length).map(|index| (id * 100 + index) as u64 * (1 << 32) + length as u64).collect();
                    let fits = used + length <= capacity;
                    prop_assert_eq!(write(&ring, &record, commit), fits && commit);
                    if fits && commit {
                        used += length;
                        most = most.max(used);
                        queue.push_back(record);
                    }
                }
                None => {
                    let mut record = vec![];
                    let popped = ring.pop(|word| record.push(word));
                    let expected = queue.pop_front();
                    used -= expected.as_ref().map_or(0, Vec::len);
                    prop_assert_eq!(popped.then_some(record), expected);
                }
            }
            prop_assert_eq!(ring.high_water(), most);
        }
    }
}

/// A record's first word says its length. Whatever it says, reading ends, and takes what is there.
#[test]
fn a_wrong_length_does_not_lead_out_of_the_ring() {
    for length in [0, 7, u64::MAX] {
        let ring = Ring::new(words(8));
        let mut writer = ring.begin();
        (0..4).for_each(|_| writer.push(length).unwrap());
        writer.commit();
        let mut read = 0;
        while ring.pop(|_| read += 1) {}
        assert_eq!(read, 4);
    }
}

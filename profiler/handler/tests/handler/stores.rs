//! The table of attached stores agrees with a map, however many stores come and go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flamewalk_handler::registry::{Reader, Registry};
use flamewalk_handler::stores::Stores;
use proptest::prelude::*;

/// Addresses as of contexts that the allocator has placed: multiples of 16, often close together.
fn store() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..40, 1 => 1usize..1 << 40].prop_map(|number| 16 * number)
}

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn stores_agree_with_a_map(actions in prop::collection::vec((0u8..4, store(), any::<u64>()), 0..400)) {
        let (stores, registry) = (Stores::default(), Registry::default());
        let reader = Arc::new(Reader::default());
        registry.add_reader(Arc::clone(&reader));
        let mut expected = HashMap::<usize, (usize, u64)>::new();
        for (what, store, labels) in actions {
            match what {
                0 | 1 => {
                    stores.attach(store, &registry);
                    // Labels are of whom the store was attached for before: samples went on to have them.
                    let (count, labels) = expected.entry(store).or_default();
                    (*count, *labels) = (*count + 1, 0);
                }
                2 => {
                    stores.detach(store);
                    if let Some((count, _)) = expected.get_mut(&store) {
                        *count -= 1;
                    }
                    expected.retain(|_, (count, _)| *count > 0);
                }
                _ => {
                    stores.set_labels(store, labels);
                    if let Some((_, known)) = expected.get_mut(&store) {
                        *known = labels;
                    }
                }
            }
            // SAFETY: registered, and this is the only thread.
            let found = unsafe { registry.read(&reader, |_| stores.labels(store)) };
            prop_assert_eq!(found, expected.get(&store).map(|(_, labels)| *labels));
        }
        prop_assert_eq!(stores.len(), expected.len());
        for (store, (_, labels)) in expected {
            // SAFETY: as above.
            prop_assert_eq!(unsafe { registry.read(&reader, |_| stores.labels(store)) }, Some(labels));
        }
        // SAFETY: as above.
        prop_assert_eq!(unsafe { registry.read(&reader, |_| stores.labels(0)) }, None);
    }
}

/// A handler looks one store up while others come and go, and the table grows under it.
#[test]
fn a_store_is_found_while_others_come_and_go() {
    let (stores, registry, ended) = (Stores::default(), Registry::default(), AtomicBool::new(false));
    let reader = Arc::new(Reader::default());
    registry.add_reader(Arc::clone(&reader));
    let count = if cfg!(miri) { 100 } else { 20_000 };
    stores.attach(16, &registry);
    stores.set_labels(16, 7);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = 0u64;
            loop {
                let is_last = ended.load(Ordering::Relaxed);
                // SAFETY: registered, and used by this thread only.
                let found = unsafe { registry.read(&reader, |_| (stores.labels(16), stores.labels(24))) };
                assert_eq!(found, (Some(7), None));
                looks += 1;
                if is_last {
                    return looks;
                }
            }
        });
        (2..count).for_each(|number| stores.attach(16 * number, &registry));
        (2..count).for_each(|number| stores.detach(16 * number));
        ended.store(true, Ordering::Relaxed);
        assert!(looking.join().unwrap() > 0);
    });
    assert_eq!(stores.len(), 1);
    assert!(stores.bytes() > 0 && !stores.is_empty());
}

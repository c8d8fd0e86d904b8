//! The registry on one thread. Readers beside a publisher are in `tests/loom.rs`.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flamewalk_handler::code::{CodeKind, CodeTable, Function};
use flamewalk_handler::registry::{Reader, Registry};
use proptest::prelude::*;

fn functions(length: usize) -> Arc<[Function]> {
    let function = |start| Function { start, length: 1, kind: CodeKind::Guest, frame_size: 0 };
    (0..length as u32).map(function).collect()
}

fn read<R>(registry: &Registry, reader: &Reader, read: impl FnOnce(CodeTable<'_>) -> R) -> R {
    // SAFETY: the tests register their reader, have one thread each, and do not nest.
    unsafe { registry.read(reader, read) }
}

fn images(registry: &Registry, reader: &Reader, addresses: Range<usize>) -> Vec<Option<Range<usize>>> {
    read(registry, reader, |table| {
        addresses.map(|address| table.find(address).map(|(image, _)| image.text())).collect()
    })
}

proptest! {
    #![proptest_config(crate::cases(500))]

    /// Against a list of ranges. An empty text is never found, and is in nobody's way.
    #[test]
    fn registry_agrees_with_a_list(
        actions in prop::collection::vec((any::<bool>(), 0usize..40, 0usize..12), 0..30),
    ) {
        let registry = Registry::default();
        let reader = Arc::new(Reader::default());
        registry.add_reader(Arc::clone(&reader));
        let mut list: Vec<Range<usize>> = vec![];
        let mut generation = 0;
        for (publish, start, length) in actions {
            let text = start..start + length;
            if publish {
                let existing = list.iter().filter(|other| other.start < text.end && text.start < other.end);
                let existing: Vec<_> = existing.filter(|_| !text.is_empty()).cloned().collect();
                match registry.publish(text.clone(), functions(length)) {
                    Ok(new) => {
                        prop_assert!(existing.is_empty());
                        prop_assert!(new > generation || text.is_empty());
                        generation = new;
                        if !text.is_empty() {
                            list.push(text);
                        }
                    }
                    Err(overlap) => prop_assert!(existing.contains(&overlap.existing)),
                }
            } else {
                let index = list.iter().position(|text| text.start == start);
                let retired = registry.retire(start);
                prop_assert_eq!(retired.is_some(), index.is_some());
                generation = retired.unwrap_or(generation);
                index.map(|index| list.remove(index));
            }
            let expected: Vec<_> = (0..60).map(|address| list.iter().find(|text| text.contains(&address)).cloned()).collect();
            prop_assert_eq!(images(&registry, &reader, 0..60), expected);
            prop_assert_eq!(read(&registry, &reader, |table| table.generation()), generation);
        }
        registry.remove_reader(&reader);
    }
}

/// Many images, so that they are in several groups, which are split and put together: published in one order, retired in
/// another.
#[test]
fn groups_agree_with_a_list() {
    let registry = Registry::default();
    let reader = Arc::new(Reader::default());
    registry.add_reader(Arc::clone(&reader));
    let (count, step) = if cfg!(miri) { (300, 101) } else { (3_000, 1_009) };
    let place = |index: usize| index * step % count;
    let mut list = vec![false; count];
    let check = |list: &[bool]| {
        read(&registry, &reader, |table| {
            for (index, is_there) in list.iter().enumerate() {
                let expected = is_there.then(|| 4 * index..4 * index + 3);
                assert_eq!(table.image(4 * index + 2).map(|image| image.text()), expected);
                assert_eq!(table.image(4 * index + 3), None);
            }
        });
    };
    for index in 0..count {
        let start = 4 * place(index);
        registry.publish(start..start + 3, functions(3)).unwrap();
        list[place(index)] = true;
        if index % (count / 10) == 0 {
            check(&list);
        }
    }
    assert!(registry.publish(4 * count - 6..4 * count - 3, functions(3)).is_err());
    for index in 0..count {
        assert!(registry.retire(4 * place(index * 7)).is_some());
        assert!(registry.retire(4 * place(index * 7)).is_none());
        list[place(index * 7)] = false;
        if index % (count / 10) == 0 {
            check(&list);
        }
    }
    check(&list);
    registry.remove_reader(&reader);
}

/// The memory itself, which the models replace: Miri notices a table that is freed while it is read.
#[test]
fn tables_are_read_while_they_are_replaced() {
    let registry = Registry::default();
    let reader = Arc::new(Reader::default());
    registry.add_reader(Arc::clone(&reader));
    let rounds = if cfg!(miri) { 30 } else { 3_000 };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let handler = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for found in images(&registry, &reader, 0..3) {
                    assert!(found.is_none_or(|text| text == (0..3)));
                }
            }
        });
        for round in 0..rounds {
            assert_eq!(registry.publish(0..3, functions(3)), Ok(2 * round + 1));
            assert_eq!(registry.retire(0), Some(2 * round + 2));
        }
        done.store(true, Ordering::Relaxed);
        handler.join().unwrap();
    });
    assert!(images(&registry, &reader, 0..3).iter().all(Option::is_none));
}

//! Models of the shared structures under all interleavings (up to a number of preemptions) and all values that
//! relaxed loads may see. They run with `RUSTFLAGS="--cfg loom"` only.
#![cfg(loom)]

use std::ops::Range;
use std::sync::Arc as CodeArc;

use flamewalk_handler::code::{CodeKind, Function};
use flamewalk_handler::registry::{Reader, Registry};
use flamewalk_handler::ring::{Ring, Word};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A record of `length` words; every word says which record it is of, and where in it.
fn record(id: u64, length: u64) -> Vec<u64> {
    (0..length).map(|index| id << 40 | index << 32 | length).collect()
}

fn write(ring: &Ring<Box<[Word]>>, record: &[u64]) -> bool {
    let mut writer = ring.begin();
    if record.iter().any(|word| writer.push(*word).is_err()) {
        return false;
    }
    writer.commit();
    true
}

fn read(ring: &Ring<Box<[Word]>>) -> Option<Vec<u64>> {
    let mut words = vec![];
    ring.pop(|word| words.push(word)).then_some(words)
}

/// What is committed comes out whole, once, and in order; what finds no room leaves no trace.
fn ring_model(capacity: usize, lengths: &'static [u64], reads: usize) {
    let words: Box<[Word]> = (0..capacity).map(|_| Word::default()).collect();
    let ring = Arc::new(Ring::new(words));
    let producer = {
        let ring = Arc::clone(&ring);
        loom::thread::spawn(move || {
            let records = lengths.iter().zip(1..).map(|(length, id)| record(id, *length));
            records.filter(|record| write(&ring, record)).collect::<Vec<_>>()
        })
    };
    let mut read_records: Vec<Vec<u64>> = (0..reads).filter_map(|_| read(&ring)).collect();
    let committed = producer.join().unwrap();
    read_records.extend(std::iter::from_fn(|| read(&ring)));
    assert_eq!(read_records, committed);
    assert!(ring.high_water() <= capacity);
}

#[test]
fn ring_delivers_whole_records_in_order() {
    check(3, || ring_model(4, &[1, 2, 1], 2));
}

#[test]
fn ring_drops_whole_records_when_it_is_full() {
    check(3, || ring_model(4, &[3, 2, 3], 2));
}

const TEXT: Range<usize> = 0x1000..0x1010;

fn functions() -> CodeArc<[Function]> {
    CodeArc::new([Function { start: 0, length: 16, kind: CodeKind::Guest, frame_size: 0 }])
}

/// No table is freed while a handler reads it, and once `retire` has returned no handler sees the code: not one that
/// was reading already, either.
fn registry_model(reads: usize) {
    let registry = Arc::new(Registry::default());
    let reader = CodeArc::new(Reader::default());
    registry.add_reader(CodeArc::clone(&reader));
    registry.publish(TEXT, functions()).unwrap();
    let retired = Arc::new(AtomicBool::new(false));
    let handler = {
        let (registry, retired) = (Arc::clone(&registry), Arc::clone(&retired));
        loom::thread::spawn(move || {
            let mut newest = 0;
            for _ in 0..reads {
                registry.read(&reader, |table| {
                    assert!(table.generation() >= newest);
                    newest = table.generation();
                    let found = table.find(TEXT.start);
                    assert_eq!(found.is_some(), newest == 1);
                    // The owner does not set this before all handlers are done with the table.
                    assert!(found.is_none() || !retired.load(Ordering::Relaxed));
                });
            }
        })
    };
    assert_eq!(registry.retire(TEXT.start), Some(2));
    retired.store(true, Ordering::Relaxed);
    handler.join().unwrap();
}

#[test]
fn registry_frees_no_table_that_is_read() {
    check(3, || registry_model(1));
}

/// The reader may have left and come again between the owner's two looks at it.
#[test]
fn registry_frees_no_table_that_is_read_by_a_reader_that_comes_again() {
    check(2, || registry_model(2));
}

/// While code is published, the reader sees all of the new table or all of the old one.
#[test]
fn registry_publishes_whole_tables() {
    check(3, || {
        let registry = Arc::new(Registry::default());
        let reader = CodeArc::new(Reader::default());
        registry.add_reader(CodeArc::clone(&reader));
        let handler = {
            let registry = Arc::clone(&registry);
            loom::thread::spawn(move || {
                registry.read(&reader, |table| {
                    assert_eq!(table.find(TEXT.start).is_some(), table.generation() == 1);
                });
            })
        };
        assert_eq!(registry.publish(TEXT, functions()), Ok(1));
        handler.join().unwrap();
    });
}

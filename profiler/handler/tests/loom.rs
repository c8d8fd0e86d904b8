//! Models of the shared structures under all interleavings (up to a number of preemptions) and all values that
//! relaxed loads may see. They run with `RUSTFLAGS="--cfg loom"` only.
#![cfg(loom)]

use std::ops::Range;
use std::sync::Arc as CodeArc;

use flamewalk_handler::code::{CodeKind, CodeTable, Function};
use flamewalk_handler::registry::{Reader, Registry};
use flamewalk_handler::ring::{Ring, Word};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A record of `length` words; every word says which record it is of, and where in it.
fn record(id: u64, length: u64) -> Vec<u64> {
    (0..length).map(|index| id << 40 | index << 32 | length).collect()
}

/// A ring, and a word that both threads change before each step.
///
/// `loom` tries another order of two threads only at the last access to a value that both use. The producer's own
/// loads of `head` stand between the consumer's and the producer's stores, so that without this no order but one
/// would be tried. A relaxed change of another word orders nothing.
struct Model {
    ring: Ring<Box<[Word]>>,
    steps: AtomicUsize,
}

impl Model {
    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, record: &[u64]) -> bool {
        self.step();
        let mut writer = self.ring.begin();
        if record.iter().any(|word| writer.push(*word).is_err()) {
            return false;
        }
        self.step();
        writer.commit();
        true
    }

    fn read(&self) -> Option<Vec<u64>> {
        self.step();
        let mut words = vec![];
        self.ring.pop(|word| words.push(word)).then_some(words)
    }
}

/// What is committed comes out whole, once, and in order; what finds no room leaves no trace.
fn ring_model(capacity: usize, lengths: &'static [u64], reads: usize) {
    let ring = Ring::new((0..capacity).map(|_| Word::default()).collect());
    let model = Arc::new(Model { ring, steps: AtomicUsize::new(0) });
    let producer = {
        let model = Arc::clone(&model);
        loom::thread::spawn(move || {
            let records = lengths.iter().zip(1..).map(|(length, id)| record(id, *length));
            records.filter(|record| model.write(record)).collect::<Vec<_>>()
        })
    };
    let mut read: Vec<Vec<u64>> = (0..reads).filter_map(|_| model.read()).collect();
    SEEN.fetch_or(1 << read.len(), std::sync::atomic::Ordering::Relaxed);
    let committed = producer.join().unwrap();
    read.extend(std::iter::from_fn(|| model.read()));
    assert_eq!(read, committed);
    SEEN.fetch_or(0x100 << committed.len(), std::sync::atomic::Ordering::Relaxed);
    assert!(model.ring.high_water() <= capacity);
}

/// Which numbers of records were read while the producer ran (from bit 0), and committed (from bit 8), in any order
/// of events that was tried; so that a model cannot pass by trying only one.
static SEEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Checks one ring after the other, since they share `SEEN`.
fn check_ring(capacity: usize, lengths: &'static [u64], reads: usize, seen: usize) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    SEEN.store(0, std::sync::atomic::Ordering::Relaxed);
    check(3, move || ring_model(capacity, lengths, reads));
    assert_eq!(SEEN.load(std::sync::atomic::Ordering::Relaxed), seen);
}

#[test]
fn ring_delivers_whole_records_in_order() {
    check_ring(4, &[1, 2, 1], 2, 0x807);
}

#[test]
fn ring_drops_whole_records_when_it_is_full() {
    check_ring(4, &[3, 2, 2], 2, 0xe07);
}

fn read(registry: &Registry, reader: &Reader, read: impl FnOnce(CodeTable<'_>)) {
    // SAFETY: the models register their readers, use each on one thread, and do not nest.
    unsafe { registry.read(reader, read) };
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
                read(&registry, &reader, |table| {
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
                read(&registry, &reader, |table| {
                    assert_eq!(table.find(TEXT.start).is_some(), table.generation() == 1);
                });
            })
        };
        assert_eq!(registry.publish(TEXT, functions()), Ok(1));
        handler.join().unwrap();
    });
}

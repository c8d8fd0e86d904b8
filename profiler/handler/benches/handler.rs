//! What the handler's own work costs, next to its floor: `cargo bench --profile dev -p flamewalk-handler --bench handler`.
//!
//! For stacks of 1 to 1,024 frames: a bare chase of the frame pointers that also reads the return addresses, and the
//! whole way of a sample from the registers into the ring (look-up of the program counter, prologue and epilogue, each
//! frame checked and classified, record written). Both run over the same words, interleaved, in one process; the
//! medians of many rounds are printed, and their ratio. The delivery of the signal is not part of either.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use flamewalk_handler::activation::{ActivationLayout, Activations, ExitStateLayout};
use flamewalk_handler::arch::{Native, Registers};
use flamewalk_handler::code::{CodeKind, CodeTable, Function};
use flamewalk_handler::host::NoHostFrames;
use flamewalk_handler::memory::LiveStack;
use flamewalk_handler::record::Header;
use flamewalk_handler::recorder::Recorder;
use flamewalk_handler::registry::{Reader, Registry};
use flamewalk_handler::ring::{Ring, Word};
use flamewalk_handler::stack;

/// `push rbp; mov rbp, rsp; nop…`: one guest function, and behind it one entry trampoline.
const FUNCTION_BYTES: usize = 64;
const WORDS_PER_FRAME: usize = 8;
/// How `stack_of` lays out an activation and its store.
const LAYOUT: ActivationLayout = ActivationLayout {
    store: 0,
    older: 8,
    before: 16,
    saved: ExitStateLayout { exit_fp: 0, exit_pc: 8, entry_fp: 16 },
    current: ExitStateLayout { exit_fp: 0, exit_pc: 8, entry_fp: 16 },
    guard: 24,
    stack_limit: 40,
    entering_frame: 48,
};
const ROUNDS: usize = 3001;
const WALKS_PER_ROUND: usize = 200;

fn main() {
    // `cargo test` and `cargo clippy` only want to see that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut code = [0x90u8; 2 * FUNCTION_BYTES];
    for start in [0, FUNCTION_BYTES] {
        code[start..start + 4].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5]);
    }
    let text = code.as_ptr().addr();
    let length = FUNCTION_BYTES as u32;
    let function = |start, kind| Function { start, length, kind, frame_size: 0 };
    let functions: Arc<[Function]> =
        [function(0, CodeKind::Guest), function(length, CodeKind::EntryTrampoline)].into();
    let registry = Registry::default();
    registry.publish(text..text + code.len(), functions).expect("nothing else is registered");
    let reader = Arc::new(Reader::default());
    registry.add_reader(Arc::clone(&reader));
    let ring = Ring::new((0..1usize << 19).map(|_| Word::default()).collect::<Box<[Word]>>());

    println!("frames   chase ns   sample ns   ratio   sample - chase ns");
    let depths: Vec<usize> =
        std::env::var("DEPTH").map_or(vec![1usize, 4, 24, 64, 256, 1024], |d| vec![d.parse().unwrap()]);
    for depth in depths {
        let (words, registers) = stack_of(depth, text);
        let mut chases = Vec::new();
        let mut samples = Vec::new();
        for _ in 0..ROUNDS {
            chases.push(time(|| chase(black_box(registers.fp), depth)));
            samples.push(time(|| sample(black_box(&registers), &words, &registry, &reader, &ring)));
            while ring.pop(|_| {}) {}
        }
        let (chase, sample) = (median(&mut chases), median(&mut samples));
        println!("{depth:6}   {chase:8.1}   {sample:9.1}   {:5.2}   {:17.1}", sample / chase, sample - chase);
    }
}

/// A stack of `depth` guest frames whose oldest was called by the entry trampoline.
fn stack_of(depth: usize, text: usize) -> (Vec<usize>, Registers) {
    let mut words = vec![0usize; (depth + 4) * WORDS_PER_FRAME];
    let start = words.as_ptr().addr();
    let frame = |index: usize| start + index * WORDS_PER_FRAME * size_of::<usize>();
    for index in 0..depth {
        let is_oldest = index + 1 == depth;
        words[index * WORDS_PER_FRAME] = frame(index + 1);
        words[index * WORDS_PER_FRAME + 1] = text + 32 + if is_oldest { FUNCTION_BYTES } else { 0 };
    }
    // The record of the activation, which holds the address of the store's context, and that with the entry's frame.
    words[(depth + 2) * WORDS_PER_FRAME] = frame(depth + 3);
    words[(depth + 3) * WORDS_PER_FRAME + 2] = frame(depth);
    (words, Registers { pc: text + 32, sp: start, fp: start, lr: 0 })
}

fn chase(mut fp: usize, depth: usize) -> usize {
    let mut sum = 0usize;
    for _ in 0..depth {
        let frame = std::ptr::with_exposed_provenance::<usize>(fp);
        // SAFETY: `stack_of` has made that many frames.
        let (saved, return_address) = unsafe { (frame.read_volatile(), frame.add(1).read_volatile()) };
        sum = sum.wrapping_add(return_address);
        fp = saved;
    }
    sum
}

fn sample(
    registers: &Registers,
    words: &[usize],
    registry: &Registry,
    reader: &Reader,
    ring: &Ring<Box<[Word]>>,
) {
    let start = words.as_ptr().expose_provenance();
    let walk = |table: CodeTable<'_>| {
        // SAFETY: what is read lies in the vector, which nothing changes meanwhile; the code is another.
        let memory = unsafe { LiveStack::new() };
        let mut recorder = Recorder::begin(ring);
        let activation = start + size_of_val(words) - 2 * WORDS_PER_FRAME * size_of::<usize>();
        // SAFETY: `stack_of` has made a list of one activation there.
        let mut activations = unsafe { Activations::new(activation, &LAYOUT) };
        let thread = stack::Thread {
            memory: &memory,
            table,
            stack: start..start + size_of_val(words),
            activations: &mut activations,
        };
        let end = stack::walk::<Native, _>(registers, thread, &mut NoHostFrames, 1024, &mut recorder).end;
        let generation = table.generation();
        let header =
            Header { ticks: 1, end, weight: 1, time: 1, generation, labels: 0, stack_used: 0, stack_left: 0 };
        let is_written = recorder.commit(&header).is_ok();
        assert!(is_written && end.is_sound(), "{end:?}");
    };
    // SAFETY: registered, and this is the only thread.
    unsafe { registry.read(reader, walk) }
}

/// Nanoseconds for one call.
fn time<R>(mut work: impl FnMut() -> R) -> f64 {
    let start = Instant::now();
    for _ in 0..WALKS_PER_ROUND {
        unsafe { std::arch::x86_64::_mm_lfence() };
        black_box(work());
    }
    start.elapsed().as_nanos() as f64 / WALKS_PER_ROUND as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

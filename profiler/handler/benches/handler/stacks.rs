//! Whole samples, from the registers into the ring (look-up of the program counter, prologue and epilogue, each frame
//! checked and classified, record written), by depth and by activations. The floor is a bare chase of the same frame
//! pointers that also reads the return addresses, and checks nothing.

use std::hint::black_box;
use std::sync::Arc;

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
use flamewalk_measure::{Run, row, work};

/// `push rbp; mov rbp, rsp; nop…`: one guest function, and behind it an entry and an exit trampoline.
const FUNCTION_BYTES: usize = 64;
const KINDS: [CodeKind; 3] = [CodeKind::Guest, CodeKind::EntryTrampoline, CodeKind::ExitTrampoline];
const CODE: [u8; KINDS.len() * FUNCTION_BYTES] = {
    let mut code = [0x90; KINDS.len() * FUNCTION_BYTES];
    let mut start = 0;
    while start < code.len() {
        (code[start], code[start + 1], code[start + 2], code[start + 3]) = (0x55, 0x48, 0x89, 0xe5);
        start += FUNCTION_BYTES;
    }
    code
};
const WORDS_PER_FRAME: usize = 8;
const FRAME_BYTES: usize = WORDS_PER_FRAME * size_of::<usize>();
/// Frames of each activation besides the guest's: the entry trampoline's, the activation, what the store held before.
const OTHER_FRAMES: usize = 3;
const LIMIT: usize = 1024;
const ROUNDS: usize = 201;
/// In a round; their samples fit the ring.
const CALLS: usize = 100;
const RING_WORDS: usize = 1 << 17;

/// How [`Guest`] lays out an activation and its store.
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

/// By depth, with the goal that the handler takes at most half as long again as the chase, and 100 ns.
pub(crate) fn depth(run: &mut Run) {
    if !run
        .section("depth of the stack", &["frames", "chase ns", "sample ns", "sample / chase", "of the goal"])
    {
        return;
    }
    for frames in [1, 4, 24, 64, 256, 1024] {
        let medians = measure(run, &Guest::new(frames, 1), &Sampler::new(&[]));
        let goal = |[chase, _]: [f64; 2]| 1.5 * chase + 100.0;
        if let Some(medians @ [chase, sample]) = medians {
            row(frames, &[chase, sample, sample / chase, sample / goal(medians)]);
        }
        if [24, 256].contains(&frames) {
            let part = medians.map(|medians| medians[1] / goal(medians));
            run.goal(&format!("at {frames} frames, of 1.5 x the chase + 100 ns"), part, 1.0);
        }
    }
}

/// By activations of one store, with 64 frames in all.
pub(crate) fn activations(run: &mut Run) {
    const FRAMES: usize = 64;
    if !run.section(
        "activations, 64 frames in all",
        &["activations", "chase ns", "sample ns", "sample / chase", "ns / activation"],
    ) {
        return;
    }
    let mut first = None;
    for activations in [1, 2, 4, 8, 16] {
        let guest = Guest::new(FRAMES / activations, activations);
        let Some([chase, sample]) = measure(run, &guest, &Sampler::new(&[])) else { continue };
        let first = *first.get_or_insert(sample);
        let each = if activations == 1 { 0.0 } else { (sample - first) / (activations - 1) as f64 };
        row(activations, &[chase, sample, sample / chase, each]);
    }
}

/// A chase and a sample of the same frames, in turn: nanoseconds for one of each.
fn measure(run: &mut Run, guest: &Guest, sampler: &Sampler) -> Option<[f64; 2]> {
    let (fp, frames) = (guest.registers.fp, guest.frames);
    let sample = work(CALLS, || sampler.sample(guest)).afterwards(|| sampler.drain());
    run.measure(ROUNDS, [work(CALLS, || chase(black_box(fp), frames)), sample])
}

/// Waits until everything before has been done.
fn serialize() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, which changes nothing.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
}

fn chase(mut fp: usize, frames: usize) -> usize {
    serialize();
    let mut sum = 0usize;
    for _ in 0..frames {
        let frame = std::ptr::with_exposed_provenance::<usize>(fp);
        // SAFETY: `Guest::new` has made that many frames, each of which leads to the next.
        let (saved, return_address) = unsafe { (frame.read_volatile(), frame.add(1).read_volatile()) };
        sum = sum.wrapping_add(return_address);
        fp = saved;
    }
    sum
}

/// Interrupted guests on a stack.
pub(crate) struct Guest {
    words: Vec<usize>,
    registers: Registers,
    /// Of all activations.
    frames: usize,
    youngest: usize,
}

impl Guest {
    /// A guest of `frames` frames, each of 8 words. With more than one activation it was entered by the host, which was
    /// called by a guest of as many frames, and so on; all are of one store.
    pub(crate) fn new(frames: usize, activations: usize) -> Self {
        let text = CODE.as_ptr().addr();
        let per_activation = (frames + OTHER_FRAMES) * WORDS_PER_FRAME;
        // A frame of room before the first, and one for the store behind the last.
        let mut words = vec![0usize; activations * per_activation + 2 * WORDS_PER_FRAME];
        let start = words.as_ptr().expose_provenance() + FRAME_BYTES;
        let store = activations * per_activation + WORDS_PER_FRAME;
        let address = |word: usize| start - FRAME_BYTES + word * size_of::<usize>();
        let (guest, entry, exit) = (text + 32, text + FUNCTION_BYTES + 32, text + 2 * FUNCTION_BYTES + 32);
        for activation in 0..activations {
            let first = WORDS_PER_FRAME + activation * per_activation;
            let frame = |index: usize| first + index * WORDS_PER_FRAME;
            for index in 0..frames {
                words[frame(index)] = address(frame(index + 1));
                words[frame(index) + 1] = if index + 1 == frames { entry } else { guest };
            }
            let (entry_frame, record, before) = (frame(frames), frame(frames + 1), frame(frames + 2));
            // The chase goes on in the next older activation, as the walk does.
            words[entry_frame] = address(first + per_activation);
            words[record] = address(store);
            words[record + 1] =
                if activation + 1 < activations { address(record + per_activation) } else { 0 };
            words[record + 2] = address(before);
            let state = [address(first), guest, address(entry_frame)];
            // Of the youngest activation in the store, of the others where it was put away.
            let holder = if activation == 0 { store } else { before - per_activation };
            words[holder..holder + state.len()].copy_from_slice(&state);
            // The exit trampoline has called the host from just below its frame.
            words[first - 1] = exit;
        }
        let youngest = address(WORDS_PER_FRAME + (frames + 1) * WORDS_PER_FRAME);
        let registers = Registers { pc: guest, sp: start, fp: start, lr: 0 };
        Self { words, registers, frames: frames * activations, youngest }
    }
}

impl Guest {
    /// An address in the guest's code.
    pub(crate) fn code_address(&self) -> usize {
        self.registers.pc
    }
}

/// What a thread's handler works with.
pub(crate) struct Sampler {
    pub(crate) registry: Registry,
    pub(crate) reader: Arc<Reader>,
    ring: Ring<Box<[Word]>>,
}

impl Sampler {
    /// With the code of [`Guest`]s, and code at the `others`.
    pub(crate) fn new(others: &[std::ops::Range<usize>]) -> Self {
        let length = FUNCTION_BYTES as u32;
        let function = |(start, kind)| Function { start, length, kind, frame_size: 0 };
        let functions: Arc<[Function]> = (0..).step_by(FUNCTION_BYTES).zip(KINDS).map(function).collect();
        let registry = Registry::default();
        let publish = |text| registry.publish(text, Arc::clone(&functions)).expect("no overlap");
        let text = CODE.as_ptr().addr();
        publish(text..text + CODE.len());
        others.iter().cloned().for_each(|text| _ = publish(text));
        let reader = Arc::new(Reader::default());
        registry.add_reader(Arc::clone(&reader));
        let ring = Ring::new((0..RING_WORDS).map(|_| Word::default()).collect::<Box<[Word]>>());
        Self { registry, reader, ring }
    }

    /// Empties the ring.
    pub(crate) fn drain(&self) {
        while self.ring.pop(|_| {}) {}
    }

    /// One sample into the ring.
    pub(crate) fn sample(&self, guest: &Guest) {
        serialize();
        // SAFETY: the reader is registered, and this is the only thread.
        unsafe { self.registry.read(&self.reader, |table| self.walk(black_box(guest), table)) }
    }

    fn walk(&self, guest: &Guest, table: CodeTable<'_>) {
        let start = guest.words.as_ptr().addr();
        // SAFETY: what is read lies in the vector, which nothing changes meanwhile; the code is a constant.
        let memory = unsafe { LiveStack::new() };
        // SAFETY: `Guest::new` has made a list of activations there.
        let mut activations = unsafe { Activations::new(guest.youngest, &LAYOUT) };
        let thread = stack::Thread {
            memory: &memory,
            table,
            stack: start..start + size_of_val(&*guest.words),
            activations: &mut activations,
        };
        let mut recorder = Recorder::begin(&self.ring);
        let end =
            stack::walk::<Native, _>(&guest.registers, thread, &mut NoHostFrames, LIMIT, &mut recorder).end;
        let generation = table.generation();
        let header =
            Header { ticks: 1, end, weight: 1, time: 1, generation, labels: 0, stack_used: 0, stack_left: 0 };
        let is_written = recorder.commit(&header).is_ok();
        assert!(is_written && end.is_sound(), "{end:?}");
    }
}

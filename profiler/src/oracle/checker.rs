//! Compares the walk with the shadow stack at every boundary.

use std::ops::{AddAssign, ControlFlow, Range};
use std::sync::Arc;

use flamewalk_handler::activation::Next as Listed;
use flamewalk_handler::arch::Registers;
use flamewalk_handler::code::{CodeKind, CodeTable};
use flamewalk_handler::record::Frame;
use flamewalk_handler::registry::Reader;
use flamewalk_handler::walk::WalkEnd;

use super::instruction::Instructions;
use super::shadow::{Broken, Place, Shadow};
use super::stepper::{Next, Observer};
use crate::shared::Shared;
use crate::thread::Thread;

/// Frames that are compared. A deeper stack must give this many and say that it was cut.
const FRAME_LIMIT: usize = 1024;
/// A step takes some 20 to 30 µs, most of it in the kernel, and host code is long: it is stepped through whole until this
/// many boundaries of it were compared, in each run,
const ALL_HOST_BOUNDARIES: u64 = 3_000;
/// and then no further than this from where it was called.
const FIRST_HOST_BOUNDARIES: u64 = 40;
/// Mismatches that are kept to be shown.
const SHOWN: usize = 8;
/// Frames of a mismatch that are kept to be shown.
const SHOWN_FRAMES: usize = 8;

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Boundaries in guest functions, at each of which the walk was compared.
    pub(super) guest: u64,
    /// The same in trampolines.
    pub(super) trampolines: u64,
    /// The same in host code.
    pub(super) host: u64,
    /// Boundaries at which the walk's frames or end were not those of the shadow stack.
    pub(super) mismatches: u64,
    /// Boundaries in guest functions at which a plain walk by frame pointers is wrong.
    pub(super) plain_mismatches: u64,
    /// Boundaries with a host call whose trampoline the walk does not tell.
    pub(super) unnamed: u64,
    /// Boundaries in host code at which the walk must find a host call.
    pub(super) in_host_call: u64,
    /// Boundaries at which the walk finds nothing and says so, since Wasmtime's list of activations ends at one that is
    /// just being put in or taken out; see [`Checker::is_list_cut`].
    pub(super) list_cut: u64,
    pub(super) caught: u64,
    pub(super) tail_calls: u64,
    pub(super) entries: u64,
    /// Boundaries with more frames than the limit.
    pub(super) cut: u64,
    /// The most frames, as far as they were compared.
    pub(super) deepest: usize,
}

impl Counts {
    pub(super) fn compiled(&self) -> u64 {
        self.guest + self.trampolines
    }

    pub(super) fn boundaries(&self) -> u64 {
        self.compiled() + self.host
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.guest += other.guest;
        self.trampolines += other.trampolines;
        self.host += other.host;
        self.mismatches += other.mismatches;
        self.plain_mismatches += other.plain_mismatches;
        self.unnamed += other.unnamed;
        self.in_host_call += other.in_host_call;
        self.list_cut += other.list_cut;
        self.caught += other.caught;
        self.tail_calls += other.tail_calls;
        self.entries += other.entries;
        self.cut += other.cut;
        self.deepest = self.deepest.max(other.deepest);
    }
}

/// A boundary at which the walk was wrong.
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    pub(super) registers: Registers,
    pub(super) kind: Option<CodeKind>,
    pub(super) end: WalkEnd,
    /// The frames from a little before the first that differs on.
    pub(super) differs_at: usize,
    pub(super) expected: Kept,
    pub(super) found: Kept,
}

/// Some frames, without an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    frames: [Option<Frame>; SHOWN_FRAMES],
}

impl Kept {
    fn of(frames: &[Frame], from: usize) -> Self {
        let mut kept = [None; SHOWN_FRAMES];
        for (slot, frame) in kept.iter_mut().zip(frames.iter().skip(from)) {
            *slot = Some(*frame);
        }
        Self { frames: kept }
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().copied().flatten()
    }
}

/// Watches one thread.
pub(super) struct Checker {
    shared: Arc<Shared>,
    thread: *const Thread,
    reader: Arc<Reader>,
    code: Vec<Instructions>,
    shadow: Shadow,
    /// Boundaries in host code since compiled code was left.
    host_run: u64,
    expected: Vec<Frame>,
    found: Vec<Frame>,
    pub(super) counts: Counts,
    pub(super) mismatches: Vec<Mismatch>,
    pub(super) broken: Option<Broken>,
}

impl Checker {
    /// Watches `thread`, the calling one, in code whose texts are `texts`.
    ///
    /// The texts must stay mapped, and the thread must exist, for as long as the value lives.
    pub(super) fn new(
        shared: &Arc<Shared>,
        thread: &Thread,
        texts: impl Iterator<Item = Range<usize>>,
    ) -> Self {
        let reader = Arc::new(Reader::default());
        shared.registry.handlers().add_reader(Arc::clone(&reader));
        Self {
            shared: Arc::clone(shared),
            thread,
            reader,
            code: texts.map(Instructions::new).collect(),
            shadow: Shadow::new(),
            host_run: 0,
            expected: Vec::with_capacity(FRAME_LIMIT + 1),
            found: Vec::with_capacity(FRAME_LIMIT + 1),
            counts: Counts::default(),
            mismatches: Vec::with_capacity(SHOWN),
            broken: None,
        }
    }

    /// What was seen in all.
    pub(super) fn counts(&self) -> Counts {
        let Shadow { caught, tail_calls, entries, .. } = self.shadow;
        Counts { caught, tail_calls, entries, ..self.counts }
    }

    fn check(&mut self, registers: &Registers, table: CodeTable<'_>) -> Result<(), Broken> {
        let Registers { pc, sp, .. } = *registers;
        let place = match self.code.iter_mut().find(|code| code.contains(pc)) {
            None => None,
            Some(code) => {
                let outside = Broken { what: "compiled code outside of every function", from: 0, to: pc };
                let (_, function) = table.find(pc).ok_or(outside)?;
                Some(Place { pc, sp, function, instruction: code.at(pc) })
            }
        };
        self.shadow.step(pc, sp, place)?;
        let kind = place.map(|place| place.function.function.kind);
        self.host_run = if kind.is_none() { self.host_run + 1 } else { 0 };
        match kind {
            Some(CodeKind::Guest) => self.counts.guest += 1,
            Some(_) => self.counts.trampolines += 1,
            None => self.counts.host += 1,
        }

        let expected = &mut self.expected;
        expected.clear();
        let cut = self.shadow.frames(&mut |frame| {
            expected.push(frame);
            if expected.len() > FRAME_LIMIT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        expected.truncate(FRAME_LIMIT);
        self.counts.cut += u64::from(cut.is_break());
        self.counts.deepest = self.counts.deepest.max(expected.len());
        if kind.is_none() && !expected.is_empty() {
            self.counts.in_host_call += 1;
        }

        let found = &mut self.found;
        found.clear();
        // SAFETY: `new`'s caller vouches for the thread, which is the one that was interrupted.
        let thread = unsafe { &*self.thread };
        let mut visit = |frame| {
            found.push(frame);
            ControlFlow::Continue(())
        };
        let mut none = flamewalk_handler::host::NoHostFrames;
        // SAFETY: in the signal handler of a step of this thread, within `read`.
        let walk = unsafe { thread.walk(registers, table, &mut none, FRAME_LIMIT, &mut visit) };
        let ended = if cut.is_break() { WalkEnd::FrameLimit } else { WalkEnd::EntryTrampoline };
        self.compare(registers, kind, walk.end, ended);
        if kind == Some(CodeKind::Guest) {
            self.counts.plain_mismatches += u64::from(!self.plain_walk_is_right(registers, table));
        }
        Ok(())
    }

    fn compare(&mut self, registers: &Registers, kind: Option<CodeKind>, end: WalkEnd, ended: WalkEnd) {
        let differs_at = self.expected.iter().zip(&self.found).position(|(expected, found)| {
            expected != found && !matches!((expected, found), (Frame::HostCall(_), Frame::HostCall(0)))
        });
        let same_length = self.expected.len() == self.found.len();
        if differs_at.is_none() && same_length && end == ended {
            self.counts.unnamed += u64::from(self.found.contains(&Frame::HostCall(0)));
            return;
        }
        if kind.is_none() && self.found.is_empty() && end == WalkEnd::UnknownStack && self.is_list_cut() {
            self.counts.list_cut += 1;
            return;
        }
        self.counts.mismatches += 1;
        if self.mismatches.len() < SHOWN {
            let differs_at = differs_at.unwrap_or(self.expected.len().min(self.found.len()));
            let from = differs_at.saturating_sub(2);
            self.mismatches.push(Mismatch {
                registers: *registers,
                kind,
                end,
                differs_at,
                expected: Kept::of(&self.expected, from),
                found: Kept::of(&self.found, from),
            });
        }
    }

    /// Whether the list of activations holds none of the guests that there are, but one that is entered later or has been
    /// left: Wasmtime makes an activation the head of its list some instructions before it says what the older ones
    /// are, and unsays that some instructions before it takes the activation out.
    fn is_list_cut(&self) -> bool {
        // SAFETY: as in `check`.
        let mut list = unsafe { (*self.thread).activations() };
        match (list.next(), list.next(), self.shadow.youngest()) {
            (Some(Listed::Activation(only)), None, Some(youngest)) => only.address < youngest,
            _ => false,
        }
    }

    /// What a profiler does that knows where guest code is, and no more: the interrupted instruction, then the return
    /// address above each frame pointer, until one is not in guest code.
    fn plain_walk_is_right(&mut self, registers: &Registers, table: CodeTable<'_>) -> bool {
        // SAFETY: as in `check`.
        let stack = registers.sp..unsafe { &*self.thread }.stack().end;
        let expected = &mut self.expected;
        expected.clear();
        let _ = self.shadow.youngest_segment(&mut |frame| {
            expected.push(frame);
            if expected.len() == FRAME_LIMIT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut fp = registers.fp;
        let mut frames = expected.iter();
        if frames.next() != Some(&Frame::Instruction(registers.pc)) {
            return false;
        }
        for _ in 1..FRAME_LIMIT {
            let Some(return_address) = stack_word(&stack, fp.wrapping_add(8)) else { return false };
            match table.find(return_address.wrapping_sub(1)).map(|(_, found)| found.function.kind) {
                Some(CodeKind::Guest) if frames.next() == Some(&Frame::ReturnAddress(return_address)) => {}
                Some(CodeKind::Guest) => return false,
                Some(CodeKind::EntryTrampoline) | None => break,
                Some(CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline) => {}
            }
            let Some(older) = stack_word(&stack, fp) else { return false };
            fp = older;
        }
        frames.next().is_none()
    }
}

fn stack_word(live: &Range<usize>, address: usize) -> Option<usize> {
    let inside = live.start <= address && address < live.end.saturating_sub(8) && address.is_multiple_of(8);
    // SAFETY: a word of the live stack of this thread, which is in a signal handler.
    inside.then(|| unsafe { std::ptr::with_exposed_provenance::<usize>(address).read_volatile() })
}

impl Observer for Checker {
    fn boundary(&mut self, registers: &Registers) -> Next {
        if self.broken.is_some() {
            return Next::Step;
        }
        let shared = Arc::as_ptr(&self.shared);
        let reader = Arc::as_ptr(&self.reader);
        // SAFETY: `self` keeps both, and `check` changes neither.
        let (shared, reader) = unsafe { (&*shared, &*reader) };
        // SAFETY: the reader is registered and only this thread's, whose steps do not nest.
        self.broken =
            unsafe { shared.registry.handlers().read(reader, |table| self.check(registers, table)) }.err();
        let leap = self.host_run >= FIRST_HOST_BOUNDARIES && self.counts.host >= ALL_HOST_BOUNDARIES;
        if leap { Next::Leap } else { Next::Step }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.shared.registry.handlers().remove_reader(&self.reader);
    }
}

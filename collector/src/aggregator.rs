//! Samples by distinct stack, and for each stack by thread, labels and slice of time.
//!
//! Addresses are resolved to images as samples arrive, by the generation of the code table that the handler
//! saw: an address that is reused later does not change what was aggregated before.
//!
//! Two bounds hold for runs of any length. When there are too many sums, the slices of time double in length and pairs
//! of them are merged. When the stacks take too much memory, the rarest are cut to their youngest frames and
//! merged (`merge.rs`). No sample is dropped for either.

use std::collections::HashMap;

use flamewalk_handler::record::{Frame, Header, MIXED_LABELS, Sample};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Headroom, Tally, Thread};
use flamewalk_symbolizer::HostAddress;
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId, Locator};
use indexmap::{IndexMap, IndexSet};

use crate::collector::Options;
use crate::frame_table::{FrameIndex, FrameTable, LocatedFrame};
use crate::totals::sum;

/// Where and when samples were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Position among the stacks.
    pub(crate) stack: u32,
    /// The thread, by the number that the collector gave it; `None` if it was let go of to save memory.
    pub(crate) thread: Option<u64>,
    /// The number of the labels.
    pub(crate) labels: u64,
    /// The number of the slice of time.
    pub(crate) slice: Option<u32>,
}

/// What fell on one [`Key`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) tally: Tally,
    pub(crate) headroom: Option<Headroom>,
}

impl Sum {
    pub(crate) fn add(&mut self, more: Self) {
        self.tally = sum(self.tally, more.tally);
        self.headroom = match (self.headroom, more.headroom) {
            (Some(one), Some(other)) => Some(one.merge(other)),
            (one, other) => one.or(other),
        };
    }
}

/// The distinct stacks of a session and what fell on each.
#[derive(Debug)]
pub(crate) struct Aggregator {
    pub(crate) frames: FrameTable,
    /// Youngest frame first.
    pub(crate) stacks: IndexSet<Box<[FrameIndex]>>,
    /// In the order in which they were first seen.
    pub(crate) sums: IndexMap<Key, Sum>,
    /// The threads that `sums` knows, by number.
    pub(crate) threads: HashMap<u64, Thread>,
    /// How many frames all of `stacks` have together.
    pub(crate) stack_frames: usize,
    pub(crate) slices: Slices,
    max_sums: usize,
    /// The bytes from which on the rarest stacks are merged.
    pub(crate) max_bytes: usize,
    /// As many as were asked for; `max_bytes` is more if there is no getting below.
    pub(crate) asked_bytes: usize,
    /// All samples on the stacks.
    delivered: Tally,
    /// Those of them whose stack was cut at the frame limit.
    truncated: Tally,
    /// Samples with a frame that is in no image of their generation.
    unlocated: Tally,
    located: Vec<LocatedFrame>,
    stack: Vec<FrameIndex>,
}

/// What a stack costs besides its frames, a sum, and a thread: with the tables' own words, rounded up.
const STACK_BYTES: usize = 64;
const SUM_BYTES: usize = 128;
const THREAD_BYTES: usize = 128;

impl Aggregator {
    /// An empty aggregate of what happens from `start` on, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn new(options: &Options, start: u64) -> Self {
        Self {
            frames: FrameTable::default(),
            stacks: IndexSet::new(),
            sums: IndexMap::new(),
            threads: HashMap::new(),
            stack_frames: 0,
            slices: Slices { start, doublings: 0, last: 0 },
            max_sums: options.max_sums,
            max_bytes: options.max_stack_bytes,
            asked_bytes: options.max_stack_bytes,
            delivered: Tally::default(),
            truncated: Tally::default(),
            unlocated: Tally::default(),
            located: Vec::new(),
            stack: Vec::new(),
        }
    }

    /// Adds a sample that was taken on `thread`, whose number is `number`.
    pub(crate) fn add(&mut self, sample: &Sample<'_>, number: u64, thread: &Thread, registry: &CodeRegistry) {
        let header = sample.header;
        let tally = Tally { samples: u64::from(header.ticks), weight: header.weight };
        if !locate(sample, &registry.locator(), &mut self.located) {
            self.unlocated = sum(self.unlocated, tally);
            return;
        }
        let is_truncated = header.end == WalkEnd::FrameLimit;
        if is_truncated {
            self.located.push(LocatedFrame::Truncated);
        }
        self.stack.clear();
        self.stack.extend(self.located.iter().map(|frame| self.frames.intern(*frame)));
        let stack = match self.stacks.get_index_of(self.stack.as_slice()) {
            Some(known) => known,
            None => {
                self.stack_frames += self.stack.len();
                self.stacks.insert_full(self.stack.as_slice().into()).0
            }
        };
        let stack = u32::try_from(stack).expect("2³² stacks fit no memory");
        self.threads.entry(number).or_insert_with(|| thread.clone());
        let slice = loop {
            match self.slices.of(header.time) {
                Some(slice) => break slice,
                None => self.double_slices(),
            }
        };
        let key = Key { stack, thread: Some(number), labels: header.labels, slice: Some(slice) };
        let new = Sum { tally, headroom: headroom(&header) };
        self.sums.entry(key).or_default().add(new);
        self.delivered = sum(self.delivered, tally);
        if is_truncated {
            self.truncated = sum(self.truncated, tally);
        }
        // When there is but one slice left, it is not the slices that make them many.
        while self.sums.len() > self.max_sums && self.slices.last > 0 {
            self.double_slices();
        }
        if self.bytes() > self.max_bytes {
            self.merge_rarest();
        }
    }

    /// Doubles the length of the slices of time.
    fn double_slices(&mut self) {
        self.slices.double();
        let halved = |key: Key| Key { slice: key.slice.map(|slice| slice / 2), ..key };
        let sums = std::mem::take(&mut self.sums);
        for (key, sum) in sums {
            self.sums.entry(halved(key)).or_default().add(sum);
        }
    }

    /// The numbers of the labels that sums have, each once or more.
    pub(crate) fn labels(&self) -> impl Iterator<Item = u64> {
        self.sums.keys().map(|key| key.labels & !MIXED_LABELS)
    }

    /// Names the frames of an image that goes: nobody may ask the registry for it afterwards.
    pub(crate) fn resolve(&mut self, image: ImageId, registry: &CodeRegistry) {
        self.frames.resolve(image, registry);
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.stacks.len() * STACK_BYTES
            + self.stack_frames * size_of::<FrameIndex>()
            + self.frames.bytes()
            + self.sums.len() * SUM_BYTES
            + self.threads.len() * THREAD_BYTES
    }

    /// How much of [`Aggregator::bytes`] says where and when samples were taken.
    pub(crate) fn origin_bytes(&self) -> usize {
        self.sums.len().saturating_sub(self.stacks.len()) * SUM_BYTES + self.threads.len() * THREAD_BYTES
    }

    /// The sum over all stacks.
    pub(crate) fn delivered(&self) -> Tally {
        self.delivered
    }

    /// The sum over the stacks that were cut at the frame limit.
    pub(crate) fn truncated(&self) -> Tally {
        self.truncated
    }

    /// Samples that were dropped because a frame is in no image of their generation.
    pub(crate) fn unlocated(&self) -> Tally {
        self.unlocated
    }
}

/// Slices of time of equal length: 1 ms, doubled as often as was needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slices {
    /// Where the first begins, in nanoseconds.
    start: u64,
    doublings: u32,
    /// The last that a sample fell into.
    last: u32,
}

impl Slices {
    const FIRST_LENGTH: u64 = 1_000_000;

    /// The length of each, in nanoseconds.
    pub(crate) fn length(&self) -> u64 {
        Self::FIRST_LENGTH.checked_shl(self.doublings).unwrap_or(u64::MAX)
    }

    /// The slice of a time; `None` if the slices are so short that it has no number.
    fn of(&mut self, time: u64) -> Option<u32> {
        let slice = u32::try_from(time.saturating_sub(self.start) / self.length()).ok()?;
        self.last = self.last.max(slice);
        Some(slice)
    }

    fn double(&mut self) {
        self.doublings += 1;
        self.last /= 2;
    }
}

/// Resolves the frames of a sample, youngest first; `false` if one is in no image.
fn locate(sample: &Sample<'_>, locator: &Locator<'_>, frames: &mut Vec<LocatedFrame>) -> bool {
    let locate = |address| locator.locate(address, sample.header.generation);
    frames.clear();
    for frame in sample.frames() {
        let located = match frame {
            Frame::Instruction(address) => {
                locate(address).map(|(image, offset)| LocatedFrame::Instruction(image, offset))
            }
            Frame::ReturnAddress(address) => {
                // The call before it is inside the image; the return address can be just past its end.
                let call = address.wrapping_sub(1);
                locate(call).map(|(image, offset)| LocatedFrame::ReturnAddress(image, offset + 1))
            }
            Frame::HostCall(_) => Some(LocatedFrame::HostCall { returns_to: None, trampoline: None }),
            Frame::HostInstruction(address) => Some(LocatedFrame::Host(HostAddress::Instruction(address))),
            Frame::HostReturnAddress(address) => {
                Some(LocatedFrame::Host(HostAddress::ReturnAddress(address)))
            }
            Frame::HostGap => Some(LocatedFrame::HostGap),
        };
        let Some(located) = located else { return false };
        frames.push(located);
    }
    // What a call is of is told by its trampoline and by its caller, the next older frame.
    for (index, frame) in sample.frames().enumerate() {
        let Frame::HostCall(address) = frame else { continue };
        let Some(LocatedFrame::ReturnAddress(image, offset)) = frames.get(index + 1).copied() else {
            continue;
        };
        let trampoline = if address == 0 { None } else { locate(address) };
        let trampoline = trampoline.and_then(|(of, offset)| (of == image).then_some(offset));
        frames[index] = LocatedFrame::HostCall { returns_to: Some((image, offset)), trampoline };
    }
    true
}

/// The room on the execution stack, if the handler knew its bounds.
fn headroom(header: &Header) -> Option<Headroom> {
    let (used, left) = (header.stack_used, header.stack_left);
    if (used, left) == (u32::MAX, u32::MAX) {
        return None;
    }
    Some(Headroom { deepest_use: u64::from(used), least_left: u64::from(left) })
}

#[cfg(test)]
mod tests;

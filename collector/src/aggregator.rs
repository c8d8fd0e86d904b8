//! Samples by distinct stack, and for each stack by thread, labels and slice of time.
//!
//! Addresses are resolved to images as samples arrive, by the generation of the code table that the handler
//! saw: an address that is reused later does not change what was aggregated before.
//!
//! Two bounds hold for runs of any length. When there are too many sums, the slices of time double in length and pairs
//! of them are merged. When the stacks take too much memory, the rarest are cut to their youngest frames and
//! merged (`merge.rs`). No sample is dropped for either.

use std::collections::HashMap;

use flamewalk_handler::record::{Frame, MIXED_LABELS, Sample};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::{Tally, Thread};
use flamewalk_symbolizer::HostAddress;
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId, Locator};

use crate::collector::Options;
use crate::frame_table::{FrameTable, LocatedFrame};
use crate::stack_tree::{StackIndex, StackTree};
use crate::sums::{Key, Origin, Sum, Sums};
use crate::totals::sum;

/// The distinct stacks of a session and what fell on each.
#[derive(Debug)]
pub(crate) struct Aggregator {
    pub(crate) frames: FrameTable,
    pub(crate) stacks: StackTree,
    pub(crate) sums: Sums,
    /// The threads that `sums` knows, by number.
    pub(crate) threads: HashMap<u64, Thread>,
    pub(crate) slices: Slices,
    max_sums: usize,
    /// The bytes from which on the rarest stacks are merged.
    pub(crate) max_bytes: usize,
    /// As many as may be in use before stacks are merged; `max_bytes` is more if there is no getting below.
    pub(crate) asked_bytes: usize,
    /// All samples on the stacks.
    delivered: Tally,
    /// Those of them whose stack was cut at the frame limit.
    truncated: Tally,
    /// Samples with a frame that is in no image of their generation.
    unlocated: Tally,
    pub(crate) last: LastStack,
}

/// The stack of the last sample, since the next one most often shares its older frames.
#[derive(Debug, Default)]
pub(crate) struct LastStack {
    generation: u64,
    is_truncated: bool,
    /// The frames as they were in the record, oldest first, and the stack that ends with each.
    path: Vec<(u64, StackIndex)>,
}

/// What a thread takes, with its name and its place in the table, at most.
const THREAD_BYTES: usize = 192;

impl Aggregator {
    /// An empty aggregate of what happens from `start` on, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn new(options: &Options, start: u64) -> Self {
        // Merging takes up to as much again as there is before it, and tables of which not every part is in use.
        let asked_bytes = options.max_stack_bytes / 5 * 2;
        Self {
            frames: FrameTable::default(),
            stacks: StackTree::default(),
            sums: Sums::default(),
            threads: HashMap::new(),
            slices: Slices { start, doublings: 0, last: 0 },
            max_sums: options.max_sums,
            max_bytes: asked_bytes,
            asked_bytes,
            delivered: Tally::default(),
            truncated: Tally::default(),
            unlocated: Tally::default(),
            last: LastStack::default(),
        }
    }

    /// Adds a sample that was taken on `thread`, whose number is `number`.
    pub(crate) fn add(&mut self, sample: &Sample<'_>, number: u64, thread: &Thread, registry: &CodeRegistry) {
        let header = sample.header;
        // One frame more says that a stack was cut.
        if self.bytes_for(sample.frame_words().len() + 1) > self.max_bytes {
            self.merge_rarest();
        }
        let sum_of_one = Sum::of(&header);
        let tally = sum_of_one.tally;
        let Some(stack) = self.stack(sample, registry) else {
            self.unlocated = sum(self.unlocated, tally);
            return;
        };
        self.threads.entry(number).or_insert_with(|| thread.clone());
        let origin = Origin { thread: Some(number), labels: header.labels };
        let mut key = Key { stack, origin, slice: None };
        loop {
            key.slice = self.slices.of(header.time);
            // When there is but one slice left, it is not the slices that make them many.
            let is_full = self.sums.len() >= self.max_sums && self.slices.last > 0;
            if key.slice.is_some() && (!is_full || self.sums.contains(key)) {
                break;
            }
            self.double_slices();
        }
        self.sums.add(key, sum_of_one);
        self.delivered = sum(self.delivered, tally);
        if header.end == WalkEnd::FrameLimit {
            self.truncated = sum(self.truncated, tally);
        }
    }

    /// The stack of a sample; `None` if a frame of it is in no image.
    fn stack(&mut self, sample: &Sample<'_>, registry: &CodeRegistry) -> Option<StackIndex> {
        let generation = sample.header.generation;
        let is_truncated = sample.header.end == WalkEnd::FrameLimit;
        let words = sample.frame_words();
        let last = &mut self.last;
        if (last.generation, last.is_truncated) != (generation, is_truncated) {
            (last.generation, last.is_truncated) = (generation, is_truncated);
            last.path.clear();
        }
        let same = last.path.iter().zip(words.iter().rev()).take_while(|((last, _), word)| last == *word);
        let shared = same.count();
        last.path.truncate(shared);
        let mut stack = match last.path.last() {
            Some((_, stack)) => *stack,
            None if is_truncated => {
                self.stacks.push(StackIndex::EMPTY, self.frames.intern(LocatedFrame::Truncated))
            }
            None => StackIndex::EMPTY,
        };
        if shared == words.len() {
            return Some(stack);
        }
        let locator = registry.locator();
        for word in words[..words.len() - shared].iter().rev() {
            let caller = self.stacks.youngest(stack).map(|(frame, _)| self.frames.get(frame).0);
            let located = locate(Frame::decode(*word)?, caller, &locator, generation)?;
            stack = self.stacks.push(stack, self.frames.intern(located));
            self.last.path.push((*word, stack));
        }
        Some(stack)
    }

    /// Doubles the length of the slices of time.
    fn double_slices(&mut self) {
        self.slices.double();
        self.sums.regroup(|_, key| Key { slice: key.slice.map(|slice| slice / 2), ..key });
    }

    /// The numbers of the labels that sums have, each once or more.
    pub(crate) fn labels(&self) -> impl Iterator<Item = u64> {
        self.sums.origins().map(|origin| origin.labels & !MIXED_LABELS)
    }

    /// Names the frames of an image that goes: nobody may ask the registry for it afterwards.
    pub(crate) fn resolve(&mut self, image: ImageId, registry: &CodeRegistry) {
        self.frames.resolve(image, registry);
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.stacks.bytes() + self.frames.bytes() + self.sums.bytes() + self.bytes_besides_tables()
    }

    /// The memory that it takes while it grows for a sample with so many frames.
    fn bytes_for(&self, frames: usize) -> usize {
        self.stacks.bytes_for(frames)
            + self.frames.bytes_for(frames)
            + self.sums.bytes_for_one()
            + self.bytes_besides_tables()
    }

    pub(crate) fn thread_bytes(&self) -> usize {
        self.threads.len() * THREAD_BYTES
    }

    fn bytes_besides_tables(&self) -> usize {
        self.thread_bytes() + self.last.path.capacity() * size_of::<(u64, StackIndex)>()
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
        // The last number stands for none.
        let slice = Some(slice).filter(|slice| *slice < u32::MAX)?;
        self.last = self.last.max(slice);
        Some(slice)
    }

    fn double(&mut self) {
        self.doublings += 1;
        self.last /= 2;
    }
}

/// The image that a frame is in, whose caller is the frame before it; `None` if it is in none.
fn locate(
    frame: Frame,
    caller: Option<LocatedFrame>,
    locator: &Locator<'_>,
    generation: u64,
) -> Option<LocatedFrame> {
    let locate = |address| locator.locate(address, generation);
    Some(match frame {
        Frame::Instruction(address) => {
            let (image, offset) = locate(address)?;
            LocatedFrame::Instruction(image, offset)
        }
        Frame::ReturnAddress(address) => {
            // The call before it is inside the image; the return address can be just past its end.
            let (image, offset) = locate(address.wrapping_sub(1))?;
            LocatedFrame::ReturnAddress(image, offset + 1)
        }
        // What a call is of is told by its trampoline and by its caller.
        Frame::HostCall(address) => {
            let Some(LocatedFrame::ReturnAddress(image, offset)) = caller else {
                return Some(LocatedFrame::HostCall { returns_to: None, trampoline: None });
            };
            let trampoline = if address == 0 { None } else { locate(address) };
            let trampoline = trampoline.and_then(|(of, offset)| (of == image).then_some(offset));
            LocatedFrame::HostCall { returns_to: Some((image, offset)), trampoline }
        }
        Frame::HostInstruction(address) => LocatedFrame::Host(HostAddress::Instruction(address)),
        Frame::HostReturnAddress(address) => LocatedFrame::Host(HostAddress::ReturnAddress(address)),
        Frame::HostGap => LocatedFrame::HostGap,
    })
}

#[cfg(test)]
mod tests;

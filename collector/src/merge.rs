//! What happens when the memory for stacks is used up: the rarest are cut and merged, until half of it is free.
//!
//! A stack that is cut keeps its youngest frames below a `[truncated]` root, so that self times stay exact for as long
//! as a frame is left. Nothing is dropped: weights move from a stack to what is left of it. Labels are never let go of,
//! since profiles of one tenant rely on them.

use std::collections::HashSet;

use crate::aggregator::{Aggregator, Key};
use crate::frame_table::{FrameIndex, LocatedFrame};

/// What is done to the stacks with the least weight.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// How many are spared: one in this many; 0 for none.
    spared: usize,
    /// How many frames the others keep at most.
    keep: usize,
}

/// From the least harm to the most; each only if the one before was not enough.
const CUTS: [Cut; 5] = [
    Cut { spared: 2, keep: 16 },
    Cut { spared: 4, keep: 4 },
    Cut { spared: 16, keep: 1 },
    Cut { spared: 16, keep: 0 },
    Cut { spared: 0, keep: 0 },
];

/// Of the sums, one in this many keeps its thread and time when those take most of the memory.
const SPARED_ORIGINS: usize = 8;

impl Aggregator {
    /// Merges the rarest stacks until the aggregate takes no more than half of what it may.
    pub(crate) fn merge_rarest(&mut self) {
        if self.origin_bytes() > self.bytes() / 2 {
            self.forget_origins();
        }
        for cut in CUTS {
            if self.bytes() <= self.asked_bytes / 2 {
                break;
            }
            self.cut(cut);
        }
        // If even that was not enough, it is not tried again for each sample.
        self.max_bytes = self.asked_bytes.max(self.bytes().saturating_mul(2));
    }

    /// Lets go of thread and time of the rarest samples.
    fn forget_origins(&mut self) {
        let weights = self.sums.values().map(|sum| (sum.tally.weight, sum.tally.samples)).collect();
        let is_rare = rarest(weights, SPARED_ORIGINS);
        for ((key, sum), is_rare) in std::mem::take(&mut self.sums).into_iter().zip(is_rare) {
            let key = if is_rare { Key { thread: None, slice: None, ..key } } else { key };
            self.sums.entry(key).or_default().add(sum);
        }
        self.drop_unused_threads();
    }

    fn cut(&mut self, cut: Cut) {
        let is_rare = self.rarest_stacks(cut.spared);
        let merged = self.frames.intern(LocatedFrame::Merged);
        let mut is_used = vec![false; self.frames.len()];
        // Where each stack goes, and whether it was cut.
        let mut moved = Vec::with_capacity(self.stacks.len());
        for (stack, is_rare) in std::mem::take(&mut self.stacks).into_iter().zip(is_rare) {
            let is_cut = is_rare && stack.len() > cut.keep;
            let stack =
                if is_cut { stack[..cut.keep].iter().copied().chain([merged]).collect() } else { stack };
            stack.iter().for_each(|frame| is_used[frame.index()] = true);
            let (index, _) = self.stacks.insert_full(stack);
            moved.push((u32::try_from(index).expect("no more than before"), is_cut));
        }
        for (key, sum) in std::mem::take(&mut self.sums) {
            let (stack, is_cut) = moved[key.stack as usize];
            let (thread, slice) = if is_cut { (None, None) } else { (key.thread, key.slice) };
            self.sums.entry(Key { stack, thread, slice, ..key }).or_default().add(sum);
        }
        self.drop_unused_frames(&is_used);
        self.drop_unused_threads();
    }

    /// Whether each stack is among those with the least weight. Those that were cut before come first.
    fn rarest_stacks(&self, spared: usize) -> Vec<bool> {
        let is_whole = |stack: &[FrameIndex]| {
            stack.last().is_some_and(|oldest| self.frames.get(*oldest).0 != LocatedFrame::Merged)
        };
        let mut weights: Vec<_> = self.stacks.iter().map(|stack| (is_whole(stack), 0u64, 0u64)).collect();
        for (key, sum) in &self.sums {
            let (_, weight, samples) = &mut weights[key.stack as usize];
            *weight = weight.saturating_add(sum.tally.weight);
            *samples = samples.saturating_add(sum.tally.samples);
        }
        rarest(weights, spared)
    }

    fn drop_unused_frames(&mut self, is_used: &[bool]) {
        let (frames, moved) = std::mem::take(&mut self.frames).compacted(is_used);
        self.frames = frames;
        let renamed = |stack: Box<[FrameIndex]>| -> Box<[FrameIndex]> {
            stack.iter().filter_map(|frame| moved[frame.index()]).collect()
        };
        self.stacks = std::mem::take(&mut self.stacks).into_iter().map(renamed).collect();
        self.stack_frames = self.stacks.iter().map(|stack| stack.len()).sum();
        self.stacks.shrink_to_fit();
    }

    fn drop_unused_threads(&mut self) {
        let used: HashSet<u64> = self.sums.keys().filter_map(|key| key.thread).collect();
        self.threads.retain(|number, _| used.contains(number));
        self.threads.shrink_to_fit();
        self.sums.shrink_to_fit();
    }
}

/// Whether each is among the least: all but one in `spared`, or all if that is 0.
fn rarest<W: Ord>(weights: Vec<W>, spared: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|one, other| weights[*one].cmp(&weights[*other]));
    let spared = if spared == 0 { 0 } else { order.len().div_ceil(spared) };
    let mut rarest = vec![true; order.len()];
    order.iter().rev().take(spared).for_each(|index| rarest[*index] = false);
    rarest
}

//! What happens when the memory for stacks is used up: the rarest are cut and merged, until half of it is free.
//!
//! A stack that is cut keeps its youngest frames below a `[truncated]` root, so that self times stay exact for as long
//! as a frame is left. Nothing is dropped: weights move from a stack to what is left of it. Labels are never let go of,
//! since profiles of one tenant rely on them.

use std::collections::HashSet;

use crate::aggregator::{Aggregator, LastStack};
use crate::frame_table::{FrameIndex, LocatedFrame};
use crate::stack_tree::{StackIndex, StackTree};
use crate::sums::{Key, Origin};

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
    /// Merges the rarest stacks until the aggregate takes so much less than it may that its tables can grow again.
    pub(crate) fn merge_rarest(&mut self) {
        self.last = LastStack::default();
        let wanted = self.asked_bytes / 5 * 2;
        if self.bytes() > wanted && self.origin_bytes() > self.bytes() / 2 {
            self.forget_origins();
        }
        for cut in CUTS {
            if self.bytes() <= wanted {
                break;
            }
            self.cut(cut);
        }
        // If even that was not enough, it is not tried again for each sample. A table that grows is there twice for a moment,
        // and half as large again.
        self.max_bytes = self.asked_bytes.max(self.bytes().saturating_mul(5) / 2);
    }

    /// How much of [`Aggregator::bytes`] says where and when samples were taken: all sums but one for each stack.
    fn origin_bytes(&self) -> usize {
        let mut is_used = vec![false; self.stacks.len()];
        self.sums.iter().for_each(|(key, _)| is_used[key.stack.index()] = true);
        let stacks = is_used.into_iter().filter(|used| *used).count();
        let sums = self.sums.len().max(1);
        self.sums.bytes() / sums * (sums - stacks.min(sums)) + self.thread_bytes()
    }

    /// Lets go of thread and time of the rarest samples.
    fn forget_origins(&mut self) {
        let weights = self.sums.iter().map(|(_, sum)| (sum.tally.weight, sum.tally.samples)).zip(0..);
        let is_rare = rarest(weights.collect(), SPARED_ORIGINS, self.sums.len());
        self.sums.regroup(|position, key| if is_rare[position] { without_origin(key) } else { key });
        self.drop_unused_threads();
    }

    fn cut(&mut self, cut: Cut) {
        let mut is_rare = self.rarest_stacks(cut.spared);
        let merged = self.frames.intern(LocatedFrame::Merged);
        let mut stacks = StackTree::default();
        // Where each stack goes; `is_rare` is soon whether it was cut.
        let mut moved: Vec<StackIndex> = vec![StackIndex::EMPTY; self.stacks.len()];
        let mut frames = Vec::new();
        for (key, _) in self.sums.iter() {
            let stack = key.stack.index();
            if moved[stack] != StackIndex::EMPTY {
                continue;
            }
            frames.clear();
            frames.extend(self.stacks.frames(key.stack));
            is_rare[stack] &= frames.len() > cut.keep;
            if is_rare[stack] {
                frames.truncate(cut.keep);
                frames.push(merged);
            }
            moved[stack] =
                frames.iter().rev().fold(StackIndex::EMPTY, |caller, frame| stacks.push(caller, *frame));
            // What shared its older frames need not share its younger ones.
            if cut.keep > 0 && stacks.len() > self.stacks.len() {
                return;
            }
        }
        self.stacks = stacks;
        self.sums.regroup(|_, key| {
            let index = key.stack.index();
            let key = if is_rare[index] { without_origin(key) } else { key };
            Key { stack: moved[index], ..key }
        });
        drop((moved, is_rare));
        self.drop_unused_frames();
        self.drop_unused_threads();
    }

    /// Whether each stack is among those with the least weight. Those that were cut before come first.
    fn rarest_stacks(&self, spared: usize) -> Vec<bool> {
        let mut of_stack = vec![(0u64, 0u64); self.stacks.len()];
        for (key, sum) in self.sums.iter() {
            let (weight, samples) = &mut of_stack[key.stack.index()];
            *weight = weight.saturating_add(sum.tally.weight);
            *samples = samples.saturating_add(sum.tally.samples);
        }
        let merged = self.merged_stacks();
        let mut weights = Vec::new();
        for (key, _) in self.sums.iter() {
            let index = key.stack.index();
            // Each stack once: what is taken is no weight.
            if let (weight, samples @ 1..) = std::mem::take(&mut of_stack[index]) {
                weights.push(((!merged[index], weight, samples), index));
            }
        }
        drop(of_stack);
        rarest(weights, spared, self.stacks.len())
    }

    /// Whether each stack has lost its older frames before.
    fn merged_stacks(&self) -> Vec<bool> {
        let mut is_merged = vec![false; self.stacks.len()];
        for (index, (frame, caller)) in self.stacks.iter() {
            is_merged[index.index()] =
                is_merged[caller.index()] || self.frames.get(frame).0 == LocatedFrame::Merged;
        }
        is_merged
    }

    fn drop_unused_frames(&mut self) {
        let mut is_used = vec![false; self.frames.len()];
        self.stacks.iter().for_each(|(_, (frame, _))| is_used[frame.index()] = true);
        let (frames, moved) = std::mem::take(&mut self.frames).compacted(&is_used);
        self.frames = frames;
        let rename = |frame: FrameIndex| moved[frame.index()].expect("the frames of all stacks are kept");
        self.stacks = std::mem::take(&mut self.stacks).renamed(rename);
    }

    fn drop_unused_threads(&mut self) {
        let used: HashSet<u64> = self.sums.origins().filter_map(|origin| origin.thread).collect();
        self.threads.retain(|number, _| used.contains(number));
        self.threads.shrink_to_fit();
    }
}

fn without_origin(key: Key) -> Key {
    Key { origin: Origin { thread: None, ..key.origin }, slice: None, ..key }
}

/// Marks the least of some places, with their weights: all but one in `spared`, or all if that is 0.
fn rarest<W: Ord>(mut weights: Vec<(W, usize)>, spared: usize, places: usize) -> Vec<bool> {
    weights.sort_unstable();
    let spared = if spared == 0 { 0 } else { weights.len().div_ceil(spared) };
    let mut rarest = vec![false; places];
    weights.iter().rev().skip(spared).for_each(|(_, place)| rarest[*place] = true);
    rarest
}

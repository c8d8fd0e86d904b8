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
struct Step {
    /// How many of them: all but one in this many, 1 for all.
    all_but_one_in: usize,
    /// How many frames they keep at most; `None` to leave the stack and only let go of thread and time.
    keep: Option<usize>,
}

/// From the least harm to the most; each only if the one before was not enough.
const STEPS: [Step; 5] = [
    Step { all_but_one_in: 8, keep: None },
    Step { all_but_one_in: 2, keep: Some(16) },
    Step { all_but_one_in: 4, keep: Some(4) },
    Step { all_but_one_in: 16, keep: Some(1) },
    Step { all_but_one_in: 1, keep: Some(0) },
];

impl Aggregator {
    /// Merges the rarest stacks until the aggregate takes no more than half of what it may.
    pub(crate) fn merge_rarest(&mut self) {
        for step in STEPS {
            if step.keep.is_none() && self.origin_bytes() < self.bytes() / 2 {
                continue;
            }
            self.apply(step);
            if self.bytes() <= self.asked_bytes / 2 {
                break;
            }
        }
        // If even that was not enough, it is not tried again for each sample.
        self.max_bytes = self.asked_bytes.max(self.bytes().saturating_mul(2));
    }

    fn apply(&mut self, step: Step) {
        let rarest = self.rarest(step.all_but_one_in);
        let merged = self.frames.intern(LocatedFrame::Merged);
        let old_stacks = std::mem::take(&mut self.stacks);
        let mut is_used = vec![false; self.frames.len()];
        let mut moved = Vec::with_capacity(old_stacks.len());
        let mut cut = Vec::new();
        for (stack, is_rare) in old_stacks.into_iter().zip(&rarest) {
            let keep = step.keep.filter(|keep| *is_rare && stack.len() > *keep);
            let stack: Box<[FrameIndex]> = match keep {
                None => stack,
                Some(keep) => {
                    cut.clear();
                    cut.extend_from_slice(&stack[..keep]);
                    cut.push(merged);
                    cut.as_slice().into()
                }
            };
            stack.iter().for_each(|frame| is_used[frame.index()] = true);
            let (index, _) = self.stacks.insert_full(stack);
            moved.push((u32::try_from(index).expect("no more than before"), keep.is_some()));
        }
        self.move_sums(&moved, &rarest, step);
        self.drop_unused(&is_used);
    }

    /// Whether each stack is among those with the least weight.
    fn rarest(&self, all_but_one_in: usize) -> Vec<bool> {
        let mut weights = vec![(0, 0); self.stacks.len()];
        for (key, sum) in &self.sums {
            let weight: &mut (u64, u64) = &mut weights[key.stack as usize];
            *weight = (weight.0.saturating_add(sum.tally.weight), weight.1.saturating_add(sum.tally.samples));
        }
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|stack| weights[*stack]);
        let spared = if all_but_one_in == 1 { 0 } else { order.len() / all_but_one_in };
        let mut rarest = vec![true; order.len()];
        order.iter().rev().take(spared).for_each(|stack| rarest[*stack] = false);
        rarest
    }

    fn move_sums(&mut self, moved: &[(u32, bool)], rarest: &[bool], step: Step) {
        for (key, sum) in std::mem::take(&mut self.sums) {
            let (stack, is_cut) = moved[key.stack as usize];
            let forgets = is_cut || (rarest[key.stack as usize] && step.keep.is_none());
            let (thread, slice) = if forgets { (None, None) } else { (key.thread, key.slice) };
            self.sums.entry(Key { stack, thread, slice, ..key }).or_default().add(sum);
        }
    }

    fn drop_unused(&mut self, is_used: &[bool]) {
        let (frames, moved) = std::mem::take(&mut self.frames).compacted(is_used);
        self.frames = frames;
        let stacks = std::mem::take(&mut self.stacks);
        let renamed =
            |stack: Box<[FrameIndex]>| stack.iter().filter_map(|frame| moved[frame.index()]).collect();
        self.stacks = stacks.into_iter().map(renamed).collect();
        self.stack_frames = self.stacks.iter().map(|stack| stack.len()).sum();
        let used: HashSet<u64> = self.sums.keys().filter_map(|key| key.thread).collect();
        self.threads.retain(|number, _| used.contains(number));
        self.sums.shrink_to_fit();
        self.stacks.shrink_to_fit();
        self.threads.shrink_to_fit();
    }
}

//! The distinct stacks as a tree: a stack is its youngest frame, and the stack of its caller.
//!
//! Stacks of one guest share most of their older frames, so that a further one usually costs a node or two, however deep
//! it is.

use crate::frame_table::FrameIndex;
use crate::table::Table;

/// A stack of one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StackIndex(u32);

impl StackIndex {
    /// The stack without frames, of which each other one begins.
    pub(crate) const EMPTY: Self = Self(0);

    /// From 0, which is the empty one; a caller's is less than those of all that it calls.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    caller: StackIndex,
    youngest: FrameIndex,
}

/// Stacks, and all stacks of their callers.
#[derive(Debug, Default)]
pub(crate) struct StackTree(Table<Node>);

impl StackTree {
    /// The stack of `caller` with another, younger frame.
    pub(crate) fn push(&mut self, caller: StackIndex, youngest: FrameIndex) -> StackIndex {
        StackIndex(self.0.entry(Node { caller, youngest }).0 + 1)
    }

    /// The youngest frame of a stack, and the stack of its caller; `None` for the empty one.
    pub(crate) fn youngest(&self, stack: StackIndex) -> Option<(FrameIndex, StackIndex)> {
        let (node, ()) = self.0.get(stack.0.checked_sub(1)?);
        Some((node.youngest, node.caller))
    }

    /// The frames of a stack, youngest first.
    pub(crate) fn frames(&self, mut stack: StackIndex) -> impl Iterator<Item = FrameIndex> {
        std::iter::from_fn(move || {
            let (frame, caller) = self.youngest(stack)?;
            stack = caller;
            Some(frame)
        })
    }

    /// How many stacks there are, those of callers and the empty one included.
    pub(crate) fn len(&self) -> usize {
        self.0.len() + 1
    }

    /// Marks the callers of all stacks that are marked, by [`StackIndex::index`].
    pub(crate) fn mark_callers(&self, marks: &mut [bool]) {
        // Callers come before those that they call.
        for (index, (node, ())) in self.0.iter().enumerate().rev() {
            if marks[index + 1] {
                marks[node.caller.index()] = true;
            }
        }
    }

    /// All stacks but the empty one, each after its caller, with what [`StackTree::youngest`] says.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StackIndex, (FrameIndex, StackIndex))> {
        (1..).map(StackIndex).zip(self.0.iter().map(|(node, ())| (node.youngest, node.caller)))
    }

    /// The same tree with other numbers for its frames.
    pub(crate) fn renamed(self, rename: impl Fn(FrameIndex) -> FrameIndex) -> Self {
        let mut renamed = Self::default();
        for (node, ()) in self.0 {
            // No two frames have one number, so that every node keeps its own.
            renamed.push(node.caller, rename(node.youngest));
        }
        renamed
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// As [`Table::bytes_for`].
    pub(crate) fn bytes_for(&self, more: usize) -> usize {
        self.0.bytes_for(more)
    }
}

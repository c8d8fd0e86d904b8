//! The stacks of a profile merged into a tree: the frames of the flame graph.
//!
//! A node is one function called through one chain of callers. Functions are told apart by shown name and category,
//! so that an inlined copy is a frame of its own. Siblings are in the order of their names.
//!
//! The stacks are sorted first, so that those of a node lie side by side and a node too narrow to be drawn is
//! passed over with all above it. All walks are iterative: how deep a stack is, is up to its file.

use std::{cmp::Reverse, collections::HashMap, ops::Range, sync::Arc};

use flamewalk_profile::{FrameId, NameId, Names, Profile, SourceLocation, Stack, Tally};

use crate::category::Category;

/// A frame of the flame graph.
pub(crate) struct Node {
    pub(crate) name: NameId,
    pub(crate) category: Category,
    /// What fell on this node and all above it.
    pub(crate) total: Tally,
    /// The source lines behind it, if any is known.
    pub(crate) lines: Option<Lines>,
}

/// The source lines behind a node.
pub(crate) struct Lines {
    pub(crate) hottest_file: Arc<str>,
    pub(crate) hottest_line: u32,
    /// How many others there are.
    pub(crate) others: usize,
}

/// The nodes that are wide enough, callers before what they call.
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    /// The tree as folded lines in its order, with the index of a node as its name. The weight of nodes that are
    /// left out counts for their callers.
    pub(crate) folded: Vec<String>,
    pub(crate) total: Tally,
}

/// A function's place in the order of names, and what it is.
#[derive(Clone, Copy)]
struct Function {
    rank: usize,
    name: NameId,
    category: Category,
}

/// The stacks of a node that is still to come.
struct Pending {
    stacks: Range<usize>,
    /// Position of the node's frame in them.
    depth: usize,
    total: Tally,
    /// Length of its caller's path.
    path: usize,
}

/// The stacks in the order of the tree, oldest frame first: those that share callers lie side by side.
struct Sorted<'p> {
    stacks: Vec<Stack<'p>>,
    /// By frame.
    functions: Vec<Function>,
    min_weight: f64,
}

impl Tree {
    /// Merges the stacks of `profile` that have any weight, and leaves out nodes narrower than `min_share` of it.
    pub(crate) fn new(profile: &Profile, names: &Names, min_share: f64) -> Self {
        let sorted = Sorted::new(profile, names, min_share);
        let mut tree = Self { nodes: Vec::new(), folded: Vec::new(), total: sum(&sorted.stacks) };
        let mut path = String::new();
        let mut pending = sorted.called(0..sorted.stacks.len(), 0, 0);
        while let Some(node) = pending.pop() {
            path.truncate(node.path);
            if node.depth > 0 {
                path.push(';');
            }
            path.push_str(&tree.nodes.len().to_string());
            let above = sorted.called(node.stacks.clone(), node.depth + 1, path.len());
            let self_weight = node.total.weight - above.iter().map(|node| node.total.weight).sum::<u64>();
            if self_weight > 0 {
                tree.folded.push(format!("{path} {self_weight}"));
            }
            pending.extend(above);

            let stacks = &sorted.stacks[node.stacks];
            let Function { name, category, .. } = sorted.function(&stacks[0], node.depth);
            let lines = lines(profile, stacks, node.depth);
            tree.nodes.push(Node { name, category, total: node.total, lines });
        }
        tree
    }
}

impl<'p> Sorted<'p> {
    fn new(profile: &'p Profile, names: &Names, min_share: f64) -> Self {
        let functions = functions(profile, names);
        let rank = |id: &FrameId| functions[id.index()].rank;
        let mut stacks: Vec<_> = profile.stacks().filter(|stack| stack.tally.weight > 0).collect();
        stacks.sort_unstable_by(|a, b| a.frames.iter().map(rank).cmp(b.frames.iter().map(rank)));
        let min_weight = sum(&stacks).weight as f64 * min_share;
        Self { stacks, functions, min_weight }
    }

    fn function(&self, stack: &Stack<'_>, depth: usize) -> Function {
        self.functions[stack.frames[depth].index()]
    }

    /// The nodes at `depth` of a range of stacks that share everything below, last first: the order of a pile.
    fn called(&self, range: Range<usize>, depth: usize, path: usize) -> Vec<Pending> {
        let rank = |stack: &Stack<'_>| self.function(stack, depth).rank;
        let stacks = &self.stacks[range.clone()];
        // Stacks that end here sort before those that go on.
        let ended = stacks.partition_point(|stack| stack.frames.len() == depth);
        let mut start = range.start + ended;
        let mut called = Vec::new();
        for group in stacks[ended..].chunk_by(|a, b| rank(a) == rank(b)) {
            let end = start + group.len();
            let total = sum(group);
            if total.weight as f64 >= self.min_weight {
                called.push(Pending { stacks: start..end, depth, total, path });
            }
            start = end;
        }
        called.reverse();
        called
    }
}

/// The function of each frame.
fn functions(profile: &Profile, names: &Names) -> Vec<Function> {
    let of_frame: Vec<_> = profile.frames().map(|(id, frame)| (names.id(id), Category::of(frame))).collect();
    let mut ordered = of_frame.clone();
    ordered.sort_unstable_by_key(|&(name, category)| (names.text(name), category));
    ordered.dedup();
    let ranks: HashMap<_, _> = ordered.into_iter().zip(0..).collect();
    of_frame
        .into_iter()
        .map(|(name, category)| Function { rank: ranks[&(name, category)], name, category })
        .collect()
}

fn lines(profile: &Profile, stacks: &[Stack<'_>], depth: usize) -> Option<Lines> {
    let mut weights: HashMap<(&Arc<str>, u32), u64> = HashMap::new();
    for stack in stacks {
        if let Some(SourceLocation { file, line: line @ 1.., .. }) =
            &profile.frame(stack.frames[depth]).location
        {
            *weights.entry((file, *line)).or_default() += stack.tally.weight;
        }
    }
    // The first of the hottest, so that the choice does not depend on the order of the map.
    let (&(file, line), _) = weights.iter().min_by_key(|&(&place, &weight)| (Reverse(weight), place))?;
    Some(Lines { hottest_file: file.clone(), hottest_line: line, others: weights.len() - 1 })
}

/// Cannot overflow: no part of a profile exceeds its total.
fn sum(stacks: &[Stack<'_>]) -> Tally {
    let samples = stacks.iter().map(|stack| stack.tally.samples).sum();
    let weight = stacks.iter().map(|stack| stack.tally.weight).sum();
    Tally { samples, weight }
}

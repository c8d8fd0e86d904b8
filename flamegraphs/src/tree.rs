//! The stacks of a profile merged into a tree: the frames of the flame graph.
//!
//! A node is one function called through one chain of callers. Functions are told apart by shown name and category,
//! so that an inlined copy is a frame of its own. Siblings are in the order of their names. All walks are
//! iterative: how deep a stack is, is up to its file.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use flamewalk_profile::{NameId, Names, Profile, Tally};
use indexmap::IndexMap;

use crate::category::Category;

/// A frame of the flame graph.
pub(crate) struct Node {
    pub(crate) name: NameId,
    pub(crate) category: Category,
    /// What fell on this node and all above it.
    pub(crate) total: Tally,
    /// Weight of each source line.
    lines: HashMap<(Arc<str>, u32), u64>,
    children: Vec<usize>,
}

/// The source lines behind a node.
pub(crate) struct Lines<'t> {
    pub(crate) hottest_file: &'t str,
    pub(crate) hottest_line: u32,
    /// How many others there are.
    pub(crate) others: usize,
}

impl Node {
    /// `None` if no line is known.
    pub(crate) fn lines(&self) -> Option<Lines<'_>> {
        // The first of the hottest, so that the choice does not depend on the order of the map.
        let ((file, line), _) = self.lines.iter().min_by_key(|&(place, &weight)| (Reverse(weight), place))?;
        Some(Lines { hottest_file: file, hottest_line: *line, others: self.lines.len() - 1 })
    }
}

/// All nodes, and those at the root.
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    roots: Vec<usize>,
    /// The sum over the roots.
    pub(crate) total: Tally,
}

impl Tree {
    /// Merges the stacks of `profile` that have any weight.
    pub(crate) fn new(profile: &Profile, names: &Names) -> Self {
        type Key = (Option<usize>, NameId, Category);
        let mut nodes: IndexMap<Key, Node> = IndexMap::new();
        let mut tree = Self { nodes: Vec::new(), roots: Vec::new(), total: Tally::default() };
        for stack in profile.stacks().filter(|stack| stack.tally.weight > 0) {
            add(&mut tree.total, stack.tally);
            let mut parent = None;
            for &id in stack.frames {
                let frame = profile.frame(id);
                let (name, category) = (names.id(id), Category::of(frame));
                let key = (parent, name, category);
                let index = nodes.get_index_of(&key).unwrap_or_else(|| {
                    let index = nodes.len();
                    match parent {
                        Some(parent) => nodes[parent].children.push(index),
                        None => tree.roots.push(index),
                    }
                    nodes.insert(key, Node::new(name, category));
                    index
                });
                let node = &mut nodes[index];
                add(&mut node.total, stack.tally);
                if let Some(location) = frame.location.as_ref().filter(|location| location.line > 0) {
                    *node.lines.entry((location.file.clone(), location.line)).or_default() +=
                        stack.tally.weight;
                }
                parent = Some(index);
            }
        }
        tree.nodes = nodes.into_values().collect();
        tree.sort(names);
        tree
    }

    fn sort(&mut self, names: &Names) {
        let keys: Vec<_> = self.nodes.iter().map(|node| (names.text(node.name), node.category)).collect();
        self.roots.sort_unstable_by_key(|&node| keys[node]);
        for node in &mut self.nodes {
            node.children.sort_unstable_by_key(|&child| keys[child]);
        }
    }

    /// The tree as folded lines, in its order, with the index of a node as its name. A node narrower than
    /// `min_share` of the total is left out, and its weight counts as its parent's.
    pub(crate) fn folded(&self, min_share: f64) -> Vec<String> {
        let min_weight = self.total.weight as f64 * min_share;
        let is_wide = |&&node: &&usize| self.nodes[node].total.weight as f64 >= min_weight;
        let mut lines = Vec::new();
        let mut path = String::new();
        // Nodes that are still to come, each with the length of its parent's path.
        let mut pending: Vec<(usize, usize)> =
            self.roots.iter().rev().filter(is_wide).map(|&root| (root, 0)).collect();
        while let Some((index, parent)) = pending.pop() {
            path.truncate(parent);
            if parent > 0 {
                path.push(';');
            }
            path.push_str(&index.to_string());
            let node = &self.nodes[index];
            let mut weight = node.total.weight;
            for &child in node.children.iter().rev().filter(is_wide) {
                weight -= self.nodes[child].total.weight;
                pending.push((child, path.len()));
            }
            if weight > 0 {
                lines.push(format!("{path} {weight}"));
            }
        }
        lines
    }
}

impl Node {
    fn new(name: NameId, category: Category) -> Self {
        let total = Tally::default();
        Self { name, category, total, lines: HashMap::new(), children: Vec::new() }
    }
}

/// Cannot overflow: no part of a profile exceeds its total.
fn add(sum: &mut Tally, part: Tally) {
    sum.samples += part.samples;
    sum.weight += part.weight;
}

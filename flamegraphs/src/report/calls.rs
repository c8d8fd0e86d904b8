//! The stacks of all profiles of a report as two trees, and the samples on them.
//!
//! The *calls* are the flame graph: a node is a function called through one chain of callers; inlined copies are nodes
//! of their own. The *paths* are the same one step finer: a node is a place in a function (a source line, a bytecode
//! offset) reached through one chain of places. Each path knows the call that it is a part of, so that the figures of
//! the page's graph and of its source lines come from the same samples.
//!
//! Both trees are in preorder: a node comes before what it calls, and all below it lies side by side. All walks are
//! iterative: how deep a stack is, is up to its file.

use std::{cmp::Ordering, ops::Range};

use flamewalk_profile::{FrameId, Labels, Profile, Sample, printable};
use indexmap::IndexSet;

use super::{columns::Columns, functions::Functions};
use crate::category::Category;

/// A place in a function. Zero stands for what is not known.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Place {
    /// The function's number, twice, and one more for an inlined copy.
    call: u32,
    /// Position in the texts, from 1.
    file: u32,
    line: u32,
    /// Position in the texts, from 1.
    module: u32,
    /// Offset in the guest's binary, from 1.
    bytecode: u64,
}

/// The trees and the samples.
pub(super) struct Calls {
    /// Files and modules.
    pub(super) texts: IndexSet<String>,
    /// The sets of labels of all profiles.
    pub(super) label_sets: IndexSet<Labels>,
    places: IndexSet<Place>,
    calls: Preorder,
    paths: Preorder,
    /// The call of each path.
    call_of_path: Vec<u32>,
    samples: Vec<Fallen>,
}

/// A tree as the depth and the content of its nodes.
#[derive(Default)]
struct Preorder {
    depths: Vec<u32>,
    contents: Vec<u32>,
}

/// What fell on a path.
struct Fallen {
    path: u32,
    profile: u32,
    sample: Sample,
    labels: u32,
}

/// All stacks as positions in the places, oldest first.
#[derive(Default)]
struct Stacks {
    places: Vec<u32>,
    ranges: Vec<Range<usize>>,
}

impl Stacks {
    fn get(&self, index: usize) -> &[u32] {
        &self.places[self.ranges[index].clone()]
    }
}

impl Calls {
    /// `left_out` says which frames of the profile with this number are taken out of their stacks.
    pub(super) fn new(
        profiles: &[&Profile],
        functions: &Functions,
        left_out: impl Fn(usize, FrameId) -> bool,
    ) -> Self {
        let mut texts = IndexSet::new();
        let mut places: IndexSet<Place> = IndexSet::new();
        let of_frames: Vec<_> = profiles
            .iter()
            .enumerate()
            .map(|(number, profile)| places_of(profile, number, functions, &mut texts))
            .inspect(|of_frame| places.extend(of_frame))
            .collect();
        // In the order of their functions, both trees have nearly the same order, and the differences are small.
        places.sort_unstable();

        let mut stacks = Stacks::default();
        // The number of each profile's first stack.
        let mut first = Vec::new();
        for (number, (profile, of_frame)) in profiles.iter().zip(of_frames).enumerate() {
            // Positions have 32 bits as frames' ids have.
            let position = |place| places.get_index_of(place).expect("every place was inserted") as u32;
            let of_frame: Vec<u32> = of_frame.iter().map(position).collect();
            first.push(stacks.ranges.len());
            for stack in profile.stacks() {
                let start = stacks.places.len();
                let kept = stack.frames.iter().filter(|&&frame| !left_out(number, frame));
                stacks.places.extend(kept.map(|frame| of_frame[frame.index()]));
                // No stack is empty.
                if stacks.places.len() == start {
                    stacks.places.push(of_frame[stack.frames[0].index()]);
                }
                stacks.ranges.push(start..stacks.places.len());
            }
        }
        let call = |place: &u32| places[*place as usize].call;

        let mut order: Vec<usize> = (0..stacks.ranges.len()).collect();
        order.sort_unstable_by(|&a, &b| stacks.get(a).iter().map(call).cmp(stacks.get(b).iter().map(call)));
        let (calls, call_of_stack) = Preorder::new(&stacks, &order, call);
        order.sort_unstable_by(|&a, &b| stacks.get(a).cmp(stacks.get(b)));
        let (paths, path_of_stack) = Preorder::new(&stacks, &order, |&place| place);
        let call_of_path = follow(&paths, &calls, &order, &path_of_stack, &call_of_stack);

        let mut label_sets = IndexSet::new();
        let mut samples = Vec::new();
        for ((number, profile), first) in (0..).zip(profiles).zip(first) {
            let labels: Vec<u32> =
                profile.label_sets().map(|(_, set)| label_sets.insert_full(set.clone()).0 as u32).collect();
            samples.extend(profile.samples().map(|sample| Fallen {
                path: path_of_stack[first + sample.stack.index()],
                profile: number,
                labels: labels[sample.origin.labels.index()],
                sample,
            }));
        }
        samples.sort_unstable_by_key(|fallen| {
            let origin = fallen.sample.origin;
            (fallen.path, fallen.profile, origin.thread, fallen.labels, origin.slice)
        });
        Self { texts, label_sets, places, calls, paths, call_of_path, samples }
    }

    /// The function of each call, and the call that it is called from, which comes before it.
    pub(super) fn functions(&self) -> impl Iterator<Item = (Option<usize>, usize)> {
        let parents = self.calls.parents();
        let parent = move |call| Some(parents[call] as usize).filter(|&parent| parent != call);
        self.calls.contents.iter().enumerate().map(move |(call, &key)| (parent(call), key as usize / 2))
    }

    /// Everything as columns of numbers, each described where the page reads it (`dataset.js`).
    pub(super) fn write(&self, columns: &mut Columns) {
        columns.push("callRise", self.calls.rises());
        columns.push("callFunction", self.calls.contents.iter().map(|&call| u64::from(call)));
        columns.push("pathRise", self.paths.rises());
        columns.push("pathPlace", self.paths.contents.iter().map(|&place| u64::from(place)));
        let call = |path: u32| u64::from(self.call_of_path[path as usize]);
        // The node of a caller comes before what it calls; of a root, its own number is given.
        let below = |(path, parent)| if path == parent { call(path) } else { call(path) - call(parent) };
        columns.push("pathCall", (0..).zip(self.paths.parents()).map(below));

        let places = || self.places.iter();
        columns.push("placeFile", places().map(|place| place.file.into()));
        columns.push("placeLine", places().map(|place| place.line.into()));
        columns.push("placeModule", places().map(|place| place.module.into()));
        columns.push("placeBytecode", places().map(|place| place.bytecode));

        let samples = || self.samples.iter();
        let mut before = 0;
        columns.push(
            "samplePath",
            samples().map(|fallen| u64::from(fallen.path - std::mem::replace(&mut before, fallen.path))),
        );
        columns.push("sampleProfile", samples().map(|fallen| fallen.profile.into()));
        let thread = |fallen: &Fallen| fallen.sample.origin.thread.map_or(0, |id| id.index() as u64 + 1);
        columns.push("sampleThread", samples().map(thread));
        columns.push("sampleLabels", samples().map(|fallen| fallen.labels.into()));
        let slice = |fallen: &Fallen| fallen.sample.origin.slice.map_or(0, |slice| u64::from(slice) + 1);
        columns.push("sampleSlice", samples().map(slice));
        columns.push("sampleCount", samples().map(|fallen| fallen.sample.tally.samples));
        columns.push("sampleWeight", samples().map(|fallen| fallen.sample.tally.weight));
    }
}

/// The place of each frame of a profile.
fn places_of(
    profile: &Profile,
    number: usize,
    functions: &Functions,
    texts: &mut IndexSet<String>,
) -> Vec<Place> {
    let mut text = |text: &str| texts.insert_full(printable(text)).0 as u32 + 1;
    profile
        .frames()
        .map(|(id, frame)| {
            let location = frame.location.as_ref();
            Place {
                call: 2 * functions.of_frame(number, id.index())
                    + u32::from(Category::of(frame) == Category::InlinedGuest),
                file: location.map_or(0, |location| text(&location.file)),
                line: location.map_or(0, |location| location.line),
                module: frame.module.as_deref().map_or(0, &mut text),
                bytecode: frame.bytecode_offset.map_or(0, |offset| u64::from(offset) + 1),
            }
        })
        .collect()
}

impl Preorder {
    /// Merges stacks, in an order that sorts them by the contents of their frames, and says at which node each ends.
    fn new(stacks: &Stacks, order: &[usize], content: impl Fn(&u32) -> u32) -> (Self, Vec<u32>) {
        let mut tree = Self::default();
        let mut ends = vec![0; order.len()];
        let mut before: &[u32] = &[];
        for &index in order {
            let stack = stacks.get(index);
            let same = |(a, b): &(&u32, &u32)| content(a).cmp(&content(b)) == Ordering::Equal;
            let shared = before.iter().zip(stack).take_while(same).count();
            for (depth, place) in stack.iter().enumerate().skip(shared) {
                tree.depths.push(depth as u32);
                tree.contents.push(content(place));
            }
            // In sorted order, a stack comes after all that it starts with: the last node is its own.
            ends[index] = tree.depths.len() as u32 - 1;
            before = stack;
        }
        (tree, ends)
    }

    /// How many levels each node is above the deepest that could follow the one before it.
    fn rises(&self) -> impl Iterator<Item = u64> {
        let mut possible = 0;
        self.depths.iter().map(move |&depth| {
            let rise = possible - u64::from(depth);
            possible = u64::from(depth) + 1;
            rise
        })
    }

    /// The caller of each node; its own number where there is none.
    fn parents(&self) -> Vec<u32> {
        let mut above: Vec<u32> = Vec::new();
        let parent = |(number, &depth): (u32, &u32)| {
            above.truncate(depth as usize);
            let parent = above.last().copied().unwrap_or(number);
            above.push(number);
            parent
        };
        (0..).zip(&self.depths).map(parent).collect()
    }
}

/// The call of each path: the stack that a path is a part of leads to both.
fn follow(
    paths: &Preorder,
    calls: &Preorder,
    order: &[usize],
    path_of_stack: &[u32],
    call_of_stack: &[u32],
) -> Vec<u32> {
    let (path_parents, call_parents) = (paths.parents(), calls.parents());
    let unknown = u32::MAX;
    let mut call_of_path = vec![unknown; paths.depths.len()];
    for &index in order {
        let (mut path, mut call) = (path_of_stack[index], call_of_stack[index]);
        while call_of_path[path as usize] == unknown {
            call_of_path[path as usize] = call;
            (path, call) = (path_parents[path as usize], call_parents[call as usize]);
        }
    }
    call_of_path
}

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, SourceLocation, Tally};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// One of a few functions at one of a few lines, inlined or not.
    fn frame(choice: u32) -> Frame {
        let location = SourceLocation { file: "file".into(), line: choice / 8 + 1, column: 0 };
        let name = format!("f{}", choice % 4);
        Frame { location: Some(location), inlined: choice % 8 >= 4, ..Frame::guest(name) }
    }

    /// From the root to a node.
    fn chain(tree: &Preorder, node: u32) -> Vec<u32> {
        let parents = tree.parents();
        let mut chain = vec![node];
        while let Some(&last) = chain.last().filter(|&&last| parents[last as usize] != last) {
            chain.push(parents[last as usize]);
        }
        chain.reverse();
        chain
    }

    proptest! {
        /// Going up from where a sample lies gives its stack, in both trees, and no two nodes are the same.
        #[test]
        fn the_trees_are_the_stacks(stacks in vec(vec(0_u32..24, 1..8), 1..30), left_out in 0_u32..24) {
            let mut profile = Profile::default();
            for stack in &stacks {
                let ids: Vec<_> = stack.iter().map(|&choice| profile.intern(frame(choice))).collect();
                profile.add(&ids, Tally { samples: 1, weight: 1 })?;
            }
            let functions = Functions::new(&[&profile], |_, _| None);
            let is_left_out = |id: FrameId| *profile.frame(id) == frame(left_out);
            let calls = Calls::new(&[&profile], &functions, |_, id| is_left_out(id));

            for fallen in &calls.samples {
                let frames = profile.stack(fallen.sample.stack).frames;
                let mut kept: Vec<_> = frames.iter().copied().filter(|&id| !is_left_out(id)).collect();
                if kept.is_empty() {
                    kept.push(frames[0]);
                }
                let paths = chain(&calls.paths, fallen.path);
                prop_assert_eq!(paths.len(), kept.len());
                let nodes = chain(&calls.calls, calls.call_of_path[fallen.path as usize]);
                prop_assert_eq!(nodes.len(), kept.len());
                for ((id, path), call) in kept.into_iter().zip(paths).zip(nodes) {
                    let place = calls.places[calls.paths.contents[path as usize] as usize];
                    let key = calls.calls.contents[call as usize];
                    prop_assert_eq!(calls.call_of_path[path as usize], call);
                    prop_assert_eq!(place.call, key);
                    prop_assert_eq!(place.line, profile.frame(id).location.as_ref().unwrap().line);
                    let name = &functions.all[key as usize / 2].name;
                    prop_assert_eq!((name.as_str(), key % 2 == 1), (&*profile.frame(id).name, profile.frame(id).inlined));
                }
            }
            for tree in [&calls.calls, &calls.paths] {
                let parents = tree.parents();
                // Roots have their own number for a parent.
                let nodes = (0..).zip(&parents).zip(&tree.contents);
                let mut seen: Vec<_> =
                    nodes.map(|((node, &parent), &content)| ((parent != node).then_some(parent), content)).collect();
                seen.sort_unstable();
                seen.dedup();
                prop_assert_eq!(seen.len(), parents.len());
            }
        }
    }
}

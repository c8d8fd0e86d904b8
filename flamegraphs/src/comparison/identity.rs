//! The functions of one side's profiles, and what is known of each to find it on the other side.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use flamewalk_profile::{Frame, FrameKind, Names, Profile};
use indexmap::IndexMap;

/// What a function is called within its side. Frames with one key are one function.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) kind: FrameKind,
    /// `None` where it says nothing: for native host functions.
    pub(super) module: Option<Arc<str>>,
    pub(super) name: Name,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Name {
    Known(Arc<str>),
    /// A guest function without a name, by its index: another build may give the index to another function.
    Unnamed(u32),
}

/// A function of one side.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) key: Key,
    /// What it is shown as.
    pub(super) shown: String,
    /// The hashes of its bodies: several if functions share the name.
    pub(super) bodies: BTreeSet<u64>,
    /// Its indices in the module: several if functions share the name, or if builds differ.
    pub(super) indices: BTreeSet<u32>,
    /// The lines that its frames are at, by the file's name without its folder.
    pub(super) lines: BTreeMap<Arc<str>, BTreeMap<u32, u64>>,
}

impl Identity {
    /// The one body that it has.
    pub(super) fn body(&self) -> Option<u64> {
        only(&self.bodies)
    }

    /// The one body that it has, but for the integers in it.
    pub(super) fn body_but_constants(&self) -> Option<u64> {
        self.body().map(|body| body >> 32)
    }

    /// The one index that it has.
    pub(super) fn index(&self) -> Option<i64> {
        only(&self.indices).map(i64::from)
    }

    pub(super) fn is_named(&self) -> bool {
        matches!(self.key.name, Name::Known(_))
    }

    pub(super) fn is_guest(&self) -> bool {
        self.key.kind == FrameKind::Guest
    }
}

/// The functions of one side.
#[derive(Debug, Default)]
pub(super) struct Identities {
    functions: IndexMap<Key, Identity>,
    /// For each profile the function of each frame.
    pub(super) of_frames: Vec<Vec<usize>>,
}

impl Identities {
    pub(super) fn new(profiles: &[Profile]) -> Self {
        let mut identities = Self::default();
        for profile in profiles {
            identities.add(profile);
        }
        identities
    }

    fn add(&mut self, profile: &Profile) {
        let names = Names::new(profile);
        let of_frame: Vec<usize> = profile
            .frames()
            .map(|(id, frame)| {
                let entry = self.functions.entry(key(frame));
                let index = entry.index();
                let function = entry.or_insert_with_key(|key| Identity {
                    key: key.clone(),
                    shown: names.of(id).to_owned(),
                    bodies: BTreeSet::new(),
                    indices: BTreeSet::new(),
                    lines: BTreeMap::new(),
                });
                if !frame.inlined {
                    function.bodies.extend(frame.body_hash);
                    function.indices.extend(frame.function_index);
                }
                index
            })
            .collect();
        for stack in profile.stacks() {
            let mut counted = HashSet::new();
            for &id in stack.frames {
                let function = of_frame[id.index()];
                if let Some(location) = &profile.frame(id).location
                    && location.line > 0
                    && counted.insert((function, location))
                {
                    let lines = self.functions[function].lines.entry(file_name(&location.file)).or_default();
                    let weight = lines.entry(location.line).or_default();
                    *weight = weight.saturating_add(stack.tally.weight);
                }
            }
        }
        self.of_frames.push(of_frame);
    }

    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn get(&self, index: usize) -> &Identity {
        &self.functions[index]
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Identity> {
        self.functions.values()
    }
}

fn only<T: Copy + Ord>(values: &BTreeSet<T>) -> Option<T> {
    values.first().copied().filter(|_| values.len() == 1)
}

fn key(frame: &Frame) -> Key {
    let module = match frame.kind {
        FrameKind::Guest | FrameKind::HostCall => frame.module.clone().filter(|module| !module.is_empty()),
        FrameKind::Builtin | FrameKind::Host | FrameKind::Truncated => None,
    };
    let unnamed = match frame.kind {
        FrameKind::Guest if frame.name.is_empty() => frame.function_index,
        FrameKind::Guest => index_of_unnamed(&frame.name),
        _ => None,
    };
    let name = unnamed.map_or_else(|| Name::Known(frame.name.clone()), Name::Unnamed);
    Key { kind: frame.kind, module, name }
}

/// The index that stands in for the name of a function without one.
fn index_of_unnamed(name: &str) -> Option<u32> {
    name.strip_prefix("wasm-function[")?.strip_suffix(']')?.parse().ok()
}

fn file_name(path: &str) -> Arc<str> {
    path.rsplit(['/', '\\']).next().unwrap_or(path).into()
}

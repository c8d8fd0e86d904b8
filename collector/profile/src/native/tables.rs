//! The tables of the native format: what is in the file, and how a profile becomes it.

use std::borrow::Cow;
use std::io::Write;

use indexmap::IndexSet;
use serde::Serialize;

use super::{description::Description, malformed};
use crate::{Frame, FrameKind, Profile, ProfileError, Sample, Thread};

/// 0, or a value and 1. 64 bits hold that for every index of 32 bits.
pub(super) type OneMore = u64;

/// What a file starts with: everything but stacks and samples.
pub(super) struct Head<'a> {
    pub(super) description: Description,
    pub(super) texts: Texts<'a>,
    pub(super) body_hashes: Vec<u64>,
    pub(super) frames: Frames,
    /// Id and name of each thread.
    pub(super) threads: Vec<(u64, OneMore)>,
    pub(super) labels: LabelSets,
}

/// All texts after each other, and the length of each in bytes.
#[derive(Serialize)]
pub(super) struct Texts<'a> {
    pub(super) joined: Cow<'a, str>,
    pub(super) lengths: Vec<u64>,
}

/// A column for each field of a frame.
#[derive(Default, Serialize)]
pub(super) struct Frames {
    pub(super) kind: Vec<u8>,
    pub(super) inlined: Vec<bool>,
    pub(super) name: Vec<u32>,
    pub(super) module: Vec<OneMore>,
    pub(super) file: Vec<OneMore>,
    pub(super) line: Vec<u32>,
    pub(super) column: Vec<u32>,
    pub(super) function_index: Vec<OneMore>,
    pub(super) bytecode_offset: Vec<OneMore>,
    pub(super) text_offset: Vec<OneMore>,
    pub(super) body_hash: Vec<OneMore>,
}

/// Key and value of each label, and how many each set has.
#[derive(Default, Serialize)]
pub(super) struct LabelSets {
    pub(super) pairs: Vec<(u32, u32)>,
    pub(super) counts: Vec<u64>,
}

/// The tree of stacks, and for each stack the node that it ends with.
#[derive(Default, Serialize)]
pub(super) struct Stacks {
    /// How many nodes before this one that of the caller is; for a root, how many nodes there are before, and 1.
    pub(super) caller: Vec<u32>,
    /// [`Differences`] of the frame's id.
    pub(super) frame: Vec<i64>,
    /// [`Differences`] of the last node's position.
    pub(super) end: Vec<i64>,
    /// Stack, deepest use and least left, of the stacks for which that is known.
    pub(super) headroom: Vec<(u32, u64, u64)>,
}

pub(super) struct Samples {
    /// [`Differences`] of the stack's id.
    pub(super) stack: Vec<i64>,
    pub(super) thread: Vec<OneMore>,
    pub(super) labels: Vec<u32>,
    /// [`Differences`] of the [`OneMore`] of the slice.
    pub(super) slice: Vec<i64>,
    pub(super) samples: Vec<u64>,
    pub(super) weight: Vec<u64>,
}

/// Differences between each value and the one before, the first from 0.
#[derive(Default)]
pub(super) struct Differences(u64);

impl Differences {
    fn to(&mut self, value: u64) -> i64 {
        value.wrapping_sub(std::mem::replace(&mut self.0, value)).cast_signed()
    }

    /// The value after the one before. From a damaged file any number may come.
    pub(super) fn next(&mut self, difference: i64) -> u64 {
        self.0 = self.0.wrapping_add_signed(difference);
        self.0
    }
}

fn one_more(value: Option<u32>) -> OneMore {
    value.map_or(0, |value| u64::from(value) + 1)
}

/// A position in a table that a profile in memory leads to.
fn position(index: usize) -> u32 {
    u32::try_from(index).expect("2³² texts or stack nodes fit no memory")
}

/// The texts that were asked for so far, by the tables that refer to them.
#[derive(Default)]
struct Interner<'p>(IndexSet<&'p str>);

impl<'p> Interner<'p> {
    fn text(&mut self, text: &'p str) -> u32 {
        position(self.0.insert_full(text).0)
    }

    fn optional(&mut self, text: Option<&'p str>) -> OneMore {
        one_more(text.map(|text| self.text(text)))
    }
}

/// Writes the tables of a profile as [`Parts`](super::parts::Parts) reads them, each when it is made: the largest, of the samples, need not be
/// in memory as a whole.
pub(super) fn write(profile: &Profile, output: &mut impl Write) -> Result<(), ProfileError> {
    let mut texts = Interner::default();
    let mut hashes = IndexSet::new();
    let frames = Frames::of(profile, &mut texts, &mut hashes);
    let threads: Vec<(u64, OneMore)> =
        profile.threads().map(|(_, Thread { id, name })| (*id, texts.optional(name.as_deref()))).collect();
    let mut labels = LabelSets::default();
    for (_, set) in profile.label_sets() {
        labels.pairs.extend(set.iter().map(|(key, value)| (texts.text(key), texts.text(value))));
        labels.counts.push(set.iter().len() as u64);
    }
    let lengths = texts.0.iter().map(|text| text.len() as u64).collect();
    let texts = Texts { lengths, joined: texts.0.into_iter().collect() };
    let hashes: Vec<u64> = hashes.into_iter().collect();
    let head = (Description::of(&profile.metadata), texts, hashes, frames, threads, labels);
    put(&head, output)?;
    drop(head);
    put(&Stacks::of(profile), output)?;
    Samples::write(profile, output)
}

/// A table, or a part of one: parts follow each other without anything in between.
fn put(part: &impl Serialize, output: &mut impl Write) -> Result<(), ProfileError> {
    let bytes = postcard::to_stdvec(part).map_err(|error| malformed(&error))?;
    Ok(output.write_all(&bytes)?)
}

impl Frames {
    fn of<'p>(profile: &'p Profile, texts: &mut Interner<'p>, hashes: &mut IndexSet<u64>) -> Self {
        let mut frames = Self::default();
        for (_, frame) in profile.frames() {
            // Named one by one, so that a new field cannot be forgotten.
            let Frame {
                kind,
                name,
                module,
                location,
                function_index,
                bytecode_offset,
                text_offset,
                body_hash,
                inlined,
            } = frame;
            frames.kind.push(match kind {
                FrameKind::Guest => 0,
                FrameKind::HostCall => 1,
                FrameKind::Builtin => 2,
                FrameKind::Host => 3,
                FrameKind::Truncated => 4,
            });
            frames.inlined.push(*inlined);
            frames.name.push(texts.text(name));
            frames.module.push(texts.optional(module.as_deref()));
            let location = location.as_ref();
            frames.file.push(texts.optional(location.map(|location| &*location.file)));
            frames.line.push(location.map_or(0, |location| location.line));
            frames.column.push(location.map_or(0, |location| location.column));
            frames.function_index.push(one_more(*function_index));
            frames.bytecode_offset.push(one_more(*bytecode_offset));
            frames.text_offset.push(one_more(*text_offset));
            frames.body_hash.push(one_more(body_hash.map(|hash| position(hashes.insert_full(hash).0))));
        }
        frames
    }
}

impl Stacks {
    fn of(profile: &Profile) -> Self {
        let mut stacks = Self::default();
        // Nodes by their caller's position and their frame. A root has no caller.
        let mut nodes = IndexSet::new();
        let (mut frames, mut ends) = (Differences::default(), Differences::default());
        for (id, stack) in (0_u32..).zip(profile.stacks()) {
            let mut caller = None;
            for frame in stack.frames {
                let (node, new) = nodes.insert_full((caller, *frame));
                let node = position(node);
                if new {
                    stacks.caller.push(node - caller.unwrap_or(0) + u32::from(caller.is_none()));
                    stacks.frame.push(frames.to(frame.index() as u64));
                }
                caller = Some(node);
            }
            // No stack is empty.
            stacks.end.push(ends.to(caller.unwrap_or_default().into()));
            stacks.headroom.extend(stack.headroom.map(|room| (id, room.deepest_use, room.least_left)));
        }
        stacks
    }
}

impl Samples {
    /// Writes the columns in their order.
    fn write(profile: &Profile, output: &mut impl Write) -> Result<(), ProfileError> {
        fn column<T: Serialize>(
            profile: &Profile,
            output: &mut impl Write,
            of: impl FnMut(Sample) -> T,
        ) -> Result<(), ProfileError> {
            put(&profile.samples().map(of).collect::<Vec<T>>(), output)
        }
        let (mut stacks, mut slices) = (Differences::default(), Differences::default());
        column(profile, output, |sample| stacks.to(sample.stack.index() as u64))?;
        column(profile, output, |sample| {
            sample.origin.thread.map_or(0, |thread| thread.index() as OneMore + 1)
        })?;
        column(profile, output, |sample| position(sample.origin.labels.index()))?;
        column(profile, output, |sample| slices.to(one_more(sample.origin.slice)))?;
        column(profile, output, |sample| sample.tally.samples)?;
        column(profile, output, |sample| sample.tally.weight)
    }
}

//! The profile: interned frames, distinct stacks and what fell on each.

use indexmap::{IndexMap, IndexSet};

use crate::{Frame, Metadata, ProfileError, Tally};

/// A frame of one profile.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrameId(u32);

impl FrameId {
    /// Position in [`Profile::frames`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A distinct stack of one profile.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StackId(u32);

impl StackId {
    /// Position in [`Profile::stacks`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A distinct stack and what fell on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stack<'p> {
    /// Its frames, oldest first; never empty.
    pub frames: &'p [FrameId],
    /// The samples that fell on it.
    pub tally: Tally,
}

/// Stacks of frames, and how much fell on each.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What was measured, how, and how it ended.
    pub metadata: Metadata,
    frames: IndexSet<Frame>,
    stacks: IndexMap<Box<[FrameId]>, Tally>,
    total: Tally,
}

impl Profile {
    /// A profile without samples.
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, ..Self::default() }
    }

    /// The id of a frame, which is stored on its first use.
    ///
    /// # Panics
    /// If the profile already holds 2³² other frames, far beyond what memory allows.
    pub fn intern(&mut self, frame: Frame) -> FrameId {
        let (index, _) = self.frames.insert_full(frame);
        FrameId(u32::try_from(index).expect("2³² frames fit no memory"))
    }

    /// Adds samples to a stack, given oldest frame first. Identical stacks are merged.
    ///
    /// # Errors
    /// [`ProfileError::EmptyStack`], [`ProfileError::UnknownFrame`] for the id of another profile,
    /// [`ProfileError::Overflow`] if the profile's total exceeds 64 bits. The profile is then unchanged.
    ///
    /// # Panics
    /// If the profile already holds 2³² other stacks, far beyond what memory allows.
    pub fn add(&mut self, frames: &[FrameId], tally: Tally) -> Result<StackId, ProfileError> {
        if frames.is_empty() {
            return Err(ProfileError::EmptyStack);
        }
        if let Some(id) = frames.iter().find(|id| id.index() >= self.frames.len()) {
            return Err(ProfileError::UnknownFrame { id: id.index(), frames: self.frames.len() });
        }
        let sum = |what, total: u64, added| {
            total.checked_add(added).ok_or(ProfileError::Overflow { what, total, added })
        };
        let total = Tally {
            samples: sum("samples", self.total.samples, tally.samples)?,
            weight: sum("weight", self.total.weight, tally.weight)?,
        };
        let index = match self.stacks.get_full_mut(frames) {
            Some((index, _, present)) => {
                // No part exceeds the total, which was just checked.
                present.samples += tally.samples;
                present.weight += tally.weight;
                index
            }
            None => self.stacks.insert_full(frames.into(), tally).0,
        };
        self.total = total;
        Ok(StackId(u32::try_from(index).expect("2³² stacks fit no memory")))
    }

    /// The sum over all stacks.
    pub fn total(&self) -> Tally {
        self.total
    }

    /// Whether the profile holds no sample and no weight.
    pub fn is_empty(&self) -> bool {
        self.total == Tally::default()
    }

    /// A frame by its id.
    ///
    /// # Panics
    /// If `id` belongs to another profile with more frames.
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.index()]
    }

    /// A stack by its id.
    ///
    /// # Panics
    /// If `id` belongs to another profile with more stacks.
    pub fn stack(&self, id: StackId) -> Stack<'_> {
        let (frames, &tally) = self.stacks.get_index(id.index()).expect("a stack of this profile");
        Stack { frames, tally }
    }

    /// All frames, in the order of their ids.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (FrameId, &Frame)> {
        self.frames.iter().enumerate().map(|(index, frame)| (FrameId(index as u32), frame))
    }

    /// All distinct stacks, in the order of their ids.
    pub fn stacks(&self) -> impl ExactSizeIterator<Item = Stack<'_>> {
        self.stacks.iter().map(|(frames, &tally)| Stack { frames, tally })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(samples: u64, weight: u64) -> Tally {
        Tally { samples, weight }
    }

    #[test]
    fn identical_frames_and_stacks_are_merged() {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let leaf = profile.intern(Frame::guest("leaf"));
        assert_eq!(profile.intern(Frame::guest("main")), main);
        let inlined = profile.intern(Frame { inlined: true, ..Frame::guest("leaf") });
        assert_ne!(inlined, leaf);

        let first = profile.add(&[main, leaf], tally(1, 10)).unwrap();
        let other = profile.add(&[leaf, main], tally(2, 20)).unwrap();
        assert_eq!(profile.add(&[main, leaf], tally(3, 30)).unwrap(), first);
        assert_ne!(first, other);
        assert_eq!(profile.stack(first), Stack { frames: &[main, leaf], tally: tally(4, 40) });
        assert_eq!(profile.stacks().len(), 2);
        assert_eq!(profile.total(), tally(6, 60));
    }

    #[test]
    fn what_cannot_be_added_changes_nothing() {
        let mut larger = Profile::default();
        larger.intern(Frame::guest("a"));
        let foreign = larger.intern(Frame::guest("b"));

        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        profile.add(&[main], tally(1, u64::MAX - 1)).unwrap();
        assert!(matches!(profile.add(&[], tally(1, 1)), Err(ProfileError::EmptyStack)));
        let unknown = profile.add(&[main, foreign], tally(1, 1));
        assert!(matches!(unknown, Err(ProfileError::UnknownFrame { id: 1, frames: 1 })));
        let overflow = profile.add(&[main, main], tally(1, 2));
        assert!(matches!(overflow, Err(ProfileError::Overflow { what: "weight", added: 2, .. })));
        assert_eq!(profile.total(), tally(1, u64::MAX - 1));
        assert_eq!(profile.stacks().len(), 1);
    }
}

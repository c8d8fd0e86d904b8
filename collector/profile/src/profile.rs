//! The profile: interned frames, distinct stacks, and what fell on each, where and when.

use indexmap::{IndexMap, IndexSet};

use crate::{Frame, Headroom, Labels, LabelsId, Metadata, Origin, ProfileError, Tally, Thread, ThreadId};

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
    /// How much room its execution stack had, if that is known.
    pub headroom: Option<Headroom>,
}

/// What fell on one stack from one origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sample {
    /// The stack.
    pub stack: StackId,
    /// Where and when.
    pub origin: Origin,
    /// How many samples, and what they stand for.
    pub tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct OnStack {
    tally: Tally,
    headroom: Option<Headroom>,
}

/// Stacks of frames, and how much fell on each.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What was measured, how, and how it ended.
    pub metadata: Metadata,
    frames: IndexSet<Frame>,
    stacks: IndexMap<Box<[FrameId]>, OnStack>,
    threads: IndexSet<Thread>,
    labels: IndexSet<Labels>,
    samples: IndexMap<(StackId, Origin), Tally>,
    total: Tally,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            metadata: Metadata::default(),
            frames: IndexSet::new(),
            stacks: IndexMap::new(),
            threads: IndexSet::new(),
            labels: IndexSet::from([Labels::default()]),
            samples: IndexMap::new(),
            total: Tally::default(),
        }
    }
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

    /// The id of a thread, which is stored on its first use.
    ///
    /// # Panics
    /// If the profile already holds 2³² other threads, far beyond what memory allows.
    pub fn intern_thread(&mut self, thread: Thread) -> ThreadId {
        let (index, _) = self.threads.insert_full(thread);
        ThreadId(u32::try_from(index).expect("2³² threads fit no memory"))
    }

    /// The id of a set of labels, which is stored on its first use.
    ///
    /// # Panics
    /// If the profile already holds 2³² other sets, far beyond what memory allows.
    pub fn intern_labels(&mut self, labels: Labels) -> LabelsId {
        let (index, _) = self.labels.insert_full(labels);
        LabelsId(u32::try_from(index).expect("2³² sets of labels fit no memory"))
    }

    /// Adds samples of unknown origin to a stack; see [`Profile::add_from`].
    ///
    /// # Errors
    /// As for [`Profile::add_from`].
    ///
    /// # Panics
    /// As for [`Profile::add_from`].
    pub fn add(&mut self, frames: &[FrameId], tally: Tally) -> Result<StackId, ProfileError> {
        self.add_from(frames, Origin::default(), tally)
    }

    /// Adds samples to a stack, given oldest frame first. Identical stacks are merged, and so are the samples of one
    /// stack from one origin.
    ///
    /// # Errors
    /// [`ProfileError::EmptyStack`]; [`ProfileError::UnknownFrame`], [`ProfileError::UnknownThread`] or
    /// [`ProfileError::UnknownLabels`] for the id of another profile; [`ProfileError::Overflow`] if the profile's
    /// total exceeds 64 bits. The profile is then unchanged.
    ///
    /// # Panics
    /// If the profile already holds 2³² other stacks, far beyond what memory allows.
    pub fn add_from(
        &mut self,
        frames: &[FrameId],
        origin: Origin,
        tally: Tally,
    ) -> Result<StackId, ProfileError> {
        if frames.is_empty() {
            return Err(ProfileError::EmptyStack);
        }
        if let Some(id) = frames.iter().find(|id| id.index() >= self.frames.len()) {
            return Err(ProfileError::UnknownFrame { id: id.index(), frames: self.frames.len() });
        }
        let total = self.total_with(origin, tally)?;
        let index = match self.stacks.get_index_of(frames) {
            Some(index) => index,
            None => self.stacks.insert_full(frames.into(), OnStack::default()).0,
        };
        let id = StackId(u32::try_from(index).expect("2³² stacks fit no memory"));
        self.put(id, origin, tally, total);
        Ok(id)
    }

    /// Adds samples to a stack that there is; see [`Profile::add_from`].
    ///
    /// # Errors
    /// [`ProfileError::UnknownThread`], [`ProfileError::UnknownLabels`] and [`ProfileError::Overflow`] as for
    /// [`Profile::add_from`].
    ///
    /// # Panics
    /// If `stack` belongs to another profile with more stacks.
    pub fn add_to(&mut self, stack: StackId, origin: Origin, tally: Tally) -> Result<StackId, ProfileError> {
        let total = self.total_with(origin, tally)?;
        self.put(stack, origin, tally, total);
        Ok(stack)
    }

    /// The total with some samples more, whose origin has to be known.
    fn total_with(&self, origin: Origin, tally: Tally) -> Result<Tally, ProfileError> {
        if let Some(id) = origin.thread.filter(|id| id.index() >= self.threads.len()) {
            return Err(ProfileError::UnknownThread { id: id.index(), threads: self.threads.len() });
        }
        if origin.labels.index() >= self.labels.len() {
            return Err(ProfileError::UnknownLabels { id: origin.labels.index(), labels: self.labels.len() });
        }
        let sum = |what, total: u64, added| {
            total.checked_add(added).ok_or(ProfileError::Overflow { what, total, added })
        };
        Ok(Tally {
            samples: sum("samples", self.total.samples, tally.samples)?,
            weight: sum("weight", self.total.weight, tally.weight)?,
        })
    }

    /// Adds samples with which the total is `total`: no part exceeds it.
    fn put(&mut self, stack: StackId, origin: Origin, tally: Tally, total: Tally) {
        let (_, on) = self.stacks.get_index_mut(stack.index()).expect("a stack of this profile");
        for present in [&mut on.tally, self.samples.entry((stack, origin)).or_default()] {
            present.samples += tally.samples;
            present.weight += tally.weight;
        }
        self.total = total;
    }

    /// Notes how much room the execution stack had when a stack was sampled; the extremes are kept.
    ///
    /// # Panics
    /// If `id` belongs to another profile with more stacks.
    pub fn note_headroom(&mut self, id: StackId, headroom: Headroom) {
        let (_, present) = self.stacks.get_index_mut(id.index()).expect("a stack of this profile");
        present.headroom = Some(present.headroom.map_or(headroom, |known| known.merge(headroom)));
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
        let (frames, &on) = self.stacks.get_index(id.index()).expect("a stack of this profile");
        Stack { frames, tally: on.tally, headroom: on.headroom }
    }

    /// A thread by its id.
    ///
    /// # Panics
    /// If `id` belongs to another profile with more threads.
    pub fn thread(&self, id: ThreadId) -> &Thread {
        &self.threads[id.index()]
    }

    /// A set of labels by its id.
    ///
    /// # Panics
    /// If `id` belongs to another profile with more sets.
    pub fn labels(&self, id: LabelsId) -> &Labels {
        &self.labels[id.index()]
    }

    /// All frames, in the order of their ids.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (FrameId, &Frame)> {
        self.frames.iter().enumerate().map(|(index, frame)| (FrameId(index as u32), frame))
    }

    /// All distinct stacks, in the order of their ids.
    pub fn stacks(&self) -> impl ExactSizeIterator<Item = Stack<'_>> {
        self.stacks.iter().map(|(frames, on)| Stack { frames, tally: on.tally, headroom: on.headroom })
    }

    /// All threads, in the order of their ids.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = (ThreadId, &Thread)> {
        self.threads.iter().enumerate().map(|(index, thread)| (ThreadId(index as u32), thread))
    }

    /// All sets of labels, in the order of their ids. The first is the empty one.
    pub fn label_sets(&self) -> impl ExactSizeIterator<Item = (LabelsId, &Labels)> {
        self.labels.iter().enumerate().map(|(index, labels)| (LabelsId(index as u32), labels))
    }

    /// What fell on each stack from each origin, in the order of first use. The sum is [`Profile::total`].
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample> {
        self.samples.iter().map(|(&(stack, origin), &tally)| Sample { stack, origin, tally })
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
        assert_eq!(
            profile.stack(first),
            Stack { frames: &[main, leaf], tally: tally(4, 40), headroom: None }
        );
        assert_eq!(profile.stacks().len(), 2);
        assert_eq!(profile.total(), tally(6, 60));
    }

    #[test]
    fn origins_share_a_stack_and_are_told_apart() {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let thread = profile.intern_thread(Thread { id: 7, name: Some("worker".into()) });
        let labels = profile.intern_labels([("tenant", "a")].into_iter().collect());
        let origin = Origin { thread: Some(thread), labels, slice: Some(3) };
        let stack = profile.add_from(&[main], origin, tally(1, 10)).unwrap();
        profile.add_from(&[main], origin, tally(1, 10)).unwrap();
        profile.add_from(&[main], Origin { slice: Some(4), ..origin }, tally(1, 5)).unwrap();
        profile.add(&[main], tally(1, 1)).unwrap();
        let samples: Vec<_> = profile.samples().map(|sample| (sample.origin.slice, sample.tally)).collect();
        assert_eq!(samples, [(Some(3), tally(2, 20)), (Some(4), tally(1, 5)), (None, tally(1, 1))]);
        assert_eq!(profile.stack(stack).tally, tally(4, 26));
        assert_eq!(profile.labels(labels).get("tenant"), Some("a"));

        profile.note_headroom(stack, Headroom { deepest_use: 100, least_left: 900 });
        profile.note_headroom(stack, Headroom { deepest_use: 50, least_left: 300 });
        let extremes = Headroom { deepest_use: 100, least_left: 300 };
        assert_eq!(profile.stack(stack).headroom, Some(extremes));
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
        let mut origin =
            Origin { thread: Some(larger.intern_thread(Thread::default())), ..Origin::default() };
        let unknown = profile.add_from(&[main], origin, tally(1, 1));
        assert!(matches!(unknown, Err(ProfileError::UnknownThread { id: 0, threads: 0 })));
        origin = Origin {
            thread: None,
            labels: larger.intern_labels([("a", "b")].into_iter().collect()),
            slice: None,
        };
        let unknown = profile.add_from(&[main], origin, tally(1, 1));
        assert!(matches!(unknown, Err(ProfileError::UnknownLabels { id: 1, labels: 1 })));
        let overflow = profile.add(&[main, main], tally(1, 2));
        assert!(matches!(overflow, Err(ProfileError::Overflow { what: "weight", added: 2, .. })));
        assert_eq!(profile.total(), tally(1, u64::MAX - 1));
        assert_eq!(profile.stacks().len(), 1);
    }
}

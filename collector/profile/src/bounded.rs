//! A profile as a reader fills it from a file of any content: it is refused before it takes too much memory or time.
//!
//! What counts is what the model takes, not what the file has: a table of a file may share what the model does not, a
//! stack's older frames above all. Hash tables double when they are full, so that they count with the size that the next
//! entry would give them.

use std::{collections::HashSet, sync::Arc};

use crate::{
    Frame, FrameId, Headroom, Labels, LabelsId, Metadata, Origin, Profile, ProfileError, Sample, Stack,
    StackId, Tally, Thread, ThreadId, bounds,
};

/// The most bytes that the profile of one file may take: four times what the collector keeps of a run of any length.
const MEMORY: usize = 256 << 20;

/// The most frames that the stacks of one file may have together, each counted each time that it is read. Repeated stacks
/// take time and no memory.
const FRAMES_ON_STACKS: usize = 64 << 20;

/// The most frames of one stack, which is in memory a few times while it is read.
const FRAMES_ON_STACK: usize = 4 << 20;

/// The most bytes that the names and places of all frames may have together, each counted on every frame: all that deals
/// with a profile later looks at each. Frames share them, so that this is time and no memory.
const TEXT_ON_FRAMES: usize = 1 << 30;

/// Besides its bytes: what the allocator needs, and the counts of what is shared.
const ALLOCATION: usize = 16;

/// A [`Profile`] that does not outgrow its bounds. The methods are those of the profile; all of them can fail with
/// [`ProfileError::TooLarge`].
#[derive(Default)]
pub(crate) struct BoundedProfile {
    profile: Profile,
    texts: HashSet<Arc<str>>,
    /// Bytes of texts, labels and stacks, without the tables that lead to them.
    elsewhere: usize,
    frames_on_stacks: usize,
    text_on_frames: usize,
}

impl BoundedProfile {
    pub(crate) fn new(metadata: Metadata) -> Self {
        Self { profile: Profile::new(metadata), ..Self::default() }
    }

    /// What does not grow with the file. Texts that do are to be counted by [`text`](Self::text).
    pub(crate) fn metadata(&mut self) -> &mut Metadata {
        &mut self.profile.metadata
    }

    pub(crate) fn into_profile(self) -> Profile {
        self.profile
    }

    /// A text that is kept once, however often it is asked for.
    pub(crate) fn text(&mut self, text: &str) -> Result<Arc<str>, ProfileError> {
        match self.texts.get(text) {
            Some(known) => Ok(Arc::clone(known)),
            None => self.keep(text.into()),
        }
    }

    /// The same for one that is in memory already, perhaps a second time.
    fn shared(&mut self, text: Arc<str>) -> Result<Arc<str>, ProfileError> {
        match self.texts.get(&text) {
            Some(known) => Ok(Arc::clone(known)),
            None => self.keep(text),
        }
    }

    fn keep(&mut self, text: Arc<str>) -> Result<Arc<str>, ProfileError> {
        self.texts.insert(Arc::clone(&text));
        self.allocate(text.len())?;
        Ok(text)
    }

    /// Counts texts that are looked at for a frame.
    pub(crate) fn look_at(&mut self, texts: &[&str]) -> Result<(), ProfileError> {
        self.text_on_frames += texts.iter().map(|text| text.len()).sum::<usize>();
        bounds::within("bytes of names and paths on frames", self.text_on_frames, TEXT_ON_FRAMES)
    }

    pub(crate) fn intern(&mut self, mut frame: Frame) -> Result<FrameId, ProfileError> {
        let file = frame.location.as_ref().map_or("", |location| &location.file);
        self.look_at(&[&frame.name, frame.module.as_deref().unwrap_or_default(), file])?;
        frame.name = self.shared(frame.name)?;
        frame.module = frame.module.map(|module| self.shared(module)).transpose()?;
        if let Some(location) = &mut frame.location {
            location.file = self.shared(Arc::clone(&location.file))?;
        }
        let id = self.profile.intern(frame);
        self.check_memory()?;
        Ok(id)
    }

    pub(crate) fn intern_thread(&mut self, thread: Thread) -> Result<ThreadId, ProfileError> {
        let name = thread.name.map(|name| self.shared(name)).transpose()?;
        let id = self.profile.intern_thread(Thread { name, ..thread });
        self.check_memory()?;
        Ok(id)
    }

    pub(crate) fn intern_labels(
        &mut self,
        labels: Vec<(Arc<str>, Arc<str>)>,
    ) -> Result<LabelsId, ProfileError> {
        let mut shared = Vec::with_capacity(labels.len());
        for (key, value) in labels {
            shared.push((self.shared(key)?, self.shared(value)?));
        }
        let (before, labels) = (self.profile.label_sets().len(), shared.into_iter().collect::<Labels>());
        let size = labels.iter().len() * size_of::<(Arc<str>, Arc<str>)>();
        let id = self.profile.intern_labels(labels);
        if self.profile.label_sets().len() > before {
            self.allocate(size)?;
        }
        Ok(id)
    }

    pub(crate) fn add_from(
        &mut self,
        frames: &[FrameId],
        origin: Origin,
        tally: Tally,
    ) -> Result<StackId, ProfileError> {
        self.check_stack(frames.len())?;
        self.frames_on_stacks += frames.len();
        let before = self.profile.stacks().len();
        let id = self.profile.add_from(frames, origin, tally)?;
        let is_new = self.profile.stacks().len() > before;
        self.allocate(if is_new { size_of_val(frames) } else { 0 })?;
        Ok(id)
    }

    /// Whether a stack of so many frames can be added.
    pub(crate) fn check_stack(&self, frames: usize) -> Result<(), ProfileError> {
        bounds::within("frames on a stack", frames, FRAMES_ON_STACK)?;
        bounds::within("frames on stacks", self.frames_on_stacks + frames, FRAMES_ON_STACKS)
    }

    pub(crate) fn add_to(
        &mut self,
        stack: StackId,
        origin: Origin,
        tally: Tally,
    ) -> Result<StackId, ProfileError> {
        let id = self.profile.add_to(stack, origin, tally)?;
        self.check_memory()?;
        Ok(id)
    }

    pub(crate) fn note_headroom(&mut self, stack: StackId, headroom: Headroom) {
        self.profile.note_headroom(stack, headroom);
    }

    fn allocate(&mut self, bytes: usize) -> Result<(), ProfileError> {
        if bytes > 0 {
            self.elsewhere += bytes + ALLOCATION;
        }
        self.check_memory()
    }

    fn check_memory(&self) -> Result<(), ProfileError> {
        let of = &self.profile;
        let tables = [
            table(of.frames().len(), size_of::<Frame>()),
            table(of.stacks().len(), size_of::<Stack>()),
            table(of.samples().len(), size_of::<Sample>()),
            table(of.threads().len(), size_of::<Thread>()),
            table(of.label_sets().len(), size_of::<Labels>()),
            table(self.texts.len(), 0),
        ];
        let bytes = tables.into_iter().sum::<usize>() + self.elsewhere;
        bounds::within("bytes of memory once it is read", bytes, MEMORY)
    }
}

/// What a hash table takes once it has an entry more: places that are full to seven eighths and a power of two, each with
/// an index or a pointer and a byte of the hash, and as many entries with their hashes as can be in such places.
fn table(length: usize, entry: usize) -> usize {
    let places = ((length + 1) * 8).div_ceil(7).next_power_of_two();
    places * (2 * size_of::<usize>() + 1) + places / 8 * 7 * entry
}

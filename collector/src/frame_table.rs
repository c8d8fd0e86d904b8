//! The distinct frames of a session, each stored once, by the image that it lies in or, once that is gone, by name.
//!
//! While an image is there, a frame is an image and an offset, and is named when a profile is asked for. When its code
//! is unloaded, the frames that samples fell on are named once and for all, so that nothing else of the image has to
//! be kept.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use flamewalk_profile::Frame;
use flamewalk_symbolizer::HostAddress;
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use hashbrown::HashMap;

use crate::symbols;
use crate::table::Table;

/// A frame by the image that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LocatedFrame {
    /// The interrupted instruction.
    Instruction(ImageId, u32),
    /// A return address.
    ReturnAddress(ImageId, u32),
    /// A call of the host.
    HostCall {
        /// Where it returns to in guest code, if the caller is known.
        returns_to: Option<(ImageId, u32)>,
        /// An address in the trampoline of the same image that it went through, if that is known.
        trampoline: Option<u32>,
    },
    /// An address in native code of the host.
    Host(HostAddress),
    /// Native frames of the host that could not be found.
    HostGap,
    /// Older frames are missing, since the walk has reached its limit.
    Truncated,
    /// Older frames are missing, since there was no memory for them.
    Merged,
}

impl LocatedFrame {
    /// The image that names the frame.
    pub(crate) fn image(self) -> Option<ImageId> {
        match self {
            Self::Instruction(image, _) | Self::ReturnAddress(image, _) => Some(image),
            Self::HostCall { returns_to, .. } => returns_to.map(|(image, _)| image),
            Self::Host(_) | Self::HostGap | Self::Truncated | Self::Merged => None,
        }
    }
}

/// A frame of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FrameIndex(u32);

impl FrameIndex {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an allocator takes for each piece of memory besides what was asked for, and a shared string for its counts.
const ALLOCATION_BYTES: usize = 32;

/// What is kept of the notices of images that are gone; there may be no end of them.
const MAX_NOTICES: usize = 64;

/// The frame of the same image that was stored before this one.
type OlderOfImage = Option<FrameIndex>;

/// Frames, each once.
#[derive(Debug, Default)]
pub(crate) struct FrameTable {
    frames: Table<LocatedFrame, OlderOfImage>,
    /// The last frame that was stored of each image that is not gone.
    last_of_image: HashMap<ImageId, FrameIndex>,
    /// What frames are in a profile whose images are gone, youngest first.
    names: HashMap<FrameIndex, Box<[Frame]>>,
    /// What symbolizers had to tell about images that are gone.
    notices: HashMap<ImageId, Vec<String>>,
    /// What `names` and `notices` take besides their tables.
    name_bytes: usize,
}

impl FrameTable {
    /// The index of a frame, which is stored on its first use.
    pub(crate) fn intern(&mut self, frame: LocatedFrame) -> FrameIndex {
        let known = self.frames.len();
        let (index, older) = self.frames.entry(frame);
        let index = FrameIndex(index);
        if index.index() == known
            && let Some(image) = frame.image()
        {
            *older = self.last_of_image.insert(image, index);
        }
        index
    }

    /// A frame, and what it is in a profile if its image is gone.
    pub(crate) fn get(&self, index: FrameIndex) -> (LocatedFrame, Option<&[Frame]>) {
        (self.frames.get(index.0).0, self.names.get(&index).map(|names| &**names))
    }

    /// Names the frames of an image that goes.
    pub(crate) fn resolve(&mut self, image: ImageId, registry: &CodeRegistry) {
        let mut next = self.last_of_image.remove(&image);
        if next.is_none() {
            return;
        }
        // Frames of one image share most of their strings.
        let mut strings = HashSet::new();
        while let Some(index) = next {
            let (located, older) = *self.frames.get(index.0);
            next = older;
            let names = symbols::image_frames(registry, located);
            self.name_bytes += name_bytes(&names, |string| strings.insert(Arc::as_ptr(string)));
            self.names.insert(index, names.into());
        }
        let notices = symbols::image_notices(registry, image);
        if !notices.is_empty() && self.notices.len() < MAX_NOTICES {
            self.name_bytes += notice_bytes(&notices);
            self.notices.insert(image, notices);
        }
    }

    /// What symbolizers have to tell about the images of these frames, each sentence once.
    pub(crate) fn notices(
        &self,
        frames: impl Iterator<Item = FrameIndex>,
        registry: &CodeRegistry,
    ) -> Vec<String> {
        let images: BTreeSet<ImageId> = frames.filter_map(|index| self.get(index).0.image()).collect();
        let mut notices: Vec<String> = Vec::new();
        for image in images {
            let of_image = match self.notices.get(&image) {
                Some(kept) => kept.clone(),
                None => symbols::image_notices(registry, image),
            };
            notices.extend(of_image);
        }
        let mut told = HashSet::new();
        notices.retain(|notice| told.insert(notice.clone()));
        notices
    }

    /// The frames that `is_used`, moved together, and the new index of each.
    pub(crate) fn compacted(self, is_used: &[bool]) -> (Self, Vec<Option<FrameIndex>>) {
        let mut kept = Self::default();
        let mut moved = Vec::with_capacity(self.frames.len());
        let mut images = HashSet::new();
        let mut names = self.names;
        for ((index, (located, _)), used) in (0..).map(FrameIndex).zip(self.frames).zip(is_used) {
            if !used {
                moved.push(None);
                continue;
            }
            images.extend(located.image());
            let Some(names) = names.remove(&index) else {
                moved.push(Some(kept.intern(located)));
                continue;
            };
            let new = FrameIndex(kept.frames.entry(located).0);
            kept.names.insert(new, names);
            moved.push(Some(new));
        }
        kept.notices = self.notices;
        kept.notices.retain(|image, _| images.contains(image));
        // Strings that frames share are counted for each of them here: an upper bound.
        let of_names: usize = kept.names.values().map(|names| name_bytes(names, |_| true)).sum();
        let of_notices: usize = kept.notices.values().map(|notices| notice_bytes(notices)).sum();
        kept.name_bytes = (of_names + of_notices).min(self.name_bytes);
        (kept, moved)
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes_besides_frames() + self.frames.bytes()
    }

    /// As [`Table::bytes_for`].
    pub(crate) fn bytes_for(&self, more: usize) -> usize {
        self.bytes_besides_frames() + self.frames.bytes_for(more)
    }

    fn bytes_besides_frames(&self) -> usize {
        self.last_of_image.allocation_size() + self.names.allocation_size() + self.name_bytes
    }
}

/// What notices take.
fn notice_bytes(notices: &[String]) -> usize {
    notices.iter().map(|notice| notice.len() + ALLOCATION_BYTES).sum()
}

/// What names take: `is_new` tells whether a string is not counted elsewhere.
fn name_bytes(names: &[Frame], mut is_new: impl FnMut(&Arc<str>) -> bool) -> usize {
    let mut bytes = size_of_val(names) + ALLOCATION_BYTES;
    for frame in names {
        let file = frame.location.as_ref().map(|location| &location.file);
        for string in [Some(&frame.name), frame.module.as_ref(), file].into_iter().flatten() {
            if is_new(string) {
                bytes += string.len() + ALLOCATION_BYTES;
            }
        }
    }
    bytes
}

//! The distinct frames of a session, each stored once, by the image that it lies in or, once that is gone, by name.
//!
//! While an image is there, a frame is an image and an offset, and is named when a profile is asked for. When its code
//! is unloaded, the frames that samples fell on are named once and for all, so that nothing else of the image has to
//! be kept.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use flamewalk_profile::Frame;
use flamewalk_symbolizer::HostAddress;
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use indexmap::IndexMap;

use crate::symbols;

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

/// What a frame costs in the table and in the list of its image, rounded up.
const FRAME_BYTES: usize = 128;

/// What is kept of the notices of images that are gone; there may be no end of them.
const MAX_NOTICES: usize = 64;

/// Frames, each once.
#[derive(Debug, Default)]
pub(crate) struct FrameTable {
    /// With what each is in a profile, youngest first, if its image is gone.
    frames: IndexMap<LocatedFrame, Option<Box<[Frame]>>>,
    /// The frames of each image that is not gone.
    by_image: HashMap<ImageId, Vec<FrameIndex>>,
    /// What symbolizers had to tell about images that are gone.
    notices: HashMap<ImageId, Vec<String>>,
    /// What the names of frames whose images are gone take.
    name_bytes: usize,
}

impl FrameTable {
    /// The index of a frame, which is stored on its first use.
    pub(crate) fn intern(&mut self, frame: LocatedFrame) -> FrameIndex {
        let entry = self.frames.entry(frame);
        let index = FrameIndex(u32::try_from(entry.index()).expect("2³² frames fit no memory"));
        if let indexmap::map::Entry::Vacant(entry) = entry {
            entry.insert(None);
            if let Some(image) = frame.image() {
                self.by_image.entry(image).or_default().push(index);
            }
        }
        index
    }

    /// A frame, and what it is in a profile if its image is gone.
    pub(crate) fn get(&self, index: FrameIndex) -> (LocatedFrame, Option<&[Frame]>) {
        let (located, named) = self.frames.get_index(index.index()).expect("a frame of this table");
        (*located, named.as_deref())
    }

    /// Names the frames of an image that goes.
    pub(crate) fn resolve(&mut self, image: ImageId, registry: &CodeRegistry) {
        let Some(frames) = self.by_image.remove(&image) else { return };
        // Frames of one image share most of their strings.
        let mut strings = HashSet::new();
        for index in frames {
            let Some((located, named)) = self.frames.get_index_mut(index.index()) else { continue };
            let names = symbols::image_frames(registry, *located);
            self.name_bytes += names.len() * size_of::<Frame>();
            for frame in &names {
                let file = frame.location.as_ref().map(|location| &location.file);
                for string in [Some(&frame.name), frame.module.as_ref(), file].into_iter().flatten() {
                    if strings.insert(Arc::as_ptr(string)) {
                        self.name_bytes += string.len();
                    }
                }
            }
            *named = Some(names.into());
        }
        let notices = symbols::image_notices(registry, image);
        if !notices.is_empty() && self.notices.len() < MAX_NOTICES {
            self.name_bytes += notices.iter().map(String::len).sum::<usize>();
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
        for ((located, named), used) in self.frames.into_iter().zip(is_used) {
            if !used {
                moved.push(None);
                continue;
            }
            images.extend(located.image());
            let Some(names) = named else {
                moved.push(Some(kept.intern(located)));
                continue;
            };
            let index = kept.frames.insert_full(located, Some(names)).0;
            moved.push(Some(FrameIndex(u32::try_from(index).expect("no more than before"))));
        }
        kept.notices = self.notices;
        kept.notices.retain(|image, _| images.contains(image));
        // Strings that frames share are counted for each of them here: an upper bound.
        let names = kept.frames.values().flatten().flatten();
        let bytes = names.map(|frame| {
            let file = frame.location.as_ref().map_or(0, |location| location.file.len());
            size_of::<Frame>()
                + frame.name.len()
                + frame.module.as_ref().map_or(0, |module| module.len())
                + file
        });
        kept.name_bytes = bytes.sum::<usize>().min(self.name_bytes);
        (kept, moved)
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.len() * FRAME_BYTES + self.name_bytes
    }
}

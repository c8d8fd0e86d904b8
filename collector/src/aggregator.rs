//! Samples by distinct stack, each frame as an image and an offset in its text.
//!
//! Addresses are resolved to images as samples arrive, by the generation of the code table that the handler
//! saw: an address that is reused later does not change what was aggregated before.

use flamewalk_handler::record::{Frame, Sample};
use flamewalk_handler::walk::WalkEnd;
use flamewalk_profile::Tally;
use flamewalk_symbolizer::HostAddress;
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use indexmap::IndexMap;

/// A frame by the image that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LocatedFrame {
    /// The interrupted instruction.
    Instruction(ImageId, u32),
    /// A return address.
    ReturnAddress(ImageId, u32),
    /// The next older frame called the host, through a trampoline if that is known.
    HostCall(Option<(ImageId, u32)>),
    /// An address in native code of the host.
    Host(HostAddress),
    /// Native frames of the host that could not be found.
    HostGap,
    /// Older frames are missing.
    Truncated,
}

/// The distinct stacks of a session and what fell on each.
#[derive(Debug)]
pub struct Aggregator {
    stacks: IndexMap<Box<[LocatedFrame]>, Tally>,
    bytes: usize,
    max_bytes: usize,
    /// All samples on the stacks.
    delivered: Tally,
    /// Those of them whose stack was cut at the frame limit.
    truncated: Tally,
    /// Samples that no room was left for.
    overflow: Tally,
    /// Samples with a frame that is in no image of their generation.
    unlocated: Tally,
    frames: Vec<LocatedFrame>,
}

/// What an entry of the map costs besides its frames: key, tally and the table's own word, rounded up.
const ENTRY_BYTES: usize = 64;

impl Aggregator {
    /// An empty aggregate that takes at most about `max_bytes` bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            stacks: IndexMap::new(),
            bytes: 0,
            max_bytes,
            delivered: Tally::default(),
            truncated: Tally::default(),
            overflow: Tally::default(),
            unlocated: Tally::default(),
            frames: Vec::new(),
        }
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample<'_>, registry: &CodeRegistry) {
        let header = sample.header;
        let tally = Tally { samples: u64::from(header.ticks), weight: header.weight };
        self.frames.clear();
        for frame in sample.frames() {
            let locate = |address| registry.locate(address, header.generation);
            let located = match frame {
                Frame::Instruction(address) => {
                    locate(address).map(|(image, offset)| LocatedFrame::Instruction(image, offset))
                }
                Frame::ReturnAddress(address) => {
                    // The call before it is inside the image; the return address can be just past its end.
                    let call = address.wrapping_sub(1);
                    locate(call).map(|(image, offset)| LocatedFrame::ReturnAddress(image, offset + 1))
                }
                Frame::HostCall(0) => Some(LocatedFrame::HostCall(None)),
                Frame::HostCall(address) => Some(LocatedFrame::HostCall(locate(address))),
                Frame::HostInstruction(address) => {
                    Some(LocatedFrame::Host(HostAddress::Instruction(address)))
                }
                Frame::HostReturnAddress(address) => {
                    Some(LocatedFrame::Host(HostAddress::ReturnAddress(address)))
                }
                Frame::HostGap => Some(LocatedFrame::HostGap),
            };
            let Some(located) = located else {
                add(&mut self.unlocated, tally);
                return;
            };
            self.frames.push(located);
        }
        if header.end == WalkEnd::FrameLimit {
            self.frames.push(LocatedFrame::Truncated);
        }
        if let Some(present) = self.stacks.get_mut(self.frames.as_slice()) {
            add(present, tally);
        } else {
            let bytes = self.frames.len() * size_of::<LocatedFrame>() + ENTRY_BYTES;
            if self.bytes + bytes > self.max_bytes {
                add(&mut self.overflow, tally);
                return;
            }
            self.bytes += bytes;
            self.stacks.insert(self.frames.as_slice().into(), tally);
        }
        add(&mut self.delivered, tally);
        if header.end == WalkEnd::FrameLimit {
            add(&mut self.truncated, tally);
        }
    }

    /// The stacks, youngest frame first, in the order in which they were first seen.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = (&[LocatedFrame], Tally)> {
        self.stacks.iter().map(|(frames, tally)| (&**frames, *tally))
    }

    /// The sum over all stacks.
    pub(crate) fn delivered(&self) -> Tally {
        self.delivered
    }

    /// The sum over the stacks that were cut at the frame limit.
    pub(crate) fn truncated(&self) -> Tally {
        self.truncated
    }

    /// Samples that were dropped because [`Aggregator::new`]'s bound was reached.
    pub fn overflow(&self) -> Tally {
        self.overflow
    }

    /// Samples that were dropped because a frame is in no image of their generation.
    pub fn unlocated(&self) -> Tally {
        self.unlocated
    }
}

/// Weights are nanoseconds or counts of one session; 64 bits hold centuries of them.
fn add(tally: &mut Tally, more: Tally) {
    tally.samples = tally.samples.saturating_add(more.samples);
    tally.weight = tally.weight.saturating_add(more.weight);
}

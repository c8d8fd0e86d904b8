//! One sample as it travels through the ring: a header of six words, then a word for each frame.
//!
//! ```text
//!   word 0   length of the whole record (bits 0..32) │ ticks (32..56) │ walk end (56..64)
//!   word 1   weight
//!   word 2   time, nanoseconds of CLOCK_MONOTONIC
//!   word 3   generation of the code table that the frames were found in
//!   word 4   number of the labels
//!   word 5   bytes of stack in use (bits 0..32) │ bytes left (32..64)
//!   word 6.. frames, youngest first: tag (bits 56..64) │ address (0..56)
//! ```

use crate::walk::WalkEnd;

/// Words before the first frame.
pub const HEADER_WORDS: usize = 6;
/// In [`Header::labels`]: guests of stores with other labels are on the stack, too, and only those of the youngest store
/// count for the labels.
pub const MIXED_LABELS: u64 = 1 << 63;
const TAG_SHIFT: u32 = 56;
const ADDRESS_MASK: u64 = (1 << TAG_SHIFT) - 1;
const TICKS_MASK: u64 = 0x00ff_ffff;

/// A frame of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The interrupted instruction, in a guest function.
    Instruction(usize),
    /// Where a guest function will go on when the younger frame returns.
    ReturnAddress(usize),
    /// The next older frame has called the host or the runtime, and the younger frames, if any, are what the
    /// host has called since. Holds an address inside the trampoline that was taken, or 0 if it is not known.
    HostCall(usize),
    /// The interrupted instruction, in native code of the host.
    HostInstruction(usize),
    /// Where a native function of the host will go on when the younger frame returns.
    HostReturnAddress(usize),
    /// Native frames of the host that could not be found.
    HostGap,
}

impl Frame {
    /// The frame as a word of a record.
    #[inline]
    pub const fn encode(self) -> u64 {
        let (tag, address) = match self {
            Self::Instruction(address) => (1, address),
            Self::ReturnAddress(address) => (2, address),
            Self::HostCall(address) => (3, address),
            Self::HostInstruction(address) => (4, address),
            Self::HostReturnAddress(address) => (5, address),
            Self::HostGap => (6, 0),
        };
        ((tag as u64) << TAG_SHIFT) | (address as u64 & ADDRESS_MASK)
    }

    /// Reads a word of a record; `None` if it is not a frame.
    pub const fn decode(word: u64) -> Option<Self> {
        let address = (word & ADDRESS_MASK) as usize;
        match word >> TAG_SHIFT {
            1 => Some(Self::Instruction(address)),
            2 => Some(Self::ReturnAddress(address)),
            3 => Some(Self::HostCall(address)),
            4 => Some(Self::HostInstruction(address)),
            5 => Some(Self::HostReturnAddress(address)),
            6 if address == 0 => Some(Self::HostGap),
            _ => None,
        }
    }

    /// Whether the frame is a native one of the host, or stands for such.
    pub const fn is_host(self) -> bool {
        matches!(self, Self::HostInstruction(_) | Self::HostReturnAddress(_) | Self::HostGap)
    }
}

/// What is known of a sample besides its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many ticks of the event source the sample stands for, at most 2²⁴−1.
    pub ticks: u32,
    /// Why the walk ended.
    pub end: WalkEnd,
    /// What the sample stands for, in the unit of the event (nanoseconds for time).
    pub weight: u64,
    /// When the tick happened, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Generation of the code table that the frames were found in.
    pub generation: u64,
    /// Number of the labels that the store had; 0 for none. With [`MIXED_LABELS`] if that is not all.
    pub labels: u64,
    /// Bytes of stack from the oldest guest's entry to the stack pointer, at most 2³²−1.
    pub stack_used: u32,
    /// Bytes of stack from the stack pointer to the end of the stack, at most 2³²−1.
    pub stack_left: u32,
}

impl Header {
    /// The header words of a record with `frames` frames.
    #[inline]
    pub const fn encode(&self, frames: usize) -> [u64; HEADER_WORDS] {
        let length = (HEADER_WORDS as u64).wrapping_add(frames as u64) & 0xffff_ffff;
        let ticks = (self.ticks as u64 & TICKS_MASK) << 32;
        [
            length | ticks | ((self.end as u64) << TAG_SHIFT),
            self.weight,
            self.time,
            self.generation,
            self.labels,
            self.stack_used as u64 | ((self.stack_left as u64) << 32),
        ]
    }
}

/// The length of a record, in words, from its first word.
pub const fn record_length(first: u64) -> usize {
    (first & 0xffff_ffff) as usize
}

/// A record as the collector reads it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What is known besides the frames.
    pub header: Header,
    frames: &'a [u64],
}

impl<'a> Sample<'a> {
    /// Reads a record; `None` if the words are not one.
    pub fn decode(words: &'a [u64]) -> Option<Self> {
        let (header, frames) = words.split_at_checked(HEADER_WORDS)?;
        let [first, weight, time, generation, labels, stack] = *header else { return None };
        if record_length(first) != words.len() {
            return None;
        }
        let end = *WalkEnd::ALL.get(usize::try_from(first >> TAG_SHIFT).ok()?)?;
        let ticks = u32::try_from(first >> 32 & TICKS_MASK).ok()?;
        let (stack_used, stack_left) = (stack as u32, (stack >> 32) as u32);
        let header = Header { ticks, end, weight, time, generation, labels, stack_used, stack_left };
        Some(Self { header, frames })
    }

    /// The frames, youngest first.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = Frame> + 'a {
        self.frames.iter().filter_map(|word| Frame::decode(*word))
    }

    /// The frames as they are in the record: equal words mean equal stacks.
    pub fn frame_words(&self) -> &'a [u64] {
        self.frames
    }
}

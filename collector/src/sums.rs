//! What fell on the stacks, by where and when: a sum for each stack, thread, set of labels and slice of time.

use flamewalk_handler::record::Header;
use flamewalk_profile::{Headroom, Tally};

use crate::stack_tree::StackIndex;
use crate::table::Table;
use crate::totals::sum;

/// Who was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// The thread, by the number that the collector gave it; `None` if it was let go of to save memory.
    pub(crate) thread: Option<u64>,
    /// The number of the labels.
    pub(crate) labels: u64,
}

/// Where and when samples were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) stack: StackIndex,
    pub(crate) origin: Origin,
    /// The number of the slice of time; `None` if it was let go of to save memory.
    pub(crate) slice: Option<u32>,
}

/// What fell on one [`Key`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) tally: Tally,
    room: Room,
}

/// The room on the execution stack, in bytes, as a sample has it: both are [`u32::MAX`] if it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    deepest_use: u32,
    least_left: u32,
}

impl Room {
    const UNKNOWN: Self = Self { deepest_use: u32::MAX, least_left: u32::MAX };
}

impl Default for Sum {
    fn default() -> Self {
        Self { tally: Tally::default(), room: Room::UNKNOWN }
    }
}

impl Sum {
    /// Of one sample.
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            tally: Tally { samples: u64::from(header.ticks), weight: header.weight },
            room: Room { deepest_use: header.stack_used, least_left: header.stack_left },
        }
    }

    pub(crate) fn headroom(&self) -> Option<Headroom> {
        let Room { deepest_use, least_left } = self.room;
        (self.room != Room::UNKNOWN)
            .then(|| Headroom { deepest_use: deepest_use.into(), least_left: least_left.into() })
    }

    fn add(&mut self, more: Self) {
        self.tally = sum(self.tally, more.tally);
        let (one, other) = (self.room, more.room);
        self.room = match (one, other) {
            (Room::UNKNOWN, known) | (known, Room::UNKNOWN) => known,
            _ => Room {
                deepest_use: one.deepest_use.max(other.deepest_use),
                least_left: one.least_left.min(other.least_left),
            },
        };
    }
}

/// A [`Key`] as it is kept: there is one for each slice of time of each stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PackedKey {
    stack: StackIndex,
    /// Position among the origins.
    origin: u32,
    /// The number of the slice and 1, so that the last number is none; 0 if there is no slice.
    slice: u32,
}

impl PackedKey {
    fn of(key: Key, origins: &mut Table<Origin>) -> Self {
        let (origin, ()) = origins.entry(key.origin);
        Self { stack: key.stack, origin, slice: key.slice.map_or(0, |slice| slice + 1) }
    }

    fn unpacked(self, origins: &Table<Origin>) -> Key {
        Key { stack: self.stack, origin: origins.get(self.origin).0, slice: self.slice.checked_sub(1) }
    }
}

/// All sums.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    origins: Table<Origin>,
    sums: Table<PackedKey, Sum>,
}

impl Sums {
    pub(crate) fn add(&mut self, key: Key, more: Sum) {
        let key = self.packed(key);
        self.sums.entry(key).1.add(more);
    }

    /// Whether there is a sum for a key.
    pub(crate) fn contains(&mut self, key: Key) -> bool {
        let key = self.packed(key);
        self.sums.contains(key)
    }

    fn packed(&mut self, key: Key) -> PackedKey {
        PackedKey::of(key, &mut self.origins)
    }

    /// All sums with their keys, in the order in which they were first seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Sum)> {
        self.sums.iter().map(|(key, sum)| (key.unpacked(&self.origins), *sum))
    }

    /// Sorts the same samples by other keys: `key` is told the position of each sum, and its key.
    pub(crate) fn regroup(&mut self, mut key: impl FnMut(usize, Key) -> Key) {
        let before = std::mem::take(&mut self.origins);
        let origins = &mut self.origins;
        let packed = |position, old: PackedKey| PackedKey::of(key(position, old.unpacked(&before)), origins);
        self.sums.rekey(packed, Sum::add);
    }

    pub(crate) fn len(&self) -> usize {
        self.sums.len()
    }

    /// Who was sampled, each once. Someone may be among them whose samples have all been given to others.
    pub(crate) fn origins(&self) -> impl Iterator<Item = Origin> {
        self.origins.iter().map(|(origin, ())| *origin)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.origins.bytes() + self.sums.bytes()
    }

    /// As [`Table::bytes_for`], for a sum and its origin.
    pub(crate) fn bytes_for_one(&self) -> usize {
        self.origins.bytes_for(1) + self.sums.bytes_for(1)
    }
}

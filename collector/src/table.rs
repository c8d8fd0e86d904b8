//! A table of distinct keys, each with a value and known by its position, that says what it takes to the byte.
//!
//! There may be millions of small keys, so that what a general index keeps for each of them (its hash, a position of 64
//! bits) would be as large as they are. Tables grow when they have to, and say beforehand what that takes.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Keys of `K` and their values.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, V = ()> {
    entries: Vec<(K, V)>,
    positions: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new(), positions: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<K: Copy + Eq + Hash, V: Default> Table<K, V> {
    /// The position of a key, and its value. A key that is not there is added behind all others.
    pub(crate) fn entry(&mut self, key: K) -> (u32, &mut V) {
        let hash = self.hasher.hash_one(key);
        let known = self.positions.find(hash, |position| self.entries[*position as usize].0 == key);
        let position = match known {
            Some(position) => *position,
            None => self.push(hash, key),
        };
        (position, &mut self.entries[position as usize].1)
    }

    fn push(&mut self, hash: u64, key: K) -> u32 {
        let position = u32::try_from(self.entries.len()).expect("2³² entries fit no memory");
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.capacity_for(1) - self.entries.len());
        }
        self.entries.push((key, V::default()));
        let Self { entries, positions, hasher } = self;
        positions.insert_unique(hash, position, |position| hasher.hash_one(entries[*position as usize].0));
        position
    }

    /// Whether a key is there.
    pub(crate) fn contains(&self, key: K) -> bool {
        let hash = self.hasher.hash_one(key);
        self.positions.find(hash, |position| self.entries[*position as usize].0 == key).is_some()
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Table<K, V> {
    /// Gives each entry another key, which is told its position and its key; entries that have the same key then are
    /// merged. Takes no memory, and gives back what is left over.
    pub(crate) fn rekey(&mut self, mut key: impl FnMut(usize, K) -> K, mut merge: impl FnMut(&mut V, V)) {
        let Self { entries, positions, hasher } = self;
        positions.clear();
        let mut kept = 0;
        for position in 0..entries.len() {
            let (old, value) = entries[position];
            let new = key(position, old);
            let hash = hasher.hash_one(new);
            if let Some(known) = positions.find(hash, |known| entries[*known as usize].0 == new) {
                merge(&mut entries[*known as usize].1, value);
                continue;
            }
            entries[kept] = (new, value);
            // No more than there were before.
            positions.insert_unique(hash, kept as u32, |known| hasher.hash_one(entries[*known as usize].0));
            kept += 1;
        }
        entries.truncate(kept);
        entries.shrink_to_fit();
        positions.shrink_to(kept, |known| hasher.hash_one(entries[*known as usize].0));
    }
}

impl<K, V> Table<K, V> {
    /// The key and the value at a position, at which there has to be one.
    pub(crate) fn get(&self, position: u32) -> &(K, V) {
        &self.entries[position as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All keys with their values, by position.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &(K, V)> + DoubleEndedIterator {
        self.entries.iter()
    }

    /// The memory that it has.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(K, V)>() + self.positions.allocation_size()
    }

    /// The memory that it has while it grows for so many more keys, if it has to; otherwise [`Table::bytes`].
    pub(crate) fn bytes_for(&self, more: usize) -> usize {
        let needed = self.entries.len() + more;
        let mut bytes = self.bytes();
        if needed > self.entries.capacity() {
            bytes += self.capacity_for(more) * size_of::<(K, V)>();
        }
        if needed > self.positions.capacity() {
            // Of the index, seven of eight places are used at most; each is a position and a byte.
            bytes += (needed * 8 / 7 + 4).next_power_of_two() * (size_of::<u32>() + 1) + INDEX_END;
        }
        bytes
    }

    /// How many entries there is room for once so many more have to fit.
    fn capacity_for(&self, more: usize) -> usize {
        (self.entries.len() + more).max(self.entries.capacity() / 2 * 3).max(4)
    }
}

/// What an index takes besides its places, at most.
const INDEX_END: usize = 64;

impl<K, V> IntoIterator for Table<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_positions_and_growth_is_told() {
        let mut table: Table<u64, u64> = Table::default();
        assert_eq!(table.bytes(), 0);
        for round in 0..3 {
            for key in 0..10_000 {
                let told = table.bytes_for(1);
                let (position, value) = table.entry(key * 7);
                assert_eq!((u64::from(position), *value), (key, round));
                *value += 1;
                assert!(table.bytes() <= told, "{} at {key}, not {told}", table.bytes());
            }
        }
        assert_eq!(table.len(), 10_000);
        assert!(table.contains(7) && !table.contains(8));
        assert!(table.iter().zip(0..).all(|(entry, key)| *entry == (key * 7, 3)));

        let bytes = table.bytes();
        table.rekey(
            |position, key| if position < 100 { key } else { key % 700 },
            |value, more| *value += more,
        );
        assert!(table.bytes() < bytes / 50, "{} of {bytes}", table.bytes());
        assert!(table.iter().zip(0..).all(|(entry, key)| *entry == (key * 7, 300)));
        assert_eq!((table.len(), table.entry(693)), (100, (99, &mut 300)));
    }
}

//! The sets of labels that stores have had, by number: a sample carries the number, a profile the set.
//!
//! Labels come from an embedder's own input (a tenant's name, a request's path), so that both their size and their
//! number are bounded here. What is cut or left out is told in a notice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_profile::Labels;

/// How many different sets are told apart; all further ones are one set, [`OTHERS`].
pub const MAX_LABEL_SETS: usize = 1 << 16;
/// How many labels a set has at most; those with the first keys in alphabetical order are kept.
pub const MAX_LABELS: usize = 32;
/// How long a key or a value is at most, in bytes; the rest is cut off.
pub const MAX_LABEL_BYTES: usize = 256;
/// The only label of the set that stands for all that there was no room for.
pub const OTHERS: (&str, &str) = ("…", "too many labels");

/// The number of a sample without labels.
const NONE: u64 = 0;

/// How many sets have to have lost their last store before it is looked which of them can go.
const MANY_IDLE: usize = if cfg!(test) { 8 } else { 1 << 12 };

/// Gives each set of labels a number, which no other set ever has. Shared by the stores that are labelled and the collector.
///
/// A set is kept while a store has it and, as long as there are collectors, while a sample may have its number: labels of
/// requests come and go by the thousand.
#[derive(Debug, Default)]
pub struct LabelTable {
    sets: Mutex<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    numbers: HashMap<Labels, u64>,
    kept: HashMap<u64, Set>,
    last_number: u64,
    /// How many stores have become the last to let go of a set since it was looked which can be forgotten.
    idle: usize,
    collectors: usize,
    has_cut: bool,
    has_others: bool,
}

#[derive(Debug)]
struct Set {
    labels: Labels,
    /// How many stores have it.
    stores: usize,
}

impl LabelTable {
    /// The number of a set, 0 for the empty one, for a store that has it until [`LabelTable::release`]. Equal sets have
    /// equal numbers.
    ///
    /// Sets larger than [`MAX_LABELS`] and labels longer than [`MAX_LABEL_BYTES`] are cut. When there are
    /// [`MAX_LABEL_SETS`], every set that is not among them gets the number of the set [`OTHERS`].
    pub fn intern(&self, labels: Labels) -> u64 {
        if labels.is_empty() {
            return NONE;
        }
        let cut = cut(&labels);
        let mut sets = self.sets();
        sets.has_cut |= cut.is_some();
        let mut labels = cut.unwrap_or(labels);
        if !sets.numbers.contains_key(&labels) && sets.kept.len() >= MAX_LABEL_SETS {
            sets.has_others = true;
            labels = [OTHERS].into_iter().collect();
        }
        let Sets { numbers, kept, last_number, .. } = &mut *sets;
        let number = *numbers.entry(labels.clone()).or_insert_with(|| {
            *last_number += 1;
            *last_number
        });
        kept.entry(number).or_insert(Set { labels, stores: 0 }).stores += 1;
        number
    }

    /// Ends what [`LabelTable::intern`] has begun: the store has other labels now, or is gone.
    pub fn release(&self, number: u64) {
        let mut sets = self.sets();
        let Some(set) = sets.kept.get_mut(&number) else { return };
        set.stores = set.stores.saturating_sub(1);
        if set.stores > 0 {
            return;
        }
        if sets.collectors == 0 {
            sets.forget(number);
        } else {
            sets.idle += 1;
        }
    }

    /// The set with a number; the empty one for 0 and for a number that is not known.
    pub fn get(&self, number: u64) -> Labels {
        self.sets().kept.get(&number).map(|set| set.labels.clone()).unwrap_or_default()
    }

    /// What a reader of a profile should know about its labels, one sentence each.
    pub fn notices(&self) -> Vec<String> {
        let sets = self.sets();
        let mut notices = Vec::new();
        if sets.has_cut {
            notices.push(format!(
                "labels were cut: a key or value can have {MAX_LABEL_BYTES} bytes, and a set {MAX_LABELS} labels"
            ));
        }
        if sets.has_others {
            notices.push(format!(
                "there were more than {MAX_LABEL_SETS} different sets of labels at once; the others are shown as one"
            ));
        }
        notices
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        // Nothing in between its changes can panic.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sets {
    fn forget(&mut self, number: u64) {
        if let Some(set) = self.kept.remove(&number) {
            self.numbers.remove(&set.labels);
        }
    }
}

/// A collector, as far as labels are concerned: while there is one, sets are kept that samples have the numbers of.
#[derive(Debug)]
pub(crate) struct LabelReader(Arc<LabelTable>);

impl LabelReader {
    pub(crate) fn new(table: Arc<LabelTable>) -> Self {
        table.sets().collectors += 1;
        Self(table)
    }

    pub(crate) fn table(&self) -> &LabelTable {
        &self.0
    }

    /// The numbers of the sets that no store has any more, if it is time to look which of them can be forgotten.
    pub(crate) fn idle(&self) -> Vec<u64> {
        let mut sets = self.0.sets();
        // What others have collected is not known here; they will be gone soon.
        if sets.idle < MANY_IDLE || sets.collectors > 1 {
            return Vec::new();
        }
        sets.idle = 0;
        sets.kept.iter().filter(|(_, set)| set.stores == 0).map(|(number, _)| *number).collect()
    }

    /// Forgets those of `idle` that still no store has. No sample may have their numbers.
    pub(crate) fn forget(&self, idle: impl IntoIterator<Item = u64>) {
        let mut sets = self.0.sets();
        for number in idle {
            if sets.kept.get(&number).is_some_and(|set| set.stores == 0) {
                sets.forget(number);
            }
        }
    }
}

impl Drop for LabelReader {
    fn drop(&mut self) {
        let mut sets = self.0.sets();
        sets.collectors = sets.collectors.saturating_sub(1);
        if sets.collectors == 0 {
            let idle: Vec<u64> =
                sets.kept.iter().filter(|(_, set)| set.stores == 0).map(|(number, _)| *number).collect();
            idle.into_iter().for_each(|number| sets.forget(number));
            sets.idle = 0;
        }
    }
}

/// The set within the bounds, if it is not as it is.
fn cut(labels: &Labels) -> Option<Labels> {
    let is_long = |text: &str| text.len() > MAX_LABEL_BYTES;
    if labels.iter().len() <= MAX_LABELS && !labels.iter().any(|(key, value)| is_long(key) || is_long(value))
    {
        return None;
    }
    let head = |text: &str| -> Arc<str> { text[..text.floor_char_boundary(MAX_LABEL_BYTES)].into() };
    Some(labels.iter().take(MAX_LABELS).map(|(key, value)| (head(key), head(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(labels: [(&str, &str); N]) -> Labels {
        labels.into_iter().collect()
    }

    #[test]
    fn equal_sets_have_one_number() {
        let table = LabelTable::default();
        let first = table.intern(labels([("tenant", "a"), ("request", "7")]));
        let other = table.intern(labels([("tenant", "b")]));
        assert_ne!(first, other);
        assert_eq!(table.intern(labels([("request", "7"), ("tenant", "a")])), first);
        assert_eq!(table.get(first).get("tenant"), Some("a"));
        assert_eq!(table.intern(Labels::default()), 0);
        for unknown in [0, other + 1, u64::MAX] {
            assert_eq!(table.get(unknown), Labels::default());
        }
        assert!(table.notices().is_empty());
    }

    #[test]
    fn sets_go_with_their_last_store_and_the_last_sample() {
        let table = Arc::new(LabelTable::default());
        let set = |value: usize| labels([("request", &value.to_string())]);
        // Without a collector there are no samples.
        let first = table.intern(set(0));
        assert_eq!(table.intern(set(0)), first);
        table.release(first);
        assert_eq!(table.get(first), set(0), "a store has it still");
        table.release(first);
        assert_eq!(table.get(first), Labels::default());

        let reader = LabelReader::new(Arc::clone(&table));
        let numbers: Vec<u64> = (0..MANY_IDLE).map(|value| table.intern(set(value))).collect();
        assert!(!numbers.contains(&first), "a number is of one set only");
        numbers.iter().for_each(|number| table.release(*number));
        let idle = reader.idle();
        assert_eq!(idle.len(), MANY_IDLE);
        assert!(reader.idle().is_empty(), "it was looked just now");
        // A store has taken one of them again, and another is still on samples.
        assert_eq!(table.intern(set(3)), numbers[3]);
        reader.forget(idle.into_iter().filter(|number| *number != numbers[5]));
        for (value, number) in numbers.iter().enumerate() {
            let kept = if [3, 5].contains(&value) { set(value) } else { Labels::default() };
            assert_eq!(table.get(*number), kept);
        }
        drop(reader);
        assert_eq!((table.get(numbers[3]), table.get(numbers[5])), (set(3), Labels::default()));
    }

    #[test]
    fn labels_of_absurd_size_are_cut() {
        let table = LabelTable::default();
        // The bound falls into the middle of a character.
        let long = format!("x{}", "ü".repeat(1 << 20));
        let number = table.intern(labels([("tenant", &long), (&long, "a")]));
        let kept = &long[..MAX_LABEL_BYTES - 1];
        assert_eq!(table.get(number), labels([("tenant", kept), (kept, "a")]));
        assert_eq!(table.notices().len(), 1);

        let many = table.intern((0..100_000).map(|key| (format!("{key:06}"), "")).collect());
        let kept: Vec<String> = table.get(many).iter().map(|(key, _)| key.to_owned()).collect();
        assert_eq!(kept, (0..MAX_LABELS).map(|key| format!("{key:06}")).collect::<Vec<_>>());
    }

    #[test]
    fn sets_beyond_the_bound_are_one() {
        let table = LabelTable::default();
        let intern = |set: usize| table.intern([("request", set.to_string())].into_iter().collect());
        let numbers: Vec<_> = (0..MAX_LABEL_SETS + 10).map(intern).collect();
        let (told_apart, others) = numbers.split_at(MAX_LABEL_SETS);
        assert!(table.notices().iter().any(|notice| notice.contains("65536")));
        assert!(others.iter().all(|number| *number == others[0] && !told_apart.contains(number)));
        assert_eq!(table.get(others[0]), labels([OTHERS]));
        // Those that are known stay known.
        assert_eq!(intern(17), told_apart[17]);
        assert_eq!(table.get(told_apart[17]).get("request"), Some("17"));
    }
}

//! The sets of labels that stores have had, by number: a sample carries the number, a profile the set.
//!
//! Labels come from an embedder's own input (a tenant's name, a request's path), so that both their size and their
//! number are bounded here. What is cut or left out is told in a notice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_profile::Labels;
use indexmap::IndexSet;

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

/// Gives each set of labels a number. Shared by the stores that are labelled and the collector.
#[derive(Debug, Default)]
pub struct LabelTable {
    sets: Mutex<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    /// The set with number `n` is at index `n - 1`. Sets are never forgotten: samples and stores hold their numbers.
    known: IndexSet<Labels>,
    has_cut: bool,
}

impl LabelTable {
    /// The number of a set, 0 for the empty one. Equal sets have equal numbers.
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
        let labels = cut.unwrap_or(labels);
        let index = match sets.known.get_index_of(&labels) {
            Some(index) => index,
            None if sets.known.len() < MAX_LABEL_SETS => sets.known.insert_full(labels).0,
            None => sets.known.insert_full([OTHERS].into_iter().collect()).0,
        };
        index as u64 + 1
    }

    /// The set with a number; the empty one for 0 and for a number that was never given out.
    pub fn get(&self, number: u64) -> Labels {
        let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.sets().known.get_index(index).cloned()).unwrap_or_default()
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
        if sets.known.len() > MAX_LABEL_SETS {
            notices.push(format!(
                "there were more than {MAX_LABEL_SETS} different sets of labels; the others are shown as one"
            ));
        }
        notices
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        // Every change is a single insertion or store, so that a panic elsewhere does not matter.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
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

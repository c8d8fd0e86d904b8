//! Where and when samples were taken: thread, labels, time.

use std::sync::Arc;

/// A thread of one profile.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ThreadId(pub(crate) u32);

impl ThreadId {
    /// Position in [`Profile::threads`](crate::Profile::threads).
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A thread that ran guests.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Thread {
    /// The operating system's id of the thread.
    pub id: u64,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
}

/// A set of labels of one profile. The default is the empty set, which every profile has.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LabelsId(pub(crate) u32);

impl LabelsId {
    /// Position in [`Profile::label_sets`](crate::Profile::label_sets).
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an embedder says about the work that a store does: keys with their values, such as a tenant or a request.
/// Sorted by key, and each key occurs once.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let index = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[index].1)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    /// Of several values for one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let sorted: std::collections::BTreeMap<Arc<str>, Arc<str>> =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

/// Where and when samples were taken. The default is unknown in every respect.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// The thread that was sampled.
    pub thread: Option<ThreadId>,
    /// The labels of the store that ran.
    pub labels: LabelsId,
    /// Number of the slice of time, from the start of the profile on; its length is
    /// [`Metadata::slice`](crate::Metadata::slice).
    pub slice: Option<u32>,
}

/// How much room an execution stack had: the extremes over some samples.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Headroom {
    /// The most bytes that were in use, from the stack's top to the stack pointer.
    pub deepest_use: u64,
    /// The fewest bytes that were left, from the stack pointer to the end of the stack.
    pub least_left: u64,
}

impl Headroom {
    /// The extremes of both.
    pub fn merge(self, other: Self) -> Self {
        Self {
            deepest_use: self.deepest_use.max(other.deepest_use),
            least_left: self.least_left.min(other.least_left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_depend_on_their_order() {
        let one: Labels = [("tenant", "a"), ("request", "7")].into_iter().collect();
        let other: Labels = [("request", "6"), ("tenant", "a"), ("request", "7")].into_iter().collect();
        assert_eq!(one, other);
        assert_eq!(one.iter().collect::<Vec<_>>(), [("request", "7"), ("tenant", "a")]);
        assert_eq!(one.get("request"), Some("7"));
        assert_eq!(one.get("user"), None);
    }
}

//! Tracks: how viewers for which a sample has a thread and nothing else can show labels.
//!
//! Neither the Firefox Profiler nor speedscope has a place for labels on a sample. What both have is a row of its own
//! for each thread, by its name. So each set of labels of a thread gets such a row: samples with different labels are
//! never mixed, and the viewer's own means choose between them.

use std::collections::BTreeMap;

use crate::{Labels, LabelsId, Profile, Sample, Thread, ThreadId, names};

/// The samples of one thread with one set of labels.
pub(crate) struct Track<'p> {
    /// `None` for samples of which no thread is known.
    pub(crate) thread: Option<&'p Thread>,
    pub(crate) labels: &'p Labels,
    /// How many tracks of the same thread come before it.
    pub(crate) number: usize,
    /// In the order of the profile.
    pub(crate) samples: Vec<Sample>,
    /// What it is shown as: the thread, and its labels in brackets.
    pub(crate) name: String,
}

/// All tracks of a profile, at least one: without any there is nothing to open. The order is that of the threads, then
/// that of the sets of labels.
pub(crate) fn tracks(profile: &Profile) -> Vec<Track<'_>> {
    let mut samples: BTreeMap<(Option<ThreadId>, LabelsId), Vec<Sample>> = BTreeMap::new();
    for sample in profile.samples() {
        samples.entry((sample.origin.thread, sample.origin.labels)).or_default().push(sample);
    }
    if samples.is_empty() {
        samples.insert((None, LabelsId::default()), Vec::new());
    }
    let mut of_thread: BTreeMap<Option<ThreadId>, usize> = BTreeMap::new();
    let track = |((thread, labels), samples)| {
        let before = of_thread.entry(thread).or_default();
        let number = *before;
        *before += 1;
        let (thread, labels) = (thread.map(|id| profile.thread(id)), profile.labels(labels));
        Track { thread, labels, number, samples, name: name(profile, thread, labels) }
    };
    samples.into_iter().map(track).collect()
}

fn name(profile: &Profile, thread: Option<&Thread>, labels: &Labels) -> String {
    let thread = match thread {
        Some(Thread { name: Some(name), .. }) => name.to_string(),
        Some(Thread { id, name: None }) => format!("thread {id}"),
        None => profile.metadata.guest.as_deref().unwrap_or("all threads").to_owned(),
    };
    if labels.is_empty() {
        return thread;
    }
    let labels = labels.iter().map(|(key, text)| names::printable(&format!("{key}={text}")));
    format!("{thread} [{}]", labels.collect::<Vec<_>>().join(", "))
}

/// Labels as a member of a JSON object; `None` for the empty set.
pub(crate) fn to_member(labels: &Labels) -> Option<BTreeMap<String, String>> {
    let member = labels.iter().map(|(key, text)| (key.to_owned(), text.to_owned()));
    (!labels.is_empty()).then(|| member.collect())
}

/// The labels that a file has, if any.
pub(crate) fn from_member(member: Option<BTreeMap<String, String>>) -> Labels {
    member.into_iter().flatten().collect()
}

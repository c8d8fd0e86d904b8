//! Tracks: how viewers for which a sample has a thread and nothing else can show labels.
//!
//! Neither the Firefox Profiler nor speedscope has a place for labels on a sample. What both have is a row of its own
//! for each thread, by its name. So each set of labels of a thread gets such a row: samples with different labels are
//! never mixed, and the viewer's own means choose between them.
//!
//! Nobody can choose from thousands of rows, and both viewers take seconds to show them. Where there are more than
//! [`MOST_LABELLED`] sets, as with a label for each request, the heaviest have a row, and the others of a thread share one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{Labels, LabelsId, Profile, Sample, Thread, ThreadId, names};

/// The most tracks that are there for their labels, over all threads.
const MOST_LABELLED: usize = 100;

/// The samples of one thread with one set of labels, or with any of those that are too many to have a track each.
pub(crate) struct Track<'p> {
    /// `None` for samples of which no thread is known.
    pub(crate) thread: Option<&'p Thread>,
    /// The empty set for samples with different ones.
    pub(crate) labels: &'p Labels,
    /// How many tracks of the same thread come before it.
    pub(crate) number: usize,
    /// In the order of the profile.
    pub(crate) samples: Vec<Sample>,
    /// What it is shown as: the thread, and its labels in brackets.
    pub(crate) name: String,
}

/// Which labels the samples of a track have.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Labelled {
    With(LabelsId),
    WithOthers,
}

/// All tracks of a profile, at least one: without any there is nothing to open. The order is that of the threads, then
/// that of the sets of labels.
pub(crate) fn tracks(profile: &Profile) -> Vec<Track<'_>> {
    let heaviest = heaviest(profile);
    let mut samples: BTreeMap<(Option<ThreadId>, Labelled), Vec<Sample>> = BTreeMap::new();
    for sample in profile.samples() {
        let (thread, labels) = (sample.origin.thread, sample.origin.labels);
        let has_track = labels == LabelsId::default() || heaviest.contains(&(thread, labels));
        let labelled = if has_track { Labelled::With(labels) } else { Labelled::WithOthers };
        samples.entry((thread, labelled)).or_default().push(sample);
    }
    if samples.is_empty() {
        samples.insert((None, Labelled::With(LabelsId::default())), Vec::new());
    }
    let mut of_thread: BTreeMap<Option<ThreadId>, usize> = BTreeMap::new();
    let track = |((thread, labelled), samples)| {
        let before = of_thread.entry(thread).or_default();
        let number = *before;
        *before += 1;
        let thread = thread.map(|id| profile.thread(id));
        let (labels, shown) = match labelled {
            Labelled::With(id) => (profile.labels(id), shown(profile.labels(id))),
            Labelled::WithOthers => (profile.labels(LabelsId::default()), Some("other labels".to_owned())),
        };
        let name =
            thread_name(profile, thread) + &shown.map_or_else(String::new, |labels| format!(" [{labels}]"));
        Track { thread, labels, number, samples, name }
    };
    samples.into_iter().map(track).collect()
}

/// The threads with the sets of labels on them that have a track of their own.
fn heaviest(profile: &Profile) -> BTreeSet<(Option<ThreadId>, LabelsId)> {
    let mut weights: HashMap<(Option<ThreadId>, LabelsId), u64> = HashMap::new();
    for sample in profile.samples().filter(|sample| sample.origin.labels != LabelsId::default()) {
        *weights.entry((sample.origin.thread, sample.origin.labels)).or_default() += sample.tally.weight;
    }
    let mut order: Vec<_> = weights.into_iter().collect();
    order.sort_unstable_by_key(|&(origin, weight)| (Reverse(weight), origin));
    order.into_iter().take(MOST_LABELLED).map(|(origin, _)| origin).collect()
}

fn thread_name(profile: &Profile, thread: Option<&Thread>) -> String {
    match thread {
        Some(Thread { name: Some(name), .. }) => name.to_string(),
        Some(Thread { id, name: None }) => format!("thread {id}"),
        None => profile.metadata.guest.as_deref().unwrap_or("all threads").to_owned(),
    }
}

/// Labels as text; `None` for the empty set.
fn shown(labels: &Labels) -> Option<String> {
    let texts = labels.iter().map(|(key, text)| names::printable(&format!("{key}={text}")));
    (!labels.is_empty()).then(|| texts.collect::<Vec<_>>().join(", "))
}

/// Labels as a member of a JSON object; `None` for the empty set.
pub(crate) fn to_member(labels: &Labels) -> Option<BTreeMap<String, String>> {
    let member = labels.iter().map(|(key, text)| (key.to_owned(), text.to_owned()));
    (!labels.is_empty()).then(|| member.collect())
}

/// The labels that a file has, if any.
pub(crate) fn from_member(member: Option<BTreeMap<String, String>>) -> Vec<(Arc<str>, Arc<str>)> {
    member.into_iter().flatten().map(|(key, value)| (key.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Frame, Origin, Tally, format};

    /// A server that labels each request had a track for each in its file, which no viewer could open any more.
    #[test]
    fn the_heaviest_sets_have_tracks_and_the_others_share_one() {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let threads = [1, 2].map(|id| Some(profile.intern_thread(Thread { id, name: None })));
        let mut expected = BTreeMap::from([("thread 1".to_owned(), 5), ("thread 2".to_owned(), 5)]);
        for request in 0..4_000_u64 {
            let labels = profile.intern_labels([("request", request.to_string())].into_iter().collect());
            let thread = (request % 2) as usize;
            // Neither the first nor the last are the heaviest.
            let weight = if (1_000..1_100).contains(&request) { 1_000 + request } else { 1 + request % 7 };
            let origin = Origin { thread: threads[thread], labels, slice: Some(request as u32) };
            profile.add_from(&[main], origin, Tally { samples: 1, weight }).unwrap();
            let track = if weight > 1_000 { format!("request={request}") } else { "other labels".into() };
            *expected.entry(format!("thread {} [{track}]", thread + 1)).or_default() += weight;
        }
        for thread in threads {
            let origin = Origin { thread, ..Origin::default() };
            profile.add_from(&[main], origin, Tally { samples: 1, weight: 5 }).unwrap();
        }
        let tracks = tracks(&profile);
        let weights = tracks.iter().map(|track| {
            (track.name.clone(), track.samples.iter().map(|sample| sample.tally.weight).sum::<u64>())
        });
        assert_eq!(weights.collect::<BTreeMap<_, _>>(), expected);
        assert_eq!(tracks.len(), MOST_LABELLED + 4);
        for format in [Format::Firefox, Format::Speedscope] {
            let mut bytes = Vec::new();
            format::write(&profile, format, &mut bytes).unwrap();
            assert_eq!(format::read(&bytes).unwrap().total(), profile.total(), "{format}");
        }
    }
}

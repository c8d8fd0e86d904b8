//! A part of a profile: some threads, labels, a range of time, some stacks. One meaning for all who take filters.
//!
//! - **Threads**: samples of any of the given threads, each by its id or its name.
//! - **Labels**: samples that have, for each key that is given, one of the values given for it.
//! - **Time**: samples whose slice starts within the range; its end is outside. So two ranges that meet share
//!   nothing, and together have what both have. A profile's slices are as exact as it gets.
//! - **Focus**: stacks in which every given pattern matches some frame.
//! - **Ignore**: not the stacks in which any given pattern matches some frame.
//! - **Recursion**: a function that calls itself is one frame, in the place of its youngest call.
//!
//! Patterns are matched against shown names. What is unknown about a sample matches nothing. The extremes of stack use
//! are known for each stack only, and stay those of all of its samples.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use flamewalk_profile::{
    Frame, FrameId, FrameKind, Labels, NameId, Names, Origin, Profile, ProfileError, Sample, Statistics,
    Tally, Thread,
};

use crate::amount::{count, time};

/// A regular expression for shown names; it may match anywhere in them. Case matters (unless it starts with `(?i)`),
/// and classes such as `\w` mean ASCII.
#[derive(Clone, Debug)]
pub struct Pattern(regex_lite::Regex);

impl Pattern {
    /// Whether it matches some part of a name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl FromStr for Pattern {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match regex_lite::Regex::new(text) {
            Ok(regex) => Ok(Self(regex)),
            Err(error) => Err(FilterError::Pattern { pattern: text.into(), reason: error.to_string() }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// What to keep of a profile. The default keeps everything.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Ids or names of threads.
    pub threads: Vec<String>,
    /// Keys and values of labels.
    pub labels: Vec<(String, String)>,
    /// Time from the start of the profile on.
    pub from: Option<Duration>,
    /// Time from the start of the profile on, itself excluded.
    pub to: Option<Duration>,
    /// What the stacks have to have.
    pub focus: Vec<Pattern>,
    /// What the stacks must not have.
    pub ignore: Vec<Pattern>,
    /// Whether a function that calls itself becomes one frame.
    pub collapse_recursion: bool,
}

/// Why a filter cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// A pattern that is no regular expression.
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A range of time that ends before it starts.
    #[error("the time range from {} to {} is empty", time(*from), time(*to))]
    EmptyRange {
        /// Where it starts.
        from: Duration,
        /// Where it ends.
        to: Duration,
    },
    /// A range of time, and a profile that does not say when its samples were taken.
    #[error("the profile does not say when its samples were taken")]
    NoTimes,
    /// A thread that the profile does not have.
    #[error("the profile has no thread `{thread}`; {known}")]
    UnknownThread {
        /// Its id or name, as given.
        thread: String,
        /// Those it has, as a clause.
        known: String,
    },
    /// A label that no sample of the profile has.
    #[error("the profile has no samples with the label `{key}={value}`; {known}")]
    UnknownLabel {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
        /// What it has instead, as a clause.
        known: String,
    },
    /// The parts of the profile do not fit into a profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

impl Filter {
    /// Whether it keeps everything as it is.
    pub fn is_empty(&self) -> bool {
        !self.drops_samples() && !self.collapse_recursion
    }

    fn drops_samples(&self) -> bool {
        let Self { threads, labels, from, to, focus, ignore, collapse_recursion: _ } = self;
        !(threads.is_empty() && labels.is_empty() && focus.is_empty() && ignore.is_empty())
            || from.is_some()
            || to.is_some()
    }

    /// The part of `profile` that is left. A notice says how much that is. Its statistics are those of the samples
    /// that are left: nothing tells which of the others were lost, and the notice has their number.
    ///
    /// # Errors
    /// Those of [`FilterError`], if the profile cannot have what is asked for. That nothing is left is none.
    pub fn apply(&self, profile: &Profile) -> Result<Profile, FilterError> {
        if self.is_empty() {
            return Ok(profile.clone());
        }
        self.check(profile)?;
        let names = Names::new(profile);
        let keeps = self.stacks(profile, &names);
        let mut left = Left::new(profile);
        for sample in profile.samples() {
            if keeps[sample.stack.index()] && self.keeps(profile, &sample.origin) {
                left.add(&sample, |frames| {
                    self.collapse_recursion.then(|| collapsed(profile, &names, frames)).flatten()
                })?;
            }
        }
        let mut filtered = left.filtered;
        if self.drops_samples() {
            filtered.metadata.statistics = Statistics::default();
            filtered.metadata.statistics.ticks = filtered.total();
            filtered.metadata.statistics.delivered = filtered.total();
        }
        filtered.metadata.notices.push(self.notice(profile, filtered.total()));
        Ok(filtered)
    }

    /// Finds what the profile cannot have, so that a wrong word is not taken for an answer of 0.
    fn check(&self, profile: &Profile) -> Result<(), FilterError> {
        for thread in &self.threads {
            if !profile.threads().any(|(_, known)| is_called(known, thread)) {
                let known = clause("its threads are", profile.threads().map(|(_, thread)| title(thread)));
                return Err(FilterError::UnknownThread { thread: thread.clone(), known });
            }
        }
        for (key, value) in &self.labels {
            let sets = || profile.label_sets().map(|(_, labels)| labels);
            if !sets().any(|labels| labels.get(key) == Some(value)) {
                let values =
                    sets().filter_map(|labels| labels.get(key)).map(|value| format!("{key}={value}"));
                let mut known = values.collect::<Vec<_>>();
                if known.is_empty() {
                    let keys = sets().flat_map(Labels::iter).map(|(key, _)| key.to_owned());
                    known = keys.collect();
                }
                let known = clause("it has", known.into_iter());
                return Err(FilterError::UnknownLabel { key: key.clone(), value: value.clone(), known });
            }
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to <= from
        {
            return Err(FilterError::EmptyRange { from, to });
        }
        let has_times = || profile.samples().any(|sample| sample.origin.slice.is_some());
        if (self.from.is_some() || self.to.is_some()) && (profile.metadata.slice.is_none() || !has_times()) {
            return Err(FilterError::NoTimes);
        }
        Ok(())
    }

    fn keeps(&self, profile: &Profile, origin: &Origin) -> bool {
        let is_wanted = |thread: &Thread| self.threads.iter().any(|wanted| is_called(thread, wanted));
        let thread = self.threads.is_empty() || origin.thread.is_some_and(|id| is_wanted(profile.thread(id)));
        let labels = profile.labels(origin.labels);
        let has_one_of =
            |key: &str| self.labels.iter().any(|(k, value)| k == key && labels.get(key) == Some(value));
        thread && self.labels.iter().all(|(key, _)| has_one_of(key)) && self.is_in_time(profile, origin.slice)
    }

    fn is_in_time(&self, profile: &Profile, slice: Option<u32>) -> bool {
        if self.from.is_none() && self.to.is_none() {
            return true;
        }
        let Some((slice, length)) = slice.zip(profile.metadata.slice) else { return false };
        // A time so long that it does not fit is later than any.
        let Some(start) = length.checked_mul(slice) else { return self.to.is_none() };
        self.from.is_none_or(|from| from <= start) && self.to.is_none_or(|to| start < to)
    }

    /// For each stack, whether its frames are as wanted.
    fn stacks(&self, profile: &Profile, names: &Names) -> Vec<bool> {
        // Each name is matched once, however many stacks have it.
        let matched = |pattern: &Pattern| names.all().map(|name| pattern.matches(name)).collect::<Vec<_>>();
        let focus: Vec<_> = self.focus.iter().map(matched).collect();
        let ignore: Vec<_> = self.ignore.iter().map(matched).collect();
        let has = |frames: &[FrameId], matched: &Vec<bool>| {
            frames.iter().any(|&frame| matched[names.id(frame).index()])
        };
        let keeps = |frames| {
            focus.iter().all(|matched| has(frames, matched))
                && !ignore.iter().any(|matched| has(frames, matched))
        };
        profile.stacks().map(|stack| keeps(stack.frames)).collect()
    }

    /// What was asked for and how much it is.
    fn notice(&self, profile: &Profile, left: Tally) -> String {
        let mut text = format!("filtered by {self}");
        if !self.drops_samples() {
            return text;
        }
        let all = profile.total();
        let share = 100.0 * left.weight as f64 / all.weight.max(1) as f64;
        text += &format!(": {share:.2}% of the weight is left");
        if all.samples > 0 {
            text += &format!(", {} of {} samples", count(left.samples), count(all.samples));
        }
        match profile.metadata.statistics.total_lost().samples {
            0 => text,
            lost => text + &format!("; of the whole profile, {} were lost besides", count(lost)),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.threads.iter().map(|thread| format!("thread {thread}")).collect();
        parts.extend(self.labels.iter().map(|(key, value)| format!("label {key}={value}")));
        parts.extend(self.from.map(|from| format!("from {}", time(from))));
        parts.extend(self.to.map(|to| format!("to {}", time(to))));
        parts.extend(self.focus.iter().map(|pattern| format!("focus `{pattern}`")));
        parts.extend(self.ignore.iter().map(|pattern| format!("ignore `{pattern}`")));
        parts.extend(self.collapse_recursion.then(|| "collapsed recursion".to_owned()));
        f.write_str(&flamewalk_profile::printable(&parts.join(", ")))
    }
}

fn is_called(thread: &Thread, id_or_name: &str) -> bool {
    thread.name.as_deref() == Some(id_or_name) || thread.id.to_string() == id_or_name
}

fn title(thread: &Thread) -> String {
    match &thread.name {
        Some(name) => format!("{} ({name})", thread.id),
        None => thread.id.to_string(),
    }
}

/// A short list of what there is.
fn clause(before: &str, known: impl Iterator<Item = String>) -> String {
    const MOST: usize = 10;
    let known: std::collections::BTreeSet<String> = known.collect();
    if known.is_empty() {
        return "it has none".to_owned();
    }
    let shown: Vec<_> = known.iter().take(MOST).map(|text| flamewalk_profile::printable(text)).collect();
    let more = if known.len() > MOST { ", …" } else { "" };
    format!("{before} {}{more}", shown.join(", "))
}

/// The frames of a stack with each run of one function as one frame; `None` if there is none.
fn collapsed(profile: &Profile, names: &Names, frames: &[FrameId]) -> Option<Vec<Frame>> {
    let function = |id: FrameId| -> (FrameKind, NameId) { (profile.frame(id).kind, names.id(id)) };
    let runs = || frames.chunk_by(|&a, &b| function(a) == function(b));
    if runs().count() == frames.len() {
        return None;
    }
    let one = |run: &[FrameId]| {
        let (oldest, youngest) = (profile.frame(run[0]), profile.frame(run[run.len() - 1]));
        Frame { inlined: oldest.inlined, ..youngest.clone() }
    };
    Some(runs().map(one).collect())
}

/// The profile that is left, and how the ids of the whole one map to its own.
struct Left<'p> {
    profile: &'p Profile,
    filtered: Profile,
    stacks: BTreeMap<usize, Vec<FrameId>>,
}

impl<'p> Left<'p> {
    fn new(profile: &'p Profile) -> Self {
        Self { profile, filtered: Profile::new(profile.metadata.clone()), stacks: BTreeMap::new() }
    }

    /// Adds a sample, on other frames if `replace` gives some for those of its stack.
    fn add(
        &mut self,
        sample: &Sample,
        replace: impl Fn(&[FrameId]) -> Option<Vec<Frame>>,
    ) -> Result<(), ProfileError> {
        let (profile, filtered) = (self.profile, &mut self.filtered);
        let stack = profile.stack(sample.stack);
        let frames = self.stacks.entry(sample.stack.index()).or_insert_with(|| match replace(stack.frames) {
            Some(frames) => frames.into_iter().map(|frame| filtered.intern(frame)).collect(),
            None => stack.frames.iter().map(|&id| filtered.intern(profile.frame(id).clone())).collect(),
        });
        let origin = Origin {
            thread: sample.origin.thread.map(|id| filtered.intern_thread(profile.thread(id).clone())),
            labels: filtered.intern_labels(profile.labels(sample.origin.labels).clone()),
            slice: sample.origin.slice,
        };
        let id = filtered.add_from(frames, origin, sample.tally)?;
        if let Some(headroom) = stack.headroom {
            filtered.note_headroom(id, headroom);
        }
        Ok(())
    }
}

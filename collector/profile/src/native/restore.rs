//! From the tables of the native format back to a profile. They may come from a file of any content.

use std::sync::Arc;

use super::{
    malformed,
    tables::{Differences, Frames, Head, LabelSets, OneMore, Samples, Stacks, Texts},
};
use crate::{
    Format, Frame, FrameId, FrameKind, Headroom, LabelsId, Origin, Profile, ProfileError, SourceLocation,
    StackId, Tally, Thread, ThreadId, bounded::BoundedProfile, bounds,
};

/// Kinds of frames by their number in the file.
const KINDS: [FrameKind; 5] =
    [FrameKind::Guest, FrameKind::HostCall, FrameKind::Builtin, FrameKind::Host, FrameKind::Truncated];

impl Head<'_> {
    pub(super) fn restore(self) -> Result<Restored, ProfileError> {
        let mut profile = BoundedProfile::new(self.description.into_metadata()?);
        let texts = RestoredTexts::of(self.texts, &mut profile)?;
        let frames = self.frames.restore(&mut profile, &texts, &self.body_hashes)?;
        let mut threads = Vec::with_capacity(self.threads.len());
        for (id, name) in self.threads {
            threads.push(profile.intern_thread(Thread { id, name: texts.optional(name)? })?);
        }
        let labels = self.labels.restore(&mut profile, &texts)?;
        Ok(Restored { profile, frames, threads, labels })
    }
}

/// What the head of a file became.
pub(super) struct Restored {
    profile: BoundedProfile,
    frames: Vec<FrameId>,
    threads: Vec<ThreadId>,
    labels: Vec<LabelsId>,
}

/// The same, with the stacks that samples may fall on.
pub(super) struct RestoredStacks {
    restored: Restored,
    tree: bounds::Tree,
    /// The nodes that the stacks end with.
    ends: Vec<u64>,
    /// Stack, deepest use and least left.
    headroom: Vec<(u32, u64, u64)>,
}

impl Restored {
    pub(super) fn with_stacks(self, stacks: Stacks) -> Result<RestoredStacks, ProfileError> {
        equal_lengths("stack nodes", stacks.caller.len(), &[stacks.frame.len()])?;
        let mut tree = bounds::Tree::new(Format::Native);
        let mut ids = Differences::default();
        for (position, (back, difference)) in (0_u64..).zip(stacks.caller.into_iter().zip(stacks.frame)) {
            let frame = *entry("frames", &self.frames, ids.next(difference))?;
            // A distance that is too large wraps to a position that does not exist.
            let caller = (u64::from(back) != position + 1).then(|| position.wrapping_sub(back.into()));
            tree.push(caller, frame)?;
        }
        let mut nodes = Differences::default();
        let ends = stacks.end.into_iter().map(|difference| nodes.next(difference)).collect();
        Ok(RestoredStacks { restored: self, tree, ends, headroom: stacks.headroom })
    }
}

impl RestoredStacks {
    pub(super) fn with_samples(self, samples: Samples) -> Result<Profile, ProfileError> {
        let Restored { mut profile, threads, labels, .. } = self.restored;
        let rows = samples.stack.len();
        let lengths = [
            samples.thread.len(),
            samples.labels.len(),
            samples.slice.len(),
            samples.samples.len(),
            samples.weight.len(),
        ];
        equal_lengths("samples", rows, &lengths)?;
        let (mut positions, mut slices) = (Differences::default(), Differences::default());
        let mut ids: Vec<Option<StackId>> = vec![None; self.ends.len()];
        for row in 0..rows {
            let position = positions.next(samples.stack[row]);
            let end = *entry("stacks", &self.ends, position)?;
            let thread = samples.thread[row].checked_sub(1);
            let origin = Origin {
                thread: thread.map(|index| entry("threads", &threads, index).copied()).transpose()?,
                labels: *entry("sets of labels", &labels, samples.labels[row])?,
                slice: number("slice of time", slices.next(samples.slice[row]))?,
            };
            let tally = Tally { samples: samples.samples[row], weight: samples.weight[row] };
            // A stack is put together with its first sample, and a deep one that has many is hashed once.
            let id = &mut ids[position as usize];
            *id = Some(match *id {
                Some(id) => profile.add_to(id, origin, tally)?,
                None => profile.add_from(&self.tree.stack(end)?, origin, tally)?,
            });
        }
        for (stack, deepest_use, least_left) in self.headroom {
            let id =
                entry("stacks", &ids, stack)?.ok_or_else(|| malformed(&"room on a stack without samples"))?;
            profile.note_headroom(id, Headroom { deepest_use, least_left });
        }
        Ok(profile.into_profile())
    }
}

struct RestoredTexts(Vec<Arc<str>>);

impl RestoredTexts {
    fn of(texts: Texts, profile: &mut BoundedProfile) -> Result<Self, ProfileError> {
        let mut rest = &*texts.joined;
        let mut restored = Vec::with_capacity(texts.lengths.len());
        for length in texts.lengths {
            let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
            let (text, after) =
                split.ok_or_else(|| malformed(&format_args!("a text of {length} bytes is cut short")))?;
            restored.push(profile.text(text)?);
            rest = after;
        }
        Ok(Self(restored))
    }

    fn get(&self, index: impl Into<u64>) -> Result<Arc<str>, ProfileError> {
        Ok(Arc::clone(entry("texts", &self.0, index)?))
    }

    fn optional(&self, index: OneMore) -> Result<Option<Arc<str>>, ProfileError> {
        index.checked_sub(1).map(|index| self.get(index)).transpose()
    }
}

impl Frames {
    fn restore(
        self,
        profile: &mut BoundedProfile,
        texts: &RestoredTexts,
        body_hashes: &[u64],
    ) -> Result<Vec<FrameId>, ProfileError> {
        let rows = self.kind.len();
        let lengths = [
            self.inlined.len(),
            self.name.len(),
            self.module.len(),
            self.file.len(),
            self.line.len(),
            self.column.len(),
            self.function_index.len(),
            self.bytecode_offset.len(),
            self.text_offset.len(),
            self.body_hash.len(),
        ];
        equal_lengths("frames", rows, &lengths)?;
        let mut frames = Vec::with_capacity(rows);
        for row in 0..rows {
            let (line, column) = (self.line[row], self.column[row]);
            let hash = self.body_hash[row].checked_sub(1);
            frames.push(profile.intern(Frame {
                kind: *entry("kinds of frames", &KINDS, self.kind[row])?,
                name: texts.get(self.name[row])?,
                module: texts.optional(self.module[row])?,
                location: texts.optional(self.file[row])?.map(|file| SourceLocation { file, line, column }),
                function_index: number("function index", self.function_index[row])?,
                bytecode_offset: number("bytecode offset", self.bytecode_offset[row])?,
                text_offset: number("text offset", self.text_offset[row])?,
                body_hash: hash.map(|index| entry("body hashes", body_hashes, index).copied()).transpose()?,
                inlined: self.inlined[row],
            })?);
        }
        Ok(frames)
    }
}

impl LabelSets {
    fn restore(
        self,
        profile: &mut BoundedProfile,
        texts: &RestoredTexts,
    ) -> Result<Vec<LabelsId>, ProfileError> {
        let mut rest = &*self.pairs;
        let mut sets = Vec::with_capacity(self.counts.len());
        for count in self.counts {
            let split = usize::try_from(count).ok().and_then(|count| rest.split_at_checked(count));
            let (pairs, after) =
                split.ok_or_else(|| malformed(&format_args!("a set of {count} labels is cut short")))?;
            rest = after;
            let pairs = pairs.iter().map(|&(key, value)| Ok((texts.get(key)?, texts.get(value)?)));
            sets.push(profile.intern_labels(pairs.collect::<Result<_, ProfileError>>()?)?);
        }
        Ok(sets)
    }
}

fn entry<'e, T>(table: &'static str, entries: &'e [T], index: impl Into<u64>) -> Result<&'e T, ProfileError> {
    bounds::entry(Format::Native, table, entries, index)
}

/// A number of 32 bits that may be missing.
fn number(what: &'static str, one_more: OneMore) -> Result<Option<u32>, ProfileError> {
    let Some(number) = one_more.checked_sub(1) else { return Ok(None) };
    let refused = |_| ProfileError::Value { format: Format::Native, what, value: number.to_string() };
    u32::try_from(number).map(Some).map_err(refused)
}

fn equal_lengths(table: &str, rows: usize, columns: &[usize]) -> Result<(), ProfileError> {
    bounds::equal_lengths(Format::Native, table, rows, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::parts::Parts;

    /// The tables of a file, all at once.
    struct Tables {
        head: Head<'static>,
        stacks: Stacks,
        samples: Samples,
    }

    impl Tables {
        fn into_profile(self) -> Result<Profile, ProfileError> {
            self.head.restore()?.with_stacks(self.stacks)?.with_samples(self.samples)
        }
    }

    /// The texts live for as long as the tests.
    fn written(profile: &Profile) -> Tables {
        let mut content = Vec::new();
        crate::native::tables::write(profile, &mut content).unwrap();
        let mut parts = Parts(content.leak());
        Tables {
            head: parts.head().unwrap(),
            stacks: parts.stacks().unwrap(),
            samples: parts.samples().unwrap(),
        }
    }

    fn tables() -> Tables {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let write = profile.intern(Frame::host_call("env", "write"));
        let thread = profile.intern_thread(Thread { id: 7, name: None });
        let labels = profile.intern_labels([("tenant", "a")].into_iter().collect());
        let origin = Origin { thread: Some(thread), labels, slice: Some(3) };
        let id = profile.add_from(&[main, write], origin, Tally { samples: 1, weight: 10 }).unwrap();
        profile.note_headroom(id, Headroom { deepest_use: 1, least_left: 2 });
        written(&profile)
    }

    fn refused(damage: impl FnOnce(&mut Tables)) -> String {
        let mut tables = tables();
        damage(&mut tables);
        tables.into_profile().expect_err("damaged tables are refused").to_string()
    }

    #[test]
    fn every_reference_is_looked_up() {
        assert!(tables().into_profile().is_ok());
        let malformed = |rest: &str| format!("malformed flamewalk file: {rest}");
        assert_eq!(refused(|t| t.head.frames.name[1] = 9), malformed("9 is not one of its 5 texts"));
        assert_eq!(
            refused(|t| t.head.frames.kind[1] = 5),
            malformed("5 is not one of its 5 kinds of frames")
        );
        assert_eq!(
            refused(|t| t.head.frames.body_hash[0] = 1),
            malformed("0 is not one of its 0 body hashes")
        );
        assert_eq!(refused(|t| t.stacks.frame[1] = 2), malformed("2 is not one of its 2 frames"));
        assert_eq!(refused(|t| t.stacks.end[0] = 4), malformed("4 is not one of its 2 stack nodes"));
        assert_eq!(
            refused(|t| t.stacks.caller[1] = 0),
            malformed("1 is not one of its 1 earlier stack nodes")
        );
        assert!(refused(|t| t.stacks.caller[0] = 3).ends_with("is not one of its 0 earlier stack nodes"));
        assert!(refused(|t| t.samples.stack[0] = -1).ends_with("is not one of its 1 stacks"));
        assert_eq!(refused(|t| t.samples.thread[0] = 2), malformed("1 is not one of its 1 threads"));
        assert_eq!(refused(|t| t.samples.labels[0] = 2), malformed("2 is not one of its 2 sets of labels"));
        assert_eq!(refused(|t| t.stacks.headroom[0].0 = 1), malformed("1 is not one of its 1 stacks"));
    }

    /// A file of a few kilobytes took hours: each of its two million samples on one stack hashed all of the stack's frames.
    #[test]
    fn a_deep_stack_with_many_samples_is_read_at_once() {
        let mut profile = Profile::default();
        let frame = profile.intern(Frame::guest("f"));
        let (depth, samples) = (1 << 20, 1 << 20);
        profile.add(&vec![frame; depth], Tally { samples: 1, weight: 1 }).unwrap();
        let mut tables = written(&profile);
        for column in [&mut tables.samples.samples, &mut tables.samples.weight] {
            column.resize(samples, 1);
        }
        tables.samples.thread.resize(samples, 0);
        tables.samples.labels.resize(samples, 0);
        tables.samples.stack.resize(samples, 0);
        // Each in a slice of its own.
        tables.samples.slice.resize(samples, 1);
        let read = tables.into_profile().unwrap();
        assert_eq!(read.total(), Tally { samples: samples as u64, weight: samples as u64 });
        assert_eq!((read.stacks().len(), read.samples().len()), (1, samples));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let malformed = |rest: &str| format!("malformed flamewalk file: {rest}");
        assert_eq!(
            refused(|t| t.head.frames.line.truncate(1)),
            malformed("2 frames with a column of 1 entries")
        );
        assert_eq!(
            refused(|t| t.stacks.frame.push(0)),
            malformed("2 stack nodes with a column of 3 entries")
        );
        assert_eq!(refused(|t| t.samples.weight.clear()), malformed("1 samples with a column of 0 entries"));
        assert_eq!(refused(|t| t.head.texts.lengths[4] += 1), malformed("a text of 2 bytes is cut short"));
        assert_eq!(refused(|t| t.head.labels.counts[1] = 2), malformed("a set of 2 labels is cut short"));
        assert_eq!(refused(|t| t.samples.slice[0] = 1 << 40), {
            "1099511627775 is no slice of time in the flamewalk format"
        });
        let mut unsampled = tables();
        unsampled.stacks.end.push(0);
        unsampled.stacks.headroom[0].0 = 1;
        assert_eq!(
            unsampled.into_profile().unwrap_err().to_string(),
            malformed("room on a stack without samples")
        );
    }
}

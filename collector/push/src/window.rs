//! What is sent: the profile of a stretch of time. And when each of them ends.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use flamewalk_profile::{Origin, Profile};

/// The profile of a window of time, as each sink gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Window {
    /// What was sampled.
    pub profile: Profile,
    /// When it began. Windows follow each other without gaps.
    pub begin: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// A number that no other window has, anywhere; the same each time that this one is sent.
    pub id: [u8; 16],
}

impl Window {
    /// A window with a number of its own.
    pub fn new(profile: Profile, begin: SystemTime, end: SystemTime) -> Self {
        // The keys of each are random, so that what they make of a value is.
        let half = || RandomState::new().hash_one(end).to_be_bytes();
        let (first, second) = (half(), half());
        Self {
            profile,
            begin,
            end,
            id: std::array::from_fn(|index| if index < 8 { first[index] } else { second[index - 8] }),
        }
    }

    /// [`Window::id`] in the usual form of such numbers, marked as a random one.
    pub(crate) fn uuid(&self) -> String {
        let mut bytes = self.id;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

/// A profile whose samples do not know their threads and times: stores make a series of each set of labels, and threads of
/// a pool come and go.
pub(crate) fn without_threads(profile: &Profile) -> Profile {
    let mut merged = Profile::new(profile.metadata.clone());
    let frames: Vec<_> = profile.frames().map(|(_, frame)| merged.intern(frame.clone())).collect();
    for sample in profile.samples() {
        let stack: Vec<_> =
            profile.stack(sample.stack).frames.iter().map(|frame| frames[frame.index()]).collect();
        let labels = merged.intern_labels(profile.labels(sample.origin.labels).clone());
        let added = merged.add_from(&stack, Origin { labels, ..Origin::default() }, sample.tally);
        // Its frames and labels are its own, and the sums are those that the profile has.
        debug_assert!(added.is_ok(), "{added:?}");
    }
    merged
}

/// How long it is from `now` to the next multiple of `length` on the wall clock.
pub(crate) fn until_next(now: SystemTime, length: Duration) -> Duration {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let length = length.as_nanos().max(1);
    let rest = length - since.as_nanos() % length;
    Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, Tally, Thread};

    use super::*;

    #[test]
    fn windows_end_at_multiples_of_their_length() {
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let ten = Duration::from_secs(10);
        assert_eq!(until_next(at(1_795_000_003_000_000_001), ten), Duration::from_nanos(6_999_999_999));
        // One that has just ended is over.
        assert_eq!(until_next(at(1_795_000_010_000_000_000), ten), ten);
        assert_eq!(until_next(at(1_795_000_009_999_999_999), ten), Duration::from_nanos(1));
    }

    #[test]
    fn numbers_are_not_used_twice() {
        let now = SystemTime::now();
        let ids: std::collections::HashSet<_> =
            (0..10_000).map(|_| Window::new(Profile::default(), now, now).id).collect();
        assert_eq!(ids.len(), 10_000);
        let mut window = Window::new(Profile::default(), now, now);
        window.id = [0xff; 16];
        assert_eq!(window.uuid(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn threads_and_times_are_merged_and_labels_are_not() {
        let mut profile = Profile::default();
        let main = profile.intern(Frame::guest("main"));
        let leaf = profile.intern(Frame::guest("leaf"));
        for (number, tenant, slice) in [(1, "a", 1), (2, "a", 2), (2, "b", 2)] {
            let thread = Some(profile.intern_thread(Thread { id: number, name: None }));
            let labels = profile.intern_labels([("tenant", tenant)].into_iter().collect());
            let origin = Origin { thread, labels, slice: Some(slice) };
            profile.add_from(&[main, leaf], origin, Tally { samples: 1, weight: 10 }).unwrap();
        }
        let merged = without_threads(&profile);
        assert_eq!((merged.threads().len(), merged.stacks().len()), (0, 1));
        let samples: Vec<_> = merged
            .samples()
            .map(|sample| (merged.labels(sample.origin.labels).get("tenant"), sample.tally.weight))
            .collect();
        assert_eq!(samples, [(Some("a"), 20), (Some("b"), 10)]);
    }
}

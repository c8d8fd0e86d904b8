//! The functions of one or more profiles, and which of them each frame belongs to.
//!
//! A function is what [`Profile::functions`] takes for one: a kind and a shown name. They are numbered in the order of
//! their names, so that numbers can be compared instead of names.

use flamewalk_profile::{Frame, FrameId, FrameKind, Names, Profile};
use indexmap::IndexSet;

/// Kind and shown name, ordered by the name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) kind: FrameKind,
    /// Its position among the functions of a comparison, which tells functions of one name apart that are not the same.
    pub(super) change: Option<usize>,
}

/// All functions, sorted.
pub(super) struct Functions {
    pub(super) all: Vec<Function>,
    /// By profile, then by frame: a position in `all`.
    of_frame: Vec<Vec<u32>>,
}

impl Functions {
    /// The functions of `profiles`. `known` gives the function of a frame of the profile with this number, if it is
    /// another than the frame says: this is how those of two builds become one.
    pub(super) fn new(profiles: &[&Profile], known: impl Fn(usize, FrameId) -> Option<Function>) -> Self {
        let mut found = IndexSet::new();
        let by_profile: Vec<Vec<usize>> = profiles
            .iter()
            .enumerate()
            .map(|(number, profile)| {
                let names = Names::new(profile);
                let function = |(id, frame): (FrameId, &Frame)| {
                    let own = || Function { name: names.of(id).to_owned(), kind: frame.kind, change: None };
                    known(number, id).unwrap_or_else(own)
                };
                profile.frames().map(|frame| found.insert_full(function(frame)).0).collect()
            })
            .collect();

        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_unstable_by_key(|&index| &found[index]);
        let mut rank = vec![0; found.len()];
        for (position, &index) in order.iter().enumerate() {
            // There are at most as many functions as frames, whose ids have 32 bits.
            rank[index] = position as u32;
        }
        let mut all: Vec<_> = found.into_iter().collect();
        all.sort_unstable();
        let of_frame = by_profile
            .into_iter()
            .map(|frames| frames.into_iter().map(|index| rank[index]).collect())
            .collect();
        Self { all, of_frame }
    }

    /// Position in `all` of the function of a frame.
    pub(super) fn of_frame(&self, profile: usize, frame: usize) -> u32 {
        self.of_frame[profile][frame]
    }
}

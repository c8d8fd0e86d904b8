//! What a file may make of us: references that must exist, and how much of each thing a file may have.
//!
//! Three things make a reader's memory grow beyond the size of the file: compression, entries that are larger in memory
//! than in the file, and stacks that share their older frames in the file and do not in the model. What content may be, and
//! how many entries it may have, is bounded here; what becomes of it, by [`BoundedProfile`](crate::bounded::BoundedProfile).
//! Together they keep a reader below half a gigabyte, whatever it reads: `tests/memory.rs` holds them to that.

use crate::{Format, FrameId, ProfileError};

/// The most bytes that compressed content may have once it is decompressed. The largest profiles that are worth
/// keeping are a fifth of that.
pub(crate) const CONTENT: usize = 128 << 20;

/// The same for pprof's messages, which take a few times as much memory as their bytes.
pub(crate) const PPROF_CONTENT: usize = 64 << 20;

/// The most entries that a table of frames and what belongs to them may have: five times as many as the largest guests
/// have functions. As many as fit into the places of a hash table of 2²⁰, which are full to seven eighths.
const ENTRIES: usize = 7 << 17;

/// The same for tables of stacks and samples, which may be the sum of many profiles.
const POSITIONS: usize = 7 << 18;

/// Checks how long content is.
///
/// # Errors
/// [`ProfileError::TooLarge`] if it is longer than compressed content may be.
pub(crate) fn content(length: usize) -> Result<(), ProfileError> {
    within("decompressed bytes", length, CONTENT)
}

/// Checks how many entries a table has.
///
/// # Errors
/// [`ProfileError::TooLarge`] if a table has more entries than a profile can have.
pub(crate) fn entries(what: &'static str, count: usize) -> Result<(), ProfileError> {
    within(what, count, ENTRIES)
}

/// Checks how many stacks or samples there are.
///
/// # Errors
/// As for [`entries`].
pub(crate) fn positions(what: &'static str, count: usize) -> Result<(), ProfileError> {
    within(what, count, POSITIONS)
}

/// Checks a count of anything.
///
/// # Errors
/// [`ProfileError::TooLarge`] if it is beyond the limit.
pub(crate) fn within(what: &'static str, count: usize, limit: usize) -> Result<(), ProfileError> {
    if count > limit { Err(ProfileError::TooLarge { what, limit: limit as u64 }) } else { Ok(()) }
}

/// The entry that a file refers to.
///
/// # Errors
/// [`ProfileError::Index`] if there is none.
pub(crate) fn entry<'e, T>(
    format: Format,
    table: &'static str,
    entries: &'e [T],
    index: impl Into<u64>,
) -> Result<&'e T, ProfileError> {
    let (index, length) = (index.into(), entries.len());
    let found = usize::try_from(index).ok().and_then(|index| entries.get(index));
    found.ok_or(ProfileError::Index { format, table, index, length })
}

/// Checks that a table has all its columns in full.
///
/// # Errors
/// [`ProfileError::Malformed`] if a column has not as many entries as its table has rows.
pub(crate) fn equal_lengths(
    format: Format,
    table: &str,
    rows: usize,
    columns: &[usize],
) -> Result<(), ProfileError> {
    let Some(length) = columns.iter().find(|&&length| length != rows) else { return Ok(()) };
    let reason = format!("{rows} {table} with a column of {length} entries");
    Err(ProfileError::Malformed { format, reason })
}

/// Stacks as files share them: each node is a frame and the node of the frame that called it.
pub(crate) struct Tree {
    format: Format,
    /// Frame, number of the caller's node from 1 (0 at the root), depth.
    nodes: Vec<(FrameId, u32, u32)>,
}

impl Tree {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, nodes: Vec::new() }
    }

    /// Adds a node. `caller` is the position of an earlier node.
    ///
    /// # Errors
    /// [`ProfileError::Index`] if there is no such earlier node, which also rules out cycles.
    pub(crate) fn push(&mut self, caller: Option<u64>, frame: FrameId) -> Result<(), ProfileError> {
        let (caller, depth) = match caller {
            Some(caller) => {
                let (_, _, depth) = entry(self.format, "earlier stack nodes", &self.nodes, caller)?;
                // The node exists, so that its position fits.
                (caller as u32 + 1, depth + 1)
            }
            None => (0, 1),
        };
        positions("stack nodes", self.nodes.len() + 1)?;
        self.nodes.push((frame, caller, depth));
        Ok(())
    }

    /// The frames of the stack that ends with a node, oldest first.
    ///
    /// # Errors
    /// [`ProfileError::Index`] if there is no such node.
    pub(crate) fn stack(&self, node: u64) -> Result<Vec<FrameId>, ProfileError> {
        let &(_, _, depth) = entry(self.format, "stack nodes", &self.nodes, node)?;
        let mut frames = Vec::with_capacity(depth as usize);
        let mut number = node as usize + 1;
        while number > 0 {
            let (frame, caller, _) = self.nodes[number - 1];
            frames.push(frame);
            number = caller as usize;
        }
        frames.reverse();
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Profile};

    #[test]
    fn a_tree_gives_stacks_and_refuses_what_is_not_there() {
        let mut profile = Profile::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| profile.intern(Frame::guest(name)));
        let mut tree = Tree::new(Format::Native);
        tree.push(None, a).unwrap();
        tree.push(Some(0), b).unwrap();
        tree.push(Some(0), c).unwrap();
        assert_eq!(tree.stack(0).unwrap(), [a]);
        assert_eq!(tree.stack(2).unwrap(), [a, c]);
        // A node cannot be its own caller.
        assert!(matches!(tree.push(Some(3), a), Err(ProfileError::Index { index: 3, length: 3, .. })));
        assert!(matches!(tree.stack(3), Err(ProfileError::Index { index: 3, length: 3, .. })));
    }
}

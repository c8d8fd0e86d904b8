//! What a file may make of us: references that must exist, and how much memory a small file may claim.
//!
//! Three things make a reader's memory grow beyond the size of the file: compression, stacks that share their older
//! frames in the file and do not in the model, and entries that are larger in the model than in the file. Each has its
//! bound here; together they keep a reader below a few gigabytes, whatever it reads.

use crate::{Format, FrameId, ProfileError};

/// The most bytes that compressed content may have once it is decompressed. The largest profiles that are worth
/// keeping are a fifth of that.
pub(crate) const CONTENT: u64 = 128 << 20;

/// The same for pprof's messages, which take up to 36 times as much memory as their bytes.
pub(crate) const PPROF_CONTENT: u64 = 64 << 20;

/// The most frames that the stacks of one file may have together, each counted on every stack: 256 MiB of the model.
const FRAMES_ON_STACKS: u64 = 64 << 20;

/// The most entries that each table of a file may have: ten times as many as the largest guests have functions, and as a
/// run has stacks that are worth telling apart. Every entry costs a look-up and its share of the model's indices, about
/// half a kilobyte in all.
const ENTRIES: u64 = 2 << 20;

/// Checks how many entries a table has.
///
/// # Errors
/// [`ProfileError::TooLarge`] if a table has more entries than a profile can have.
pub(crate) fn entries(what: &'static str, count: usize) -> Result<(), ProfileError> {
    if count as u64 > ENTRIES {
        return Err(ProfileError::TooLarge { what, limit: ENTRIES });
    }
    Ok(())
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

/// How many more frames the stacks of one file may have.
pub(crate) struct StackBudget(u64);

impl Default for StackBudget {
    fn default() -> Self {
        Self(FRAMES_ON_STACKS)
    }
}

impl StackBudget {
    /// # Errors
    /// [`ProfileError::TooLarge`] if all stacks of the file have too many frames together.
    pub(crate) fn spend(&mut self, frames: usize) -> Result<(), ProfileError> {
        let left = self.0.checked_sub(frames as u64);
        self.0 = left.ok_or(ProfileError::TooLarge { what: "frames on stacks", limit: FRAMES_ON_STACKS })?;
        Ok(())
    }
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
        entries("stack nodes", self.nodes.len() + 1)?;
        self.nodes.push((frame, caller, depth));
        Ok(())
    }

    /// The frames of the stack that ends with a node, oldest first.
    ///
    /// # Errors
    /// [`ProfileError::Index`] if there is no such node; [`ProfileError::TooLarge`] if the budget is spent.
    pub(crate) fn stack(&self, node: u64, budget: &mut StackBudget) -> Result<Vec<FrameId>, ProfileError> {
        let &(_, _, depth) = entry(self.format, "stack nodes", &self.nodes, node)?;
        budget.spend(depth as usize)?;
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
        let mut budget = StackBudget::default();
        assert_eq!(tree.stack(0, &mut budget).unwrap(), [a]);
        assert_eq!(tree.stack(2, &mut budget).unwrap(), [a, c]);
        // A node cannot be its own caller.
        assert!(matches!(tree.push(Some(3), a), Err(ProfileError::Index { index: 3, length: 3, .. })));
        assert!(matches!(tree.stack(3, &mut budget), Err(ProfileError::Index { index: 3, length: 3, .. })));
    }

    #[test]
    fn a_small_file_cannot_ask_for_stacks_that_fill_the_memory() {
        let mut profile = Profile::default();
        let frame = profile.intern(Frame::guest("f"));
        let mut tree = Tree::new(Format::Native);
        tree.push(None, frame).unwrap();
        for caller in 0..100_000 {
            tree.push(Some(caller), frame).unwrap();
        }
        let mut budget = StackBudget::default();
        let refused = (0..1_000).find_map(|_| tree.stack(100_000, &mut budget).err());
        assert!(matches!(refused, Some(ProfileError::TooLarge { what: "frames on stacks", .. })));
    }
}

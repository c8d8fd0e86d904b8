//! From the bytes of a native file to its tables, one after the other, so that each is gone before the next is read. They
//! may be of any content: how many entries a column has is checked before they are in memory.

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    malformed,
    tables::{Frames, Head, LabelSets, Samples, Stacks, Texts},
};
use crate::{ProfileError, bounds};

/// The most bytes of the description, in which every byte may be an empty text: more than a command line can have.
const DESCRIPTION: usize = 3 << 20;

/// What of a file is still to be read.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    pub(super) fn head(&mut self) -> Result<Head<'a>, ProfileError> {
        let start = &self.0[..self.0.len().min(DESCRIPTION)];
        let (description, after) = postcard::take_from_bytes(start).map_err(|error| malformed(&error))?;
        self.0 = &self.0[start.len() - after.len()..];
        let joined = Cow::Borrowed(self.part()?);
        let lengths = self.entries("texts")?;
        let body_hashes = self.entries("body hashes")?;
        let frames = self.frames()?;
        let threads = self.entries("threads")?;
        let labels = LabelSets { pairs: self.entries("labels")?, counts: self.entries("sets of labels")? };
        Ok(Head { description, texts: Texts { joined, lengths }, body_hashes, frames, threads, labels })
    }

    /// In the order in which they are written, as below.
    fn frames(&mut self) -> Result<Frames, ProfileError> {
        const FRAMES: &str = "frames";
        Ok(Frames {
            kind: self.entries(FRAMES)?,
            inlined: self.entries(FRAMES)?,
            name: self.entries(FRAMES)?,
            module: self.entries(FRAMES)?,
            file: self.entries(FRAMES)?,
            line: self.entries(FRAMES)?,
            column: self.entries(FRAMES)?,
            function_index: self.entries(FRAMES)?,
            bytecode_offset: self.entries(FRAMES)?,
            text_offset: self.entries(FRAMES)?,
            body_hash: self.entries(FRAMES)?,
        })
    }

    pub(super) fn stacks(&mut self) -> Result<Stacks, ProfileError> {
        Ok(Stacks {
            caller: self.positions("stack nodes")?,
            frame: self.positions("stack nodes")?,
            end: self.positions("stacks")?,
            headroom: self.positions("stacks")?,
        })
    }

    pub(super) fn samples(&mut self) -> Result<Samples, ProfileError> {
        const SAMPLES: &str = "samples";
        Ok(Samples {
            stack: self.positions(SAMPLES)?,
            thread: self.positions(SAMPLES)?,
            labels: self.positions(SAMPLES)?,
            slice: self.positions(SAMPLES)?,
            samples: self.positions(SAMPLES)?,
            weight: self.positions(SAMPLES)?,
        })
    }

    fn entries<T: Deserialize<'a>>(&mut self, what: &'static str) -> Result<Vec<T>, ProfileError> {
        bounds::entries(what, self.length()?)?;
        self.part()
    }

    fn positions<T: Deserialize<'a>>(&mut self, what: &'static str) -> Result<Vec<T>, ProfileError> {
        bounds::positions(what, self.length()?)?;
        self.part()
    }

    /// How many entries the next column says that it has.
    fn length(&self) -> Result<usize, ProfileError> {
        Ok(postcard::take_from_bytes(self.0).map_err(|error| malformed(&error))?.0)
    }

    fn part<T: Deserialize<'a>>(&mut self) -> Result<T, ProfileError> {
        let (part, after) = postcard::take_from_bytes(self.0).map_err(|error| malformed(&error))?;
        self.0 = after;
        Ok(part)
    }
}

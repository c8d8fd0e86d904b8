//! From the bytes of a file to pprof's messages. They may be of any content: two bytes may be an entry of a hundred. So
//! fields are decoded one by one, and counted; and samples, of which there are most, only when they are asked for.

use std::ops::Range;

use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, decode_key, skip_field},
};

use super::{
    malformed,
    message::{Profile, Sample},
};
use crate::{ProfileError, bounds};

/// The most bytes of one entry: of a stack of hundreds of thousands of frames.
const ENTRY: usize = 4 << 20;

/// A file's messages.
pub(super) struct Parts<'c> {
    /// Everything but the samples.
    pub(super) tables: Profile,
    content: &'c [u8],
    /// Where the samples are in the content.
    samples: Vec<Range<usize>>,
}

impl<'c> Parts<'c> {
    pub(super) fn of(content: &'c [u8]) -> Result<Self, ProfileError> {
        let mut parts = Self { tables: Profile::default(), content, samples: Vec::new() };
        let (mut at, mut lines) = (0, 0);
        while at < content.len() {
            let (tag, field) = field(&content[at..]).map_err(damaged)?;
            bounds::within("bytes in an entry", field.len(), ENTRY)?;
            if tag == Profile::SAMPLE {
                parts.samples.push(at..at + field.len());
                bounds::positions("samples", parts.samples.len())?;
            } else {
                parts.tables.merge(field).map_err(damaged)?;
            }
            if tag == Profile::LOCATION {
                lines += parts.tables.location.last().map_or(0, |location| location.line.len().max(1));
                bounds::entries("lines of locations", lines)?;
            }
            parts.check()?;
            at += field.len();
        }
        Ok(parts)
    }

    fn check(&self) -> Result<(), ProfileError> {
        let tables = &self.tables;
        bounds::entries("sample types", tables.sample_type.len())?;
        bounds::entries("mappings", tables.mapping.len())?;
        bounds::entries("locations", tables.location.len())?;
        bounds::entries("functions", tables.function.len())?;
        bounds::entries("strings", tables.string_table.len())?;
        bounds::entries("comments", tables.comment.len())
    }

    pub(super) fn samples(&self) -> impl Iterator<Item = Result<Sample, ProfileError>> {
        self.samples.iter().map(|range| {
            let mut only = Profile::decode(&self.content[range.clone()]).map_err(damaged)?;
            only.sample.pop().ok_or_else(|| malformed("a sample of another type".to_owned()))
        })
    }
}

/// The number of the first field, and its bytes with that.
fn field(content: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let mut rest = content;
    let (tag, wire_type) = decode_key(&mut rest)?;
    skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
    Ok((tag, &content[..content.len() - rest.len()]))
}

fn damaged(error: DecodeError) -> ProfileError {
    malformed(error.to_string())
}

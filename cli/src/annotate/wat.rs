//! A function's bytecode as text.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flamewalk_flamegraphs::{Body, BodyId, ListingLine};
use flamewalk_symbolizer::GuestBinary;
use wasmprinter::Print;

use super::{Code, OtherGuest};
use crate::failure::Failure;
use crate::guest;

/// The bytecode of a guest.
pub(super) struct Bytecode {
    bytes: Arc<[u8]>,
    binary: GuestBinary,
}

impl Bytecode {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = guest::read_binary(path)?.ok_or_else(|| Failure::NoBytecode { path: path.into() })?;
        Ok(Self { binary: GuestBinary::from(bytes.clone()), bytes })
    }
}

impl Code for Bytecode {
    fn is_known(&self, body: &Body) -> bool {
        !body.bytecode.is_empty()
    }

    fn lines(&mut self, id: &BodyId, body: &Body) -> Result<Vec<ListingLine>, OtherGuest> {
        let range = body_range(&self.binary, id, body)?;
        let mut printed = Printed::of(range);
        // It fails where the function has ended; and what is broken elsewhere in the guest does not matter.
        let _ = wasmprinter::Config::new().print(&self.bytes, &mut printed);
        printed.end_line();
        let mut costs = body.bytecode.clone();
        let mut lines: Vec<ListingLine> = Vec::new();
        let indent = printed.lines.iter().map(|(_, text)| indentation(text)).min().unwrap_or_default();
        for &(position, ref text) in &printed.lines {
            // Several lines can be printed at one offset; the cost is that of the first.
            let cost = costs.remove(&position).unwrap_or_default();
            let text = text.get(indent..).unwrap_or_default().to_owned();
            lines.push(ListingLine { position, text, cost });
        }
        if !costs.is_empty() {
            return Err(OtherGuest("samples fell between its instructions"));
        }
        Ok(lines)
    }
}

/// Where the function's body lies in the binary, if all samples fell into it and it is the body that ran.
pub(super) fn body_range(binary: &GuestBinary, id: &BodyId, body: &Body) -> Result<Range<u32>, OtherGuest> {
    let mut range = None;
    for offset in body.bytecode.keys() {
        let found = binary.body_at(*offset).ok().flatten();
        let found = found.filter(|found| found.function_index == id.function_index);
        let found = found.ok_or(OtherGuest("the function lies elsewhere in it"))?;
        if body.hash.is_some() && found.hash != body.hash {
            return Err(OtherGuest("the function has other instructions in it"));
        }
        range = Some(found.range);
    }
    range.ok_or(OtherGuest("the function lies elsewhere in it"))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The lines that are printed for a range of offsets. Nothing else is kept, and what lies behind it is not printed.
struct Printed {
    range: Range<u32>,
    lines: Vec<(u32, String)>,
    line: Option<(u32, String)>,
    is_over: bool,
}

impl Printed {
    fn of(range: Range<u32>) -> Self {
        Self { range, lines: Vec::new(), line: None, is_over: false }
    }

    fn end_line(&mut self) {
        if let Some((offset, text)) = self.line.take() {
            self.lines.push((offset, text.trim_end().to_owned()));
        }
    }
}

impl Print for Printed {
    fn write_str(&mut self, text: &str) -> io::Result<()> {
        if let Some((_, line)) = &mut self.line {
            line.push_str(text);
        }
        if self.is_over { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn start_line(&mut self, offset: Option<usize>) {
        self.end_line();
        let offset = offset.and_then(|offset| u32::try_from(offset).ok());
        self.is_over = !self.lines.is_empty() && offset.is_some_and(|offset| offset >= self.range.end);
        self.line = offset.filter(|offset| self.range.contains(offset)).map(|offset| (offset, String::new()));
    }
}

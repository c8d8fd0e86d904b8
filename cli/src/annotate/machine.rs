//! A function's machine code, disassembled.

use std::ops::Range;
use std::path::Path;

use flamewalk_flamegraphs::{Body, BodyId, Cost, ListingLine};
use flamewalk_symbolizer::{CodeAddress, CodeImage, GuestBinary, Symbolizer};
use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction};

use super::{Code, OtherGuest, wat};
use crate::failure::Failure;
use crate::guest::{self, CompiledGuest};

/// The compiled code of a guest.
pub(super) struct MachineCode {
    /// `None` for a guest that was compiled ahead of time.
    binary: Option<GuestBinary>,
    text: Vec<u8>,
    symbolizer: Symbolizer,
}

impl MachineCode {
    /// Compiles the guest as `flamewalk run` does, or reads what was compiled ahead of time: nothing of it is run.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let CompiledGuest { image, binary } = guest::read_compiled(path)?;
        if machine(&image) != Some(EM_X86_64) {
            return Err(Failure::Architecture { path: path.into() });
        }
        let not_image = |error: flamewalk_symbolizer::Error| Failure::Compile {
            path: path.into(),
            reason: error.to_string(),
        };
        let parsed = CodeImage::parse_without_dwarf(&image).map_err(not_image)?;
        let text = image[parsed.text()].to_vec();
        let binary = binary.map(GuestBinary::from);
        let symbolizer = Symbolizer::new(parsed, "guest", binary.clone(), None).map_err(not_image)?;
        Ok(Self { binary, text, symbolizer })
    }

    /// Where the function that runs at all of the sampled offsets lies in the text.
    fn function(&mut self, id: &BodyId, body: &Body) -> Result<Range<usize>, OtherGuest> {
        if let Some(binary) = &self.binary
            && !body.bytecode.is_empty()
        {
            wat::body_range(binary, id, body)?;
        }
        for (offset, (bytecode_offset, _)) in &body.machine {
            let frames = self.symbolizer.frames(CodeAddress::Instruction(*offset));
            let same = frames.last().is_some_and(|frame| {
                frame.function_index == Some(id.function_index) && frame.bytecode_offset == *bytecode_offset
            });
            if !same {
                return Err(OtherGuest(
                    "its machine code is another one, as of another version or configuration",
                ));
            }
        }
        let first = body.machine.keys().next().copied().unwrap_or_default();
        let functions = self.symbolizer.image().functions();
        let function = functions.iter().find(|function| function.start <= first && first < function.end());
        let function = function.ok_or(OtherGuest("the function lies elsewhere in it"))?;
        Ok(function.start as usize..function.end() as usize)
    }
}

impl Code for MachineCode {
    fn is_known(&self, body: &Body) -> bool {
        !body.machine.is_empty()
    }

    fn lines(&mut self, id: &BodyId, body: &Body) -> Result<Vec<ListingLine>, OtherGuest> {
        let range = self.function(id, body)?;
        let code = self.text.get(range.clone()).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, code, range.start as u64, DecoderOptions::NONE);
        let mut formatter = FastFormatter::new();
        let mut instruction = Instruction::default();
        let mut lines = Vec::new();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            // A call that has not returned is known by an offset inside it.
            let mut cost = Cost::default();
            let position = instruction.ip() as u32;
            let bytes = position..instruction.next_ip() as u32;
            for (_, (_, at)) in body.machine.range(bytes) {
                cost.self_weight += at.self_weight;
                cost.total_weight += at.total_weight;
            }
            lines.push(ListingLine { position, text, cost });
        }
        Ok(lines)
    }
}

/// As ELF calls it.
const EM_X86_64: u16 = 62;

/// The machine that an ELF file is for.
fn machine(image: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes([*image.get(18)?, *image.get(19)?]))
}

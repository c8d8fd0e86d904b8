//! What the instructions of compiled code do to the flow of control.
//!
//! Decoded when they are first executed, since code has constants and jump tables in it, and kept: most are executed
//! again. Nothing is allocated after [`Instructions::new`], so that a signal handler may ask.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Call,
    Return,
    Jump,
    /// Goes on behind itself or, if it is a conditional branch, elsewhere in its function.
    Other {
        branches: bool,
    },
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) flow: Flow,
    /// In bytes.
    pub(super) length: usize,
}

/// The instructions of one image's text.
pub(super) struct Instructions {
    text: Range<usize>,
    /// For each byte, the instruction that begins there, if it has been decoded.
    decoded: Vec<Option<Instruction>>,
}

impl Instructions {
    /// `text` must stay mapped and readable for as long as the value lives.
    pub(super) fn new(text: Range<usize>) -> Self {
        // The decoder makes its tables when it is first used.
        let _ = Decoder::new(64, &[0xc3], DecoderOptions::NONE).decode();
        Self { decoded: vec![None; text.len()], text }
    }

    pub(super) fn contains(&self, address: usize) -> bool {
        self.text.contains(&address)
    }

    /// The machine code at `address`.
    pub(super) fn bytes(&self, address: usize) -> &[u8] {
        let length = self.text.end.saturating_sub(address);
        // SAFETY: `new`'s caller vouches for the text.
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), length) }
    }

    /// The instruction at `address`, which is in this text.
    pub(super) fn at(&mut self, address: usize) -> Instruction {
        let index = address - self.text.start;
        if let Some(known) = self.decoded[index] {
            return known;
        }
        let mut decoder = Decoder::with_ip(64, self.bytes(address), address as u64, DecoderOptions::NONE);
        let decoded = decoder.decode();
        let flow = match decoded.mnemonic() {
            Mnemonic::Call => Flow::Call,
            Mnemonic::Ret => Flow::Return,
            Mnemonic::Jmp => Flow::Jump,
            _ => Flow::Other { branches: decoded.op0_kind() == OpKind::NearBranch64 },
        };
        let instruction = Instruction { flow, length: decoded.len() };
        self.decoded[index] = Some(instruction);
        instruction
    }
}

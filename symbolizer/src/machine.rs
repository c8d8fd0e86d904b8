//! The little that has to be read from machine code: the frames of trampolines, and direct calls to them.

use flamewalk_handler::arch::Architecture as _;
use flamewalk_handler::arch::aarch64::Aarch64;
use flamewalk_handler::arch::x86_64::X86_64;

/// The architectures whose code Wasmtime's images hold and this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    Aarch64,
    /// Any other: frames and call sites stay unknown.
    Other,
}

/// A direct call: where it returns to and what it calls, as text offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectCall {
    pub(crate) return_address: u32,
    pub(crate) target: u32,
}

impl Architecture {
    /// The size in bytes of the frame that the function's prologue makes below the saved frame pointer;
    /// `None` if the prologue does not have the shape that Cranelift gives it.
    pub(crate) fn frame_size(self, code: &[u8]) -> Option<u32> {
        match self {
            Architecture::X86_64 => X86_64::frame_size(code),
            Architecture::Aarch64 => Aarch64::frame_size(code),
            Architecture::Other => None,
        }
    }

    /// Every byte sequence in `text` that reads as a direct call, whether or not it is one: a caller must know
    /// from elsewhere that a call ends at the return address.
    pub(crate) fn direct_calls(self, text: &[u8]) -> Box<dyn Iterator<Item = DirectCall> + '_> {
        match self {
            Architecture::X86_64 => Box::new(x86_64_calls(text)),
            Architecture::Aarch64 => Box::new(aarch64_calls(text)),
            Architecture::Other => Box::new(std::iter::empty()),
        }
    }
}

fn x86_64_calls(text: &[u8]) -> impl Iterator<Item = DirectCall> + '_ {
    text.windows(5).enumerate().filter(|(_, bytes)| bytes[0] == 0xe8).filter_map(|(start, bytes)| {
        let return_address = u32::try_from(start).ok()?.checked_add(5)?;
        let distance = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        Some(DirectCall { return_address, target: return_address.checked_add_signed(distance)? })
    })
}

fn aarch64_calls(text: &[u8]) -> impl Iterator<Item = DirectCall> + '_ {
    text.chunks_exact(4).enumerate().filter_map(|(index, bytes)| {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if word >> 26 != 0b10_0101 {
            return None;
        }
        let start = u32::try_from(index * 4).ok()?;
        // A signed count of words in the low 26 bits.
        let distance = ((word << 6) as i32 >> 6).checked_mul(4)?;
        Some(DirectCall {
            return_address: start.checked_add(4)?,
            target: start.checked_add_signed(distance)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let code = [0x90, 0xe8, 0xfb, 0xff, 0xff, 0xff, 0xe8, 1, 0];
        assert_eq!(
            Architecture::X86_64.direct_calls(&code).collect::<Vec<_>>(),
            [DirectCall { return_address: 6, target: 1 }]
        );
        let code: Vec<u8> =
            [0xd503_201f_u32, 0x97ff_ffff, 0x9400_0002].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(
            Architecture::Aarch64.direct_calls(&code).collect::<Vec<_>>(),
            [DirectCall { return_address: 8, target: 0 }, DirectCall { return_address: 12, target: 16 }]
        );
    }
}

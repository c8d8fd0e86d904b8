//! The little that has to be read from machine code: the frames of trampolines, and direct calls to them.

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
            Architecture::X86_64 => x86_64_frame_size(code),
            Architecture::Aarch64 => aarch64_frame_size(code),
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

/// `push rbp; mov rbp, rsp`, then `sub rsp, n` unless the frame is empty.
fn x86_64_frame_size(code: &[u8]) -> Option<u32> {
    let body = code.strip_prefix(&[0x55, 0x48, 0x89, 0xe5])?;
    let size = match body {
        [0x48, 0x83, 0xec, size, ..] => u32::from(*size),
        [0x48, 0x81, 0xec, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    // Both immediates are signed.
    let negative = matches!(body, [0x48, 0x83, ..]) && size > 0x7f || size > 0x7fff_ffff;
    (!negative).then_some(size)
}

/// `stp x29, x30, [sp, #-16]!; mov x29, sp`, then pushes of saved registers and `sub sp, sp, #n`.
fn aarch64_frame_size(code: &[u8]) -> Option<u32> {
    let mut words = code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut next = || words.next();
    let mut word = next()?;
    // `bti c` or `paciasp` may come first.
    if word == 0xd503_245f || word == 0xd503_233f {
        word = next()?;
    }
    if word != 0xa9bf_7bfd || next()? != 0x9100_03fd {
        return None;
    }
    let mut size = 0_u32;
    while let Some(word) = next() {
        // `str xN, [sp, #-16]!`, and the pair forms for integer and vector registers.
        if word & 0xffff_ffe0 == 0xf81f_0fe0
            || word & 0xffff_83e0 == 0xa9bf_03e0
            || word & 0xffff_83e0 == 0x6dbf_03e0
        {
            size = size.checked_add(16)?;
        } else if word & 0xff80_03ff == 0xd100_03ff {
            let immediate = (word >> 10) & 0xfff;
            size = size.checked_add(if word & (1 << 22) == 0 { immediate } else { immediate << 12 })?;
        } else {
            break;
        }
    }
    Some(size)
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
    fn x86_64_prologues() {
        let size = |code: &[u8]| Architecture::X86_64.frame_size(code);
        assert_eq!(size(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x30, 0xc3]), Some(0x30));
        assert_eq!(size(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, 0, 2, 0, 0]), Some(0x200));
        assert_eq!(size(&[0x55, 0x48, 0x89, 0xe5, 0x90]), Some(0));
        assert_eq!(size(&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x80]), None);
        assert_eq!(size(&[0x48, 0x89, 0xe5]), None);
    }

    #[test]
    fn aarch64_prologues() {
        let size = |words: &[u32]| {
            let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            Architecture::Aarch64.frame_size(&code)
        };
        // stp x29, x30, [sp, #-16]!; mov x29, sp; stp x27, x28, [sp, #-16]!; sub sp, sp, #32; ret
        assert_eq!(size(&[0xa9bf_7bfd, 0x9100_03fd, 0xa9bf_73fb, 0xd100_83ff, 0xd65f_03c0]), Some(48));
        assert_eq!(size(&[0xd503_245f, 0xa9bf_7bfd, 0x9100_03fd, 0xd65f_03c0]), Some(0));
        assert_eq!(size(&[0xd100_83ff]), None);
    }

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

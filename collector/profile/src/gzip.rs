//! Gzip, with a bound on what comes out of it.

use std::io::{Read, Write};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};

use crate::{ProfileError, bounds};

/// How every gzip stream starts.
pub(crate) const MAGIC: &[u8] = &[0x1f, 0x8b];

/// Tables of numbers become hardly smaller above this level, and take much longer.
const LEVEL: Compression = Compression::new(3);

/// Compresses what `content` writes. Equal content gives equal bytes: the header has neither a name nor a time.
///
/// # Errors
/// Those of `content`, and [`ProfileError::Io`] if `output` fails.
pub(crate) fn pack<W: Write>(
    output: W,
    content: impl FnOnce(&mut GzEncoder<W>) -> Result<(), ProfileError>,
) -> Result<W, ProfileError> {
    let mut encoder = GzEncoder::new(output, LEVEL);
    content(&mut encoder)?;
    Ok(encoder.finish()?)
}

/// The content of a gzip stream.
///
/// # Errors
/// [`ProfileError::Gzip`] if it is damaged or cut short, [`ProfileError::TooLarge`] if it is beyond the bound.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, ProfileError> {
    let mut content = Vec::new();
    MultiGzDecoder::new(packed)
        .take(bounds::CONTENT as u64 + 1)
        .read_to_end(&mut content)
        .map_err(ProfileError::Gzip)?;
    bounds::content(content.len())?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn packed(mut content: impl Read) -> Vec<u8> {
        pack(Vec::new(), |encoder| Ok(io::copy(&mut content, encoder).map(drop)?)).unwrap()
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let bytes = packed(&b"stacks"[..]);
        assert!(bytes.starts_with(MAGIC));
        assert_eq!(unpack(&bytes).unwrap(), b"stacks");
        assert_eq!(packed(&b"stacks"[..]), bytes);
        // Several members after each other are one stream.
        assert_eq!(unpack(&[bytes.clone(), bytes].concat()).unwrap(), b"stacksstacks");
    }

    #[test]
    fn a_damaged_stream_is_refused() {
        let bytes = packed(&b"stacks of frames"[..]);
        for length in 0..bytes.len() {
            assert!(matches!(unpack(&bytes[..length]), Err(ProfileError::Gzip(_))), "{length} bytes");
        }
        let mut flipped = bytes.clone();
        flipped[12] ^= 1;
        assert!(matches!(unpack(&flipped), Err(ProfileError::Gzip(_))));
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = packed(io::repeat(0).take(bounds::CONTENT as u64 + 1));
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(unpack(&bomb), Err(ProfileError::TooLarge { what: "decompressed bytes", .. })));
    }
}

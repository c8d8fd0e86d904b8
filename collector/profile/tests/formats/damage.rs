//! Files that were cut, damaged or made up: each gives a profile that holds together, or an error that says why not.

use std::io::{Read, Write};

use flamewalk_profile::{Format, Profile, ProfileError, Tally, format};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::profiles::{profile, written};

#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Overwrite(Index, Vec<u8>),
    Cut(Index),
    /// Moves a piece of the file over another place, or makes room for it.
    Splice {
        from: Index,
        length: Index,
        to: Index,
        insert: bool,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        2 => (index(), vec(prop_oneof![Just(0xff), Just(0x80), Just(0), any::<u8>()], 1..12))
            .prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        1 => index().prop_map(Damage::Cut),
        2 => (index(), index(), index(), any::<bool>())
            .prop_map(|(from, length, to, insert)| Damage::Splice { from, length, to, insert }),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Self::Overwrite(at, with) => {
                let at = at.index(length);
                let end = length.min(at + with.len());
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Splice { from, length: piece, to, insert } => {
                let from = from.index(length);
                let piece = bytes[from..from + piece.index(length - from).min(64)].to_vec();
                let to = to.index(length);
                let end = if *insert { to } else { length.min(to + piece.len()) };
                bytes.splice(to..end, piece);
            }
        }
    }
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut content).unwrap();
    content
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The parts of a file: what stands before the compressed content, and that content, if it is compressed.
fn parts(bytes: &[u8], format: Format) -> (&[u8], Option<Vec<u8>>) {
    match format {
        Format::Native => (&bytes[..14], Some(unpacked(&bytes[14..]))),
        Format::Pprof | Format::Firefox => (&[], Some(unpacked(bytes))),
        Format::Speedscope | Format::Folded => (bytes, None),
    }
}

fn sum(mut tallies: impl Iterator<Item = Tally>) -> Option<Tally> {
    tallies.try_fold(Tally::default(), Tally::checked_add)
}

/// No reader may give a profile whose parts disagree.
fn holds_together(profile: &Profile) {
    let total = Some(profile.total());
    assert_eq!(sum(profile.stacks().map(|stack| stack.tally)), total);
    assert_eq!(sum(profile.samples().map(|sample| sample.tally)), total);
    format::write(profile, Format::Native, &mut Vec::new()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn damaged_files_give_a_profile_or_an_error(
        profile in profile(1 << 40),
        damages in vec(damage(), 1..6),
        format in prop::sample::select(&Format::ALL[..]),
        inside in any::<bool>(),
    ) {
        let mut bytes = written(&profile, format);
        match parts(&bytes, format) {
            // The checksum would catch everything else.
            (start, Some(mut content)) if inside => {
                damages.iter().for_each(|damage| damage.apply(&mut content));
                bytes = [start, &packed(&content)].concat();
            }
            _ => damages.iter().for_each(|damage| damage.apply(&mut bytes)),
        }
        match format::read(&bytes) {
            Ok(profile) => holds_together(&profile),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// A prefix of a compressed file is never taken for the whole.
    #[test]
    fn a_file_that_was_cut_is_refused(profile in profile(1 << 40), at in any::<Index>()) {
        for format in Format::ALL {
            let bytes = written(&profile, format);
            if parts(&bytes, format).1.is_some() {
                let cut = &bytes[..at.index(bytes.len() - 1) + 1];
                prop_assert!(format::read(cut).is_err(), "{} after {} bytes", format, cut.len());
            }
        }
    }

    #[test]
    fn any_bytes_give_a_profile_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        for start in [&b""[..], b"\x1f\x8b", b"\xf5flamewalk\r\n\x01\0\x1f\x8b", b"\n", b"{\""] {
            if let Ok(profile) = format::read(&[start, &bytes].concat()) {
                holds_together(&profile);
            }
        }
    }
}

/// 256 MiB of zeros are a quarter of a megabyte when packed.
#[test]
fn a_gzip_bomb_is_refused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut std::io::repeat(0).take((256 << 20) + 1), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    for start in [&b""[..], b"\xf5flamewalk\r\n\x01\0"] {
        let refused = format::read(&[start, &bomb].concat());
        assert!(matches!(refused, Err(ProfileError::TooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = written(&Profile::default(), Format::Native);
    bytes[12] = 9;
    assert!(matches!(format::read(&bytes), Err(ProfileError::Version { found: 9, newest: 1 })));
}

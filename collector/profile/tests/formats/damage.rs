//! Files that were cut, damaged or made up: each gives a profile that holds together, or an error that says why not.

use std::io::{BufReader, Read, Write};

use flamewalk_profile::{Format, Profile, ProfileError, Tally, folded, format};
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
        for start in [&b""[..], b"\x1f\x8b", b"\xf5flamewalk\r\n\x02\0\x1f\x8b", b"\n", b"{\""] {
            if let Ok(profile) = format::read(&[start, &bytes].concat()) {
                holds_together(&profile);
            }
        }
    }
}

/// Lines without end, each made of its number; and how many were asked for.
struct Endless<F> {
    line: F,
    number: u64,
    left: Vec<u8>,
}

impl<F: Fn(u64) -> String> Read for Endless<F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.left.len() < into.len() {
            self.left.extend_from_slice((self.line)(self.number).as_bytes());
            self.number += 1;
        }
        into.copy_from_slice(&self.left[..into.len()]);
        self.left.drain(..into.len());
        Ok(into.len())
    }
}

/// A packed file of a few megabytes held millions of distinct lines, and took a minute and gigabytes to read. What is
/// refused at the bound takes no longer than what is just below it, however much follows: here it never ends.
#[test]
fn folded_stacks_without_end_are_refused() {
    fn refused(line: impl Fn(u64) -> String) -> (&'static str, u64) {
        let mut endless = Endless { line, number: 0, left: Vec::new() };
        match folded::read(BufReader::new(&mut endless)) {
            Err(ProfileError::TooLarge { what, .. }) => (what, endless.number),
            other => panic!("{other:?}"),
        }
    }
    // A hash table of 2^n places is full to seven eighths, and the next would be too large.
    const FULL: u64 = 7 << 17;
    // What the buffer holds beyond the line that is refused.
    let read_ahead = 2_000;
    let (what, lines) = refused(|number| format!("f{number:x} 1\n"));
    assert_eq!(what, "bytes of memory once it is read");
    assert!((FULL / 2 - 2..FULL / 2 + read_ahead).contains(&lines), "{lines} lines");
    let (what, lines) = refused(|number| format!("a{};b{} 1\n", number >> 11, number & 0x7ff));
    assert_eq!(what, "bytes of memory once it is read");
    assert!((FULL - 2..FULL + read_ahead).contains(&lines), "{lines} lines");
    // One stack, over and over, does not fill the memory, but would take the time.
    let (what, lines) = refused(|_| "a;".repeat(1 << 16) + "a 1\n");
    assert_eq!(what, "frames on stacks");
    assert!((1 << 10..(1 << 10) + 10).contains(&lines), "{lines} lines");
}

/// The same by a table of another format: JSON's shortest entries.
#[test]
fn tables_of_too_many_entries_are_refused() {
    let entries = |entry: &str| vec![entry; (2 << 20) + 1].join(",");
    let frames = entries("{\"name\":\"f\"}");
    let speedscope = format!("{{\"shared\":{{\"frames\":[{frames}]}},\"profiles\":[]}}");
    let refused = format::read(&packed(speedscope.as_bytes()));
    assert!(matches!(refused, Err(ProfileError::TooLarge { what: "objects", .. })), "{:?}", refused.err());
    let (zeros, nulls) = (entries("0"), entries("null"));
    let firefox = format!(
        "{{\"meta\":{{\"interval\":1,\"preprocessedProfileVersion\":55}},\"threads\":[{{\"samples\":{{\"length\":0,\"stack\":[]}},\
         \"stackTable\":{{\"length\":0,\"prefix\":[],\"frame\":[]}},\"frameTable\":{{\"length\":0,\"address\":[{zeros}],\
         \"inlineDepth\":[{zeros}],\"category\":[{nulls}],\"func\":[{zeros}],\"line\":[{nulls}],\"column\":[{nulls}]}},\
         \"funcTable\":{{\"length\":1,\"name\":[0],\"resource\":[-1],\"fileName\":[null]}},\"stringArray\":[\"f\"]}}]}}"
    );
    let refused = format::read(&packed(firefox.as_bytes()));
    assert!(matches!(refused, Err(ProfileError::TooLarge { what: "frames", .. })), "{:?}", refused.err());
}

/// 256 MiB of zeros are a quarter of a megabyte when packed.
#[test]
fn a_gzip_bomb_is_refused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut std::io::repeat(0).take((256 << 20) + 1), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    for start in [&b""[..], b"\xf5flamewalk\r\n\x02\0"] {
        let refused = format::read(&[start, &bomb].concat());
        assert!(matches!(refused, Err(ProfileError::TooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = written(&Profile::default(), Format::Native);
    bytes[12] = 9;
    assert!(matches!(format::read(&bytes), Err(ProfileError::Version { found: 9, read: 2 })));
}

//! Reads any content in any format. The first byte chooses: one format by its own reader, without the compression whose
//! checksum would refuse almost everything, or whatever the content says. What can be read is consistent, can be written
//! in every format, and is the same when read again.

#![no_main]

use std::io::Write;

use flamewalk_profile::{
    Format, Profile, ProfileError, Tally, firefox, folded, format, native, pprof, speedscope,
};
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, content)) = input.split_first() else { return };
    let read = match choice % 6 {
        0 => native::read(&native_file(content)),
        1 => pprof::read(content),
        2 => firefox::read(content),
        3 => speedscope::read(content),
        4 => folded::read(content),
        _ => format::read(content),
    };
    if let Ok(profile) = read {
        check(&profile);
    }
});

fn native_file(tables: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(b"\xf5flamewalk\r\n\x02\0".to_vec(), Compression::none());
    encoder.write_all(tables).expect("a vector can be written to");
    encoder.finish().expect("a vector can be written to")
}

fn check(profile: &Profile) {
    let sum = |tallies: &mut dyn Iterator<Item = Tally>| {
        tallies
            .fold(Tally::default(), |sum, tally| sum.checked_add(tally).expect("parts are below the total"))
    };
    assert_eq!(sum(&mut profile.stacks().map(|stack| stack.tally)), profile.total());
    assert_eq!(sum(&mut profile.samples().map(|sample| sample.tally)), profile.total());
    for format in Format::ALL {
        let mut bytes = Vec::new();
        match format::write(profile, format, &mut bytes) {
            Ok(()) => {}
            // The one thing that a format cannot hold.
            Err(ProfileError::Value { format: Format::Pprof, .. }) => continue,
            Err(error) => panic!("{format}: {error}"),
        }
        let again = format::read(&bytes).unwrap_or_else(|error| panic!("{format}: {error}"));
        // Above that, milliseconds in 64-bit floating point are not exact.
        if format != Format::Firefox || profile.total().weight < 1 << 51 {
            assert_eq!(again.total().weight, profile.total().weight, "{format}");
        }
    }
}

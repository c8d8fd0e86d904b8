//! How long each format takes to write, next to its floor: compressing as much with the same level, or copying it.

use std::hint::black_box;
use std::io::{Read, Write};

use flamewalk::profile::{Format, Profile, format};
use flamewalk_measure::{Run, row, work};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::hour;
use crate::stacks::Sqlite;

const ROUNDS: usize = 11;
/// That of `flamewalk-profile`.
const LEVEL: Compression = Compression::new(3);

/// Of the profile of ten minutes.
pub(crate) fn formats(run: &mut Run, guest: &Sqlite) {
    if !run.section("encoders", &["format", "KB", "write ms", "floor ms", "write / floor", "peak MB"]) {
        return;
    }
    let profile = hour::profile_of(guest, 600);
    for format in Format::ALL {
        measure(run, &profile, format);
    }
}

fn measure(run: &mut Run, profile: &Profile, format: Format) {
    let before = crate::MEMORY.current_usage();
    crate::MEMORY.reset_peak_usage();
    let mut count = Count(0);
    format::write(profile, format, &mut count).expect("it can be written");
    let peak = crate::MEMORY.peak_usage() - before;
    let written = written(profile, format);
    let gzip = written.windows(2).position(|bytes| bytes == [0x1f, 0x8b]).filter(|start| *start < 16);
    let content = match gzip {
        Some(start) => {
            let mut content = Vec::new();
            MultiGzDecoder::new(&written[start..]).read_to_end(&mut content).expect("what was packed");
            content
        }
        None => written.clone(),
    };
    let floor = || match gzip {
        Some(_) => {
            let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
            encoder.write_all(&content).expect("memory");
            encoder.finish().expect("memory")
        }
        None => content.clone(),
    };
    let works = [work(1, || written_size(profile, format)), work(1, || black_box(floor()).len())];
    if let Some([write, floor]) = run.measure(ROUNDS, works) {
        let numbers =
            [written.len() as f64 / 1e3, write / 1e6, floor / 1e6, write / floor, peak as f64 / 1e6];
        row(format, &numbers);
    }
}

fn written(profile: &Profile, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    format::write(profile, format, &mut bytes).expect("it can be written");
    bytes
}

/// The size of a profile's file.
pub(crate) fn written_size(profile: &Profile, format: Format) -> usize {
    let mut count = Count(0);
    format::write(profile, format, &mut count).expect("it can be written");
    count.0
}

/// Counts what is written.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

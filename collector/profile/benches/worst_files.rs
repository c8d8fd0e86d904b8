//! What the worst files cost their reader: of each format and each shape the largest file that is accepted, and the
//! smallest that is refused. Each is read in a process of its own, so that its peak memory is its own.
//!
//! Times are next to a floor from the same process: unpacking the same bytes, or counting the lines of what is not
//! packed.
//!
//! ```text
//! cargo bench --workspace --bench worst_files [-- WORD…]
//! ```
//!
//! Words choose shapes by what their names contain.

use std::{env, error::Error, fs, hint::black_box, io::Read, path::Path, process::Command, time::Instant};

use flamewalk_profile::{Format, Frame, Origin, Profile, Tally, format};
use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};

/// How a file tries to be more than it looks like, by a number that says how much.
const SHAPES: [(&str, Shape, u64); 4] = [
    // Hash tables of 2^n places are full to seven eighths, and what is just below that is what most is accepted of.
    ("frames", frames, (7 << 18) - 4),
    ("shared stacks", shared_stacks, 2_000),
    ("stacks", stacks, (7 << 18) - 4),
    ("samples of a stack", samples_of_a_stack, 1 << 10),
];

type Shape = fn(u64) -> Profile;

/// As many frames and stacks as asked for, of one frame each.
fn frames(number: u64) -> Profile {
    let mut profile = Profile::default();
    for name in 0..number {
        let frame = profile.intern(Frame::guest(format!("{name:x}")));
        add(&mut profile, &[frame]);
    }
    profile
}

/// Stacks of 65,536 frames that differ only at their end: small where the file shares what they have in common.
fn shared_stacks(number: u64) -> Profile {
    let mut profile = Profile::default();
    let mut stack = vec![profile.intern(Frame::guest("f")); 1 << 16];
    for name in 0..number {
        let last = profile.intern(Frame::guest(format!("{name:x}")));
        *stack.last_mut().expect("it is not empty") = last;
        add(&mut profile, &stack);
    }
    profile
}

/// As many stacks as asked for, of few functions: every place in the file is a stack of its own.
fn stacks(number: u64) -> Profile {
    let mut profile = Profile::default();
    let functions: Vec<_> = (0..128).map(|name| profile.intern(Frame::guest(format!("{name:x}")))).collect();
    for index in 0..number as usize {
        let digit = |place: u32| functions[index >> (7 * place) & 127];
        add(&mut profile, &[digit(2), digit(1), digit(0)]);
    }
    profile
}

/// One stack of 65,536 frames, again and again.
fn samples_of_a_stack(number: u64) -> Profile {
    let mut profile = Profile::default();
    let stack = vec![profile.intern(Frame::guest("f")); 1 << 16];
    for slice in 0..number as u32 {
        let origin = Origin { slice: Some(slice), ..Origin::default() };
        profile.add_from(&stack, origin, Tally { samples: 1, weight: 1 }).expect("the total is small");
    }
    profile
}

fn add(profile: &mut Profile, stack: &[flamewalk_profile::FrameId]) {
    profile.add(stack, Tally { samples: 1, weight: 1 }).expect("the total is small");
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [read, path] = &arguments[..]
        && read == "--read"
    {
        return read_one(Path::new(path));
    }
    // `cargo test` only wants to see that it builds.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    println!("| format | shape | file | result | peak memory | time / floor |\n|---|---|---|---|---|---|");
    let words: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_chosen = |shape: &str| words.is_empty() || words.iter().any(|word| shape.contains(*word));
    for (shape, make, most) in SHAPES.into_iter().filter(|(shape, ..)| is_chosen(shape)) {
        for format in Format::ALL {
            // From more than any reader accepts down to what it does.
            let (mut number, mut refused) = (most + 1, None);
            loop {
                let mut file = Vec::new();
                format::write(&make(number), format, &mut file)?;
                fs::write(&path, &file)?;
                let (is_accepted, columns) = read_apart(&path)?;
                let row = format!("| {format} | {number} {shape} | {} KiB | {columns} |", file.len() >> 10);
                if is_accepted {
                    refused.iter().chain([&row]).for_each(|row| println!("{row}"));
                    break;
                }
                refused = Some(row);
                number = if number > most { most } else { number / 2 };
            }
        }
    }
    if !is_chosen("zeros") {
        return Ok(());
    }
    for (name, start) in [("gzip", &b""[..]), ("flamewalk", b"\xf5flamewalk\r\n\x02\0")] {
        let mut bomb = GzEncoder::new(start.to_vec(), Compression::fast());
        std::io::copy(&mut std::io::repeat(0).take(1 << 30), &mut bomb)?;
        let bomb = bomb.finish()?;
        fs::write(&path, &bomb)?;
        println!("| {name} | 1 GiB of zeros | {} KiB | {} |", bomb.len() >> 10, read_apart(&path)?.1);
    }
    Ok(())
}

/// Reads a file in a process of its own; whether it is accepted, and the columns that say how.
fn read_apart(path: &Path) -> Result<(bool, String), Box<dyn Error>> {
    let output = Command::new(env::current_exe()?).arg("--read").arg(path).output()?;
    let said = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        return Err(format!("the reader ended with {}: {said}", output.status).into());
    }
    Ok((said.starts_with("read"), said.trim_end().to_owned()))
}

fn read_one(path: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let start = Instant::now();
    let read = format::read(&bytes);
    let time = start.elapsed();
    let peak = fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:").map(|rest| rest.trim().to_owned()))
        .ok_or("the kernel does not say the peak memory")?;
    let result = match read {
        Ok(profile) => format!("read: {} stacks", profile.stacks().len()),
        Err(error) => error.to_string(),
    };
    let start = Instant::now();
    black_box(floor(&bytes)?);
    println!("{result} | {peak} | {:.1}", time.as_secs_f64() / start.elapsed().as_secs_f64());
    Ok(())
}

/// What no reader can do without: a number that depends on all of the content, as far as it may be read.
fn floor(bytes: &[u8]) -> Result<usize, Box<dyn Error>> {
    let packed = bytes.strip_prefix(b"\xf5flamewalk\r\n\x02\0").unwrap_or(bytes);
    if !packed.starts_with(b"\x1f\x8b") {
        return Ok(packed.iter().filter(|byte| **byte == b'\n').count());
    }
    let mut content = Vec::new();
    MultiGzDecoder::new(packed).take(128 << 20).read_to_end(&mut content)?;
    Ok(content.len())
}

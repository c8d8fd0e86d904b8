//! The bound on the memory of a reader, against what the allocator has really given out: files of a few kilobytes or
//! megabytes that would each take gigabytes, or the most that is accepted.
//!
//! A crate of its own, whose allocator counts.

use std::io::Write;

use flamewalk_profile::{Format, Frame, FrameId, Profile, Tally, format};
use flate2::{Compression, write::GzEncoder};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Besides the bytes of the file itself.
const BOUND: usize = 512 << 20;

fn packed(start: &[u8], write: impl FnOnce(&mut dyn Write)) -> Vec<u8> {
    let mut encoder = GzEncoder::new(start.to_vec(), Compression::fast());
    write(&mut encoder);
    encoder.finish().unwrap()
}

fn native(write: impl FnOnce(&mut dyn Write)) -> Vec<u8> {
    packed(b"\xf5flamewalk\r\n\x02\0", write)
}

fn put(output: &mut dyn Write, bytes: &[u8], times: usize) {
    let chunk = bytes.repeat(times.min(1 << 16));
    for _ in 0..times / (1 << 16) {
        output.write_all(&chunk).unwrap();
    }
    output.write_all(&bytes.repeat(times % (1 << 16))).unwrap();
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field of pprof's messages that has a length.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2], &varint(content.len())[..], content].concat()
}

/// A description in which each byte of the content is a word of the command.
fn words() -> Vec<u8> {
    native(|output| {
        output.write_all(&[0; 7]).unwrap();
        output.write_all(&varint(100 << 20)).unwrap();
        put(output, b"\0", 100 << 20);
    })
}

/// As many frames, stacks and samples as are accepted together, in a format of ours.
fn full(format: Format) -> Vec<u8> {
    let mut profile = Profile::default();
    let frames: Vec<FrameId> =
        (0..400_000).map(|name| profile.intern(Frame::guest(format!("{name:x}")))).collect();
    for (index, &frame) in frames.iter().enumerate() {
        let stack: Vec<FrameId> = frames[..index % 8].iter().copied().chain([frame]).collect();
        profile.add(&stack, Tally { samples: 1, weight: 1 }).unwrap();
    }
    let mut bytes = Vec::new();
    format::write(&profile, format, &mut bytes).unwrap();
    bytes
}

/// Stacks that the file shares and the model does not.
fn shared_stacks(format: Format, number: usize) -> Vec<u8> {
    let mut profile = Profile::default();
    let mut stack = vec![profile.intern(Frame::guest("f")); 1 << 16];
    for name in 0..number {
        *stack.last_mut().unwrap() = profile.intern(Frame::guest(format!("{name:x}")));
        profile.add(&stack, Tally { samples: 1, weight: 1 }).unwrap();
    }
    let mut bytes = Vec::new();
    format::write(&profile, format, &mut bytes).unwrap();
    bytes
}

/// The start of a message with one sample type.
fn pprof(rest: impl FnOnce(&mut dyn Write)) -> Vec<u8> {
    packed(b"", |output| {
        output.write_all(&field(1, &[])).unwrap();
        rest(output);
    })
}

fn empty_samples() -> Vec<u8> {
    pprof(|output| put(output, &field(2, &[]), 31 << 20))
}

fn empty_lines_of_a_location() -> Vec<u8> {
    pprof(|output| output.write_all(&field(4, &field(4, &[]).repeat(31 << 20))).unwrap())
}

fn empty_lines() -> Vec<u8> {
    pprof(|output| put(output, &field(4, &field(4, &[]).repeat(100)), 200_000))
}

fn empty_strings() -> Vec<u8> {
    pprof(|output| put(output, &field(6, &[]), 31 << 20))
}

/// A text of a megabyte that is the name of as many functions as there can be.
fn a_long_name_in_pprof() -> Vec<u8> {
    pprof(|output| {
        output.write_all(&[field(6, &[]), field(6, &[b'n'; 1 << 20])].concat()).unwrap();
        for id in 1..500_000 {
            let id = varint(id);
            output.write_all(&field(5, &[b"\x08", &id[..], b"\x10\x01\x18\x01"].concat())).unwrap();
            let line = field(4, &[b"\x08", &id[..]].concat());
            output.write_all(&field(4, &[b"\x08", &id[..], &line].concat())).unwrap();
        }
    })
}

/// A thread in which the columns that are named have other entries than none.
fn firefox(strings: &str, functions: usize, frames: usize) -> Vec<u8> {
    let column = |entry: &str, count: usize| vec![entry; count].join(",");
    let lines: Vec<String> = (0..frames).map(|line| line.to_string()).collect();
    let (zeros, lines) = (column("0", frames), lines.join(","));
    let (names, missing, nulls) = (column("0", functions), column("-1", functions), column("0", functions));
    let text = format!(
        "{{\"meta\":{{\"interval\":1,\"preprocessedProfileVersion\":55}},\"threads\":[{{\"samples\":{{\"length\":0,\
         \"stack\":[]}},\"stackTable\":{{\"length\":0,\"prefix\":[],\"frame\":[]}},\"frameTable\":{{\"length\":0,\
         \"address\":[{zeros}],\"inlineDepth\":[{zeros}],\"category\":[{zeros}],\"func\":[{zeros}],\
         \"line\":[{lines}],\"column\":[{lines}]}},\"funcTable\":{{\"length\":0,\"name\":[{names}],\
         \"resource\":[{missing}],\"fileName\":[{nulls}]}},\"stringArray\":[{strings}]}}]}}"
    );
    packed(b"", |output| output.write_all(text.as_bytes()).unwrap())
}

/// Stacks of 65,536 frames, all but the youngest of which are the same nodes of a tree.
fn shared_nodes(number: usize) -> Vec<u8> {
    let list = |entries: &mut dyn Iterator<Item = usize>| {
        entries.map(|entry| entry.to_string()).collect::<Vec<_>>().join(",")
    };
    let depth = 1 << 16;
    let callers = list(&mut (0..depth - 2).chain(std::iter::repeat_n(depth - 2, number)));
    let frames = list(&mut std::iter::repeat_n(0, depth - 1).chain(1..=number));
    let (stacks, lines) = (list(&mut (depth - 1..depth - 1 + number)), list(&mut (0..=number)));
    let zeros = vec!["0"; number + 1].join(",");
    let text = format!(
        "{{\"meta\":{{\"interval\":1,\"preprocessedProfileVersion\":55}},\"threads\":[{{\"samples\":{{\"length\":0,\
         \"stack\":[{stacks}]}},\"stackTable\":{{\"length\":0,\"prefix\":[null,{callers}],\"frame\":[{frames}]}},\
         \"frameTable\":{{\"length\":0,\"address\":[{zeros}],\"inlineDepth\":[{zeros}],\"category\":[{zeros}],\
         \"func\":[{zeros}],\"line\":[{lines}],\"column\":[{zeros}]}},\"funcTable\":{{\"length\":0,\"name\":[0],\
         \"resource\":[-1],\"fileName\":[0]}},\"stringArray\":[\"f\"]}}]}}"
    );
    packed(b"", |output| output.write_all(text.as_bytes()).unwrap())
}

fn speedscope(samples: &str, number: usize) -> Vec<u8> {
    let (samples, weights) = (vec![samples; number].join(","), vec!["1"; number].join(","));
    let text = format!(
        "{{\"shared\":{{\"frames\":[{{\"name\":\"f\"}}]}},\"profiles\":[{{\"type\":\"sampled\",\"name\":\"\",\"unit\":\
         \"none\",\"startValue\":0,\"endValue\":1,\"samples\":[{samples}],\"weights\":[{weights}]}}]}}"
    );
    packed(b"", |output| output.write_all(text.as_bytes()).unwrap())
}

fn speedscope_frames() -> Vec<u8> {
    let frames = vec!["{\"name\":\"\"}"; 900_000].join(",");
    let text = format!("{{\"shared\":{{\"frames\":[{frames}]}},\"profiles\":[]}}");
    packed(b"", |output| output.write_all(text.as_bytes()).unwrap())
}

fn one_line() -> Vec<u8> {
    packed(b"", |output| put(output, b"a;", 60 << 20))
}

fn distinct_names() -> Vec<u8> {
    packed(b"", |output| {
        (0..900_000).for_each(|name| output.write_all(format!("{name:0>130} 1\n").as_bytes()).unwrap());
    })
}

/// The most that was in use while a file was read, besides the file; and what became of it.
fn read(bytes: &[u8]) -> (usize, String) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = format::read(bytes);
    let most = MEMORY.peak_usage() - before;
    (
        most,
        result.map_or_else(|error| error.to_string(), |profile| format!("{} stacks", profile.stacks().len())),
    )
}

/// One test, since there is one count of memory.
///
/// Each of these took from one to three gigabytes, or as much as there was: a file could name one text of a megabyte half a
/// million times, and each became a copy.
#[test]
fn no_file_takes_more_than_half_a_gigabyte() {
    type Make = Box<dyn Fn() -> Vec<u8>>;
    let text = || format!("\"{}\"", "n".repeat(1 << 20));
    let mut files: Vec<(&str, Make)> = vec![
        ("words of a command", Box::new(words)),
        ("empty samples of pprof", Box::new(empty_samples)),
        ("empty lines of a location of pprof", Box::new(empty_lines_of_a_location)),
        ("empty lines of pprof", Box::new(empty_lines)),
        ("empty strings of pprof", Box::new(empty_strings)),
        ("a long name in pprof", Box::new(a_long_name_in_pprof)),
        ("a long name in Firefox's format", Box::new(move || firefox(&text(), 1, 500_000))),
        ("frames of Firefox's format", Box::new(|| firefox("\"f\"", 900_000, 900_000))),
        ("strings of Firefox's format", Box::new(|| firefox(&vec!["\"\""; 8 << 20].join(","), 1, 1))),
        ("samples of speedscope", Box::new(|| speedscope("[0]", 1_800_000))),
        (
            "frames on samples of speedscope",
            Box::new(|| speedscope(&format!("[{}0]", "0,".repeat(999)), 8_000)),
        ),
        ("frames of speedscope", Box::new(speedscope_frames)),
        ("one line of folded stacks", Box::new(one_line)),
        ("names of folded stacks", Box::new(distinct_names)),
    ];
    for format in Format::ALL {
        files.push(("as much as can be", Box::new(move || full(format))));
        files.push(("stacks that share their frames", Box::new(move || shared_stacks(format, 100))));
    }
    files.push(("stacks that share their nodes", Box::new(|| shared_nodes(1_000))));
    for (what, make) in files {
        let file = make();
        let (most, result) = read(&file);
        println!("{what}: {} KiB take {} MiB: {result}", file.len() >> 10, most >> 20);
        assert!(most <= BOUND, "{what}: a file of {} bytes took {most} bytes of memory", file.len());
    }
}

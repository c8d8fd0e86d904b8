//! What finding symbols costs, next to `addr2line` on the same DWARF:
//! `cargo bench --workspace --profile dev --bench symbolizer`, with `-- --check` to check the goals, with words such as
//! `-- memory` for some of the sections. The profile is that of the tests, so that Wasmtime is not built again.
//!
//! The guest is SQLite, once or several times in one binary ([`flamewalk_guests::sqlite_copies`]).
//!
//! Both sides get the same addresses: the symbolizer offsets in the text of the image, as it gets them from a profile;
//! `addr2line` the offsets in the code section that these come from, already looked up. The symbolizer keeps its answers, whole
//! frames; `addr2line` is asked for each frame's name, file, line and column, which are dropped. Hashes of bodies are neither
//! asked for: what they take besides is measured by itself.
//! Parsing the image is no part of it, since that is done when code is registered and not when a profile is asked for.
//! Reading the binary, its names and its DWARF is, and so is checking that the image was compiled from it.

mod allocated;
mod sample;

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use allocated::peak_of;
use flamewalk_measure::{Run, Work, row, work};
use sample::{Addr2Line, Sample, ask_addr2line, ask_symbolizer};

/// As many as a profile of some minutes has.
const ADDRESSES: usize = 4096;
const ROUNDS: usize = 9;
/// Of SQLite: 3, 5, 19 and 51 MB of DWARF.
const COPIES: [usize; 4] = [1, 2, 10, 27];

fn main() -> ExitCode {
    Run::main(|run| {
        let samples: Vec<_> = COPIES.into_iter().map(|copies| Sample::of_sqlite(copies, ADDRESSES)).collect();
        first_result(run, &samples);
        per_address(run, &samples, "per address, nothing read before", cold);
        parts(run, &samples);
        per_address(run, &samples, "per address, others of the functions read before", warm);
        translated(run, &samples);
        per_address(run, &samples, "per address, the same read before", again);
        memory(run, &samples);
    })
}

/// From a binary that nobody has looked at to the frames of one address in it, with the goal of 200 ms for 50 MB.
fn first_result(run: &mut Run, samples: &[Sample]) {
    let heads = ["MB of DWARF", "addr2line ms", "symbolizer ms", "of addr2line"];
    if !run.section("first result", &heads) {
        return;
    }
    let mut last = None;
    for sample in samples {
        let one = sample.middle();
        let floor = work(1, || ask_addr2line(&sample.addr2line(), one));
        let own = work(1, || ask_symbolizer(&mut sample.symbolizer(), one));
        last = run.measure(ROUNDS, [floor, own]).map(|medians| medians.map(|time| time / 1e6));
        if let Some([floor, own]) = last {
            row(megabytes(sample.dwarf_bytes), &[floor, own, own / floor]);
        }
    }
    run.goal("ms, of the largest", last.map(|[_, own]| own), 200.0);
}

/// Nanoseconds for all of a sample's addresses.
type Measurement = fn(&mut Run, &Sample) -> Option<[f64; 2]>;

/// The goal is `addr2line`'s time for the largest.
fn per_address(run: &mut Run, samples: &[Sample], title: &str, measure: Measurement) {
    if !run.section(title, &["MB of DWARF", "addr2line ns", "symbolizer ns", "of addr2line"]) {
        return;
    }
    let mut last = None;
    for sample in samples {
        let medians = measure(run, sample);
        let each = medians.map(|medians| medians.map(|time| time / sample.addresses.len() as f64));
        if let Some([floor, own]) = each {
            row(megabytes(sample.dwarf_bytes), &[floor, own, own / floor]);
        }
        last = each.map(|[floor, own]| own / floor);
    }
    run.goal("of addr2line's time, of the largest", last, 1.0);
}

fn cold(run: &mut Run, sample: &Sample) -> Option<[f64; 2]> {
    let floor = work(1, || ask_addr2line(&sample.addr2line(), &sample.addresses));
    let own = work(1, || ask_symbolizer(&mut sample.symbolizer(), &sample.addresses));
    run.measure(ROUNDS, [floor, own])
}

/// Where the time goes when nothing was read before: without the first result on either side, since `addr2line` neither reads
/// the rest of the binary nor checks the image against it; and with the hashes that a profile asks for besides.
fn parts(run: &mut Run, samples: &[Sample]) {
    let heads = ["MB of DWARF", "first result ns", "left ns", "of addr2line", "hashes ns", "with the hashes"];
    if !run.section("per address, nothing read before, by parts", &heads) {
        return;
    }
    for sample in samples {
        let (one, all) = (sample.middle(), sample.addresses.as_slice());
        let (binary, bodies) = sample.bodies();
        let floor = |addresses| work(1, move || ask_addr2line(&sample.addr2line(), addresses));
        let own = |addresses| work(1, move || ask_symbolizer(&mut sample.symbolizer(), addresses));
        let hashes = work(1, || bodies.iter().filter_map(|body| binary.body_at(*body).ok()).count());
        let works = [floor(one), floor(all), own(one), own(all), hashes];
        if let Some(medians) = run.measure(ROUNDS, works) {
            let [floor_first, floor, first, own, hashes] = medians.map(|time| time / all.len() as f64);
            let left = own - first;
            let of_floor = [left / (floor - floor_first), (own + hashes) / floor];
            row(megabytes(sample.dwarf_bytes), &[first, left, of_floor[0], hashes, of_floor[1]]);
        }
    }
}

/// Between a profile's addresses and what `addr2line` is asked is the image's map of addresses, by which the symbolizer
/// translates each. Wasmtime's own look-up in it, as for its backtraces, is what that takes at least.
fn translated(run: &mut Run, samples: &[Sample]) {
    let heads = ["MB of DWARF", "addr2line ns", "look-up ns", "symbolizer ns", "of both"];
    if !run.section("per address, others of the functions read before, with Wasmtime's look-up", &heads) {
        return;
    }
    for sample in samples {
        let context = sample.addr2line();
        let [floor, own] = others(sample, &context);
        let look_up = work(1, || sample.look_up_by_wasmtime(&sample.others));
        if let Some(medians) = run.measure(ROUNDS, [floor, look_up, own]) {
            let [floor, look_up, own] = medians.map(|time| time / sample.others.len() as f64);
            row(megabytes(sample.dwarf_bytes), &[floor, look_up, own, own / (floor + look_up)]);
        }
    }
}

fn warm(run: &mut Run, sample: &Sample) -> Option<[f64; 2]> {
    let context = sample.addr2line();
    let works = others(sample, &context);
    run.measure(ROUNDS, works)
}

/// Both are asked for other addresses of the functions that they have read.
fn others<'a>(sample: &'a Sample, context: &'a Addr2Line<'a>) -> [Work<'a>; 2] {
    ask_addr2line(context, &sample.addresses);
    let read = || {
        let mut symbolizer = sample.symbolizer();
        ask_symbolizer(&mut symbolizer, &sample.addresses);
        symbolizer
    };
    let symbolizer = Rc::new(RefCell::new(read()));
    let next = Rc::clone(&symbolizer);
    let floor = work(1, || ask_addr2line(context, &sample.others));
    let own = work(1, move || ask_symbolizer(&mut symbolizer.borrow_mut(), &sample.others));
    [floor, own.afterwards(move || *next.borrow_mut() = read())]
}

fn again(run: &mut Run, sample: &Sample) -> Option<[f64; 2]> {
    let (context, mut symbolizer) = (sample.addr2line(), sample.symbolizer());
    ask_addr2line(&context, &sample.addresses);
    ask_symbolizer(&mut symbolizer, &sample.addresses);
    let floor = work(1, || ask_addr2line(&context, &sample.addresses));
    run.measure(ROUNDS, [floor, work(1, || ask_symbolizer(&mut symbolizer, &sample.addresses))])
}

/// The most heap at a time, for one address and for all. The binary itself is not counted, and the goal is twice the DWARF
/// that has to be read for the addresses, in the largest guest.
fn memory(run: &mut Run, samples: &[Sample]) {
    let heads = ["MB of DWARF", "MB touched", "addr2line MB", "symbolizer MB", "of touched"];
    if !run.section("memory", &heads) {
        return;
    }
    let mut last = None;
    for sample in samples {
        for addresses in [sample.middle(), &sample.addresses] {
            let touched = sample.touched(addresses);
            let floor = peak_of(|| ask_addr2line(&sample.addr2line(), addresses));
            let own = peak_of(|| ask_symbolizer(&mut sample.symbolizer(), addresses));
            last = Some(own as f64 / touched as f64);
            let numbers = [touched, floor, own].map(|bytes| bytes as f64 / 1e6);
            row(
                megabytes(sample.dwarf_bytes),
                &[numbers[0], numbers[1], numbers[2], numbers[2] / numbers[0]],
            );
        }
    }
    run.goal("of the DWARF touched, all addresses of the largest", last, 2.0);
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

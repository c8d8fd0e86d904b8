//! An hour of samples at full speed: what the profiler's part of memory grows to, the collector's CPU time, and the size
//! of the file.

use std::time::Duration;

use flamewalk::profile::{Format, Metadata, Profile};
use flamewalk_collector::{Extent, Sampling};
use flamewalk_measure::{Run, row};

use crate::encoders::written_size;
use crate::rig::{Random, Rig, collector_time};
use crate::stacks::Sqlite;
use crate::throughput::tree;

const HEADS: &[&str] = &["", "in use MB", "resident MB", "CPU s", "% of the guest's"];
const RATE: u64 = 997;
const HOUR: u64 = 3_600;
/// The collector drains each 20 ms.
const SAMPLES_PER_DRAIN: u64 = RATE / 50;

/// SQLite's own stacks, as often as they were recorded. The goal is 16 MB with everything, and 2 MB for the file.
pub(crate) fn hour(run: &mut Run, guest: &Sqlite) {
    if !run.section("an hour of SQLite", HEADS) {
        return;
    }
    let stacks: Vec<&[u64]> = guest.stacks.iter().map(|(words, _)| &**words).collect();
    let mut ends = Vec::new();
    for (_, samples) in &guest.stacks {
        ends.push(ends.last().unwrap_or(&0) + samples);
    }
    let total = ends[ends.len() - 1];
    let draw = |random: &mut Random| {
        let drawn = (random.share() * total as f64) as u64;
        stacks[ends.partition_point(|end| *end <= drawn)]
    };
    let used = simulate(guest, HOUR, draw);
    used.show();
    run.goal("resident memory, MB", Some(used.resident), 16.0);
    run.goal("native file, MB", Some(used.file), 2.0);
    run.goal("the collector's CPU time, % of the guest's", Some(used.share()), 0.5);
}

/// As many stacks as no guest has: 64,000, each 24 frames deep, of which the first are seen most often.
pub(crate) fn many_stacks(run: &mut Run, guest: &Sqlite) {
    const STACKS: usize = 64_000;
    if !run.section("an hour with 64,000 stacks", HEADS) {
        return;
    }
    let stacks = tree(guest, STACKS, 24);
    let draw = |random: &mut Random| &*stacks[(STACKS as f64).powf(random.share()) as usize - 1];
    simulate(guest, HOUR, draw).show();
}

/// The profile of so many seconds of SQLite.
pub(crate) fn profile_of(guest: &Sqlite, seconds: u64) -> Profile {
    let stacks: Vec<&[u64]> = guest.stacks.iter().map(|(words, _)| &**words).collect();
    let mut rig = Rig::new(guest, RING_WORDS);
    feed(&mut rig, seconds, |random| stacks[random.below(stacks.len())]);
    snapshot(&rig)
}

const RING_WORDS: usize = flamewalk::defaults::RING_WORDS;

/// What an hour has taken, in MB and seconds.
struct Used {
    stages: Vec<(&'static str, [f64; 3])>,
    /// The collector's CPU time until the profile was asked for.
    sampling: Duration,
    stacks: usize,
    samples: usize,
    resident: f64,
    file: f64,
    seconds: u64,
}

impl Used {
    fn share(&self) -> f64 {
        self.sampling.as_secs_f64() * 100.0 / self.seconds as f64
    }

    fn show(&self) {
        for (stage, [in_use, resident, cpu]) in &self.stages {
            row(stage, &[*in_use, *resident, *cpu, cpu * 100.0 / self.seconds as f64]);
        }
        println!("  {} stacks, {} sums, a native file of {:.2} MB", self.stacks, self.samples, self.file);
    }
}

/// Feeds a stream, makes a profile and writes it.
fn simulate<'s>(guest: &Sqlite, seconds: u64, draw: impl FnMut(&mut Random) -> &'s [u64]) -> Used {
    forget();
    let (in_use, resident) = (crate::MEMORY.current_usage(), resident());
    let mut stages = Vec::new();
    let mut stage = |name, cpu: Duration| {
        let most = crate::MEMORY.peak_usage().saturating_sub(in_use) as f64 / 1e6;
        stages.push((name, [most, most_resident().saturating_sub(resident) as f64 / 1e6, cpu.as_secs_f64()]));
    };
    let mut rig = Rig::new(guest, RING_WORDS);
    stage("guest and ring", collector_time());
    feed(&mut rig, seconds, draw);
    let sampling = collector_time();
    stage("with the samples", sampling);
    let profile = snapshot(&rig);
    stage("with the profile", collector_time());
    let file = written_size(&profile, Format::Native) as f64 / 1e6;
    stage("with the file", collector_time());
    let resident = stages.iter().map(|(_, [_, resident, _])| *resident).fold(0.0, f64::max);
    let (stacks, samples) = (profile.stacks().len(), profile.samples().len());
    Used { stages, sampling, stacks, samples, resident, file, seconds }
}

fn feed<'s>(rig: &mut Rig, seconds: u64, mut draw: impl FnMut(&mut Random) -> &'s [u64]) {
    let mut random = Random(1);
    let period = 1_000_000_000 / RATE;
    for tick in 0..RATE * seconds {
        rig.sample(draw(&mut random), Duration::from_nanos(period * tick), period);
        if tick % SAMPLES_PER_DRAIN == 0 {
            rig.drain();
        }
    }
    rig.drain();
}

fn snapshot(rig: &Rig) -> Profile {
    let profile = rig.window.snapshot(|_| Metadata::default(), Sampling::Ended, Extent::All);
    profile.expect("the collector lives").expect("sums of an hour fit")
}

/// Gives back what the allocator keeps for later; from now on the most that is in use, and that is resident, is counted
/// anew.
fn forget() {
    // SAFETY: may be called at any time.
    unsafe { libc::malloc_trim(0) };
    crate::MEMORY.reset_peak_usage();
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux since 4.0");
}

fn resident() -> u64 {
    status("VmRSS:")
}

fn most_resident() -> u64 {
    status("VmHWM:")
}

/// A number of bytes in the kernel's account of this process.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("an account");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("memory is in it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

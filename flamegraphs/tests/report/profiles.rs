//! Profiles to look at: one that has everything, and a large one.

use std::time::{Duration, UNIX_EPOCH};

use flamewalk_flamegraphs::report::ReportOptions;
use flamewalk_profile::{
    EndReason, Event, Frame, FrameId, FrameKind, Metadata, Origin, Profile, SourceLocation, Tally, Thread,
};

/// A name that would end the data, run a script, turn text around and break lines.
pub(crate) const HOSTILE: &str =
    "</script><script>alert(1)</script>\u{202e}\n\"'&amp;<img src=x onerror=alert(2)>";
pub(crate) const SLICE: Duration = Duration::from_millis(20);
pub(crate) const SLICES: u32 = 100;
pub(crate) const SOURCE_FILE: &str = "/src/app/main.rs";

/// Numbers that look random and are the same in every run (an xorshift generator).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn guest(profile: &mut Profile, name: &str, line: u32, offset: u32) -> FrameId {
    let location = SourceLocation { file: SOURCE_FILE.into(), line, column: 1 };
    profile.intern(Frame {
        location: Some(location),
        bytecode_offset: Some(offset),
        module: Some("app.wasm".into()),
        ..Frame::guest(name)
    })
}

fn metadata(event: Event) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.event = event;
    metadata.guest = Some("app.wasm".into());
    metadata.slice = Some(SLICE);
    metadata
}

/// All kinds of frames, recursion, two threads, labels, and samples that change over time.
pub(crate) fn everything() -> Profile {
    let mut metadata = metadata(Event::time("cpu"));
    metadata.engine = Some("perf cpu-clock".into());
    (metadata.asked_rate, metadata.real_rate) = (Some(997.0), Some(950.0));
    metadata.command = vec!["app.wasm".into(), "--fast".into()];
    metadata.start = Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    metadata.duration = Some(SLICE * SLICES);
    metadata.end = Some(EndReason::Trap("unreachable".into()));
    metadata.notices = vec![format!("A notice {HOSTILE}")];
    let mut profile = Profile::new(metadata);

    let threads = ["main", "worker"]
        .map(|name| profile.intern_thread(Thread { id: 4_000 + name.len() as u64, name: Some(name.into()) }));
    let labels = ["acme", "umbrella"]
        .map(|tenant| profile.intern_labels([("tenant", tenant), ("kind", "batch")].into_iter().collect()));
    let main = [guest(&mut profile, "main", 3, 0x40), guest(&mut profile, "main", 4, 0x48)];
    let parse = guest(&mut profile, "parse", 10, 0x80);
    let scan = guest(&mut profile, "scan", 12, 0x84);
    let inlined = profile.intern(Frame { inlined: true, ..profile.frame(scan).clone() });
    let render = [guest(&mut profile, "render", 20, 0x100), guest(&mut profile, "render", 21, 0x10c)];
    let hostile = guest(&mut profile, HOSTILE, 30, 0x200);
    let write = profile.intern(Frame::host_call("wasi_snapshot_preview1", "fd_write"));
    let native = profile.intern(Frame::new(FrameKind::Host, "std::io::Write::write_all"));
    let grow = profile.intern(Frame::builtin("memory.grow"));
    let truncated = profile.intern(Frame::truncated());

    let stacks: [&[FrameId]; 9] = [
        &[main[0], parse],
        &[main[0], parse, scan],
        &[main[0], parse, inlined, scan],
        &[main[1], render[0]],
        &[main[1], render[1], render[0], render[1]],
        &[main[1], render[0], write, native],
        &[main[0], hostile],
        &[main[1], render[1], grow],
        &[truncated, render[0], render[1]],
    ];
    let mut numbers = Numbers(7);
    for slice in 0..SLICES {
        for sample in 0..20 {
            // Parsing comes first, rendering later.
            let late = u64::from(slice) * 9 / u64::from(SLICES);
            let stack = stacks[((numbers.below(6) + late) % 9) as usize];
            let origin = Origin {
                thread: Some(threads[(sample % 3 == 0) as usize]),
                labels: if sample % 5 == 4 { Default::default() } else { labels[(slice % 2) as usize] },
                slice: Some(slice),
            };
            let tally = Tally { samples: 1, weight: 900_000 + numbers.below(200_000) };
            profile.add_from(stack, origin, tally).unwrap();
        }
    }
    // From a file that does not say when.
    profile.add(&[main[0], parse], Tally { samples: 3, weight: 3_000_000 }).unwrap();

    let total = profile.total();
    let statistics = &mut profile.metadata.statistics;
    statistics.delivered = total;
    let lost = Tally { samples: 2, weight: 2_000_000 };
    statistics.lost.insert("ring full".into(), lost);
    statistics.ticks = total.checked_add(lost).unwrap();
    profile
}

pub(crate) fn with_source() -> ReportOptions {
    let mut options = ReportOptions::default();
    let text = (1..=40).map(|line| format!("\tline_{line}(\"</script>\");\n")).collect();
    options.sources = vec![(SOURCE_FILE.into(), text), ("/not/in/the/profile.rs".into(), "secret".into())];
    options
}

/// As many distinct stacks as asked for, of 20 to 50 frames, that branch as programs do: heavily near the leaves.
pub(crate) fn large(stacks: u64) -> Profile {
    let mut profile = Profile::new(metadata(Event::time("cpu")));
    let mut numbers = Numbers(11);
    let functions: Vec<Vec<FrameId>> = (0..4_000)
        .map(|number| {
            let name = format!("crate_{}::module_{}::function_{number}", number % 17, number % 131);
            (0..4).map(|place| guest(&mut profile, &name, number * 10 + place, number * 64 + place)).collect()
        })
        .collect();
    let threads = [1, 2, 3, 4].map(|id| profile.intern_thread(Thread { id, name: None }));
    let mut path: Vec<FrameId> = Vec::new();
    while (profile.stacks().len() as u64) < stacks {
        // Mostly back to near the leaf, seldom to the root.
        let most = numbers.below(12);
        let back = numbers.below(1 + most) as usize;
        path.truncate(path.len().saturating_sub(back));
        let depth = 20 + numbers.below(30) as usize;
        while path.len() < depth {
            let caller = path.last().map_or(0, |frame| frame.index() as u64);
            // A function calls a few others.
            let callee = (caller * 31 + numbers.below(6) * 977) % functions.len() as u64;
            path.push(functions[callee as usize][numbers.below(4) as usize]);
        }
        let origin = Origin {
            thread: Some(threads[numbers.below(4) as usize]),
            slice: Some(numbers.below(u64::from(SLICES)) as u32),
            ..Origin::default()
        };
        let tally = Tally { samples: 1, weight: 900_000 + numbers.below(200_000) };
        profile.add_from(&path, origin, tally).unwrap();
    }
    profile
}

/// Five runs of a build: what each of its functions costs, give or take a little.
pub(crate) fn runs(build: &[(&[&str], u64)], seed: u64) -> Vec<Profile> {
    let mut numbers = Numbers(seed);
    (0..5)
        .map(|_| {
            let mut profile = Profile::new(metadata(Event::time("cpu")));
            let tenants = ["acme", "umbrella"]
                .map(|tenant| profile.intern_labels([("tenant", tenant)].into_iter().collect()));
            for (stack, samples) in build {
                let frames: Vec<_> = stack.iter().map(|&name| profile.intern(Frame::guest(name))).collect();
                let samples = samples + numbers.below(20);
                for (labels, samples) in tenants.into_iter().zip([samples / 3, samples - samples / 3]) {
                    let slice = Some(numbers.below(u64::from(SLICES)) as u32);
                    let origin = Origin { labels, slice, ..Origin::default() };
                    profile
                        .add_from(&frames, origin, Tally { samples, weight: samples * 1_000_000 })
                        .unwrap();
                }
            }
            profile
        })
        .collect()
}

/// All profiles as one, with other names for some functions.
pub(crate) fn together(profiles: &[Profile], rename: impl Fn(&str) -> &str) -> Profile {
    let mut sum = Profile::default();
    for profile in profiles {
        for sample in profile.samples() {
            let frames: Vec<_> = profile
                .stack(sample.stack)
                .frames
                .iter()
                .map(|&id| sum.intern(Frame::guest(rename(&profile.frame(id).name))))
                .collect();
            let labels = sum.intern_labels(profile.labels(sample.origin.labels).clone());
            sum.add_from(&frames, Origin { labels, thread: None, ..sample.origin }, sample.tally).unwrap();
        }
    }
    sum
}

//! Programs with known shares, and profiles drawn from them.

use flamewalk_profile::{Event, Frame, FrameKind, Origin, Profile, SourceLocation, Tally};

/// A random number generator (SplitMix64): seeded, so that a test that passes always passes.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Standard normal, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A program: stacks of functions, and what share of the time each takes.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) stacks: Vec<(Vec<Frame>, f64)>,
    /// The probability that a signal on the first stack merges with the next one.
    pub(crate) merged: f64,
    /// Whether profiles tell when the samples were.
    pub(crate) slices: bool,
    /// How many times a tenth of the run something disturbs it, so that the first stack takes three times as much.
    pub(crate) disturbances: usize,
    /// Whether the first stack only runs in the second half.
    pub(crate) phases: bool,
}

/// Slices of time of a profile.
const SLICES: usize = 100;

/// How a program spreads its time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Five functions called by `main`.
    Five,
    /// Three hundred of about equal shares, in call paths of depth 3 to 6.
    ThreeHundred,
    /// Three hundred, the n-th of a share like 1/n.
    HeavyTail,
    /// One that takes nearly all, and some rare ones.
    OneHot,
}

pub(crate) const SHAPES: [Shape; 4] = [Shape::Five, Shape::ThreeHundred, Shape::HeavyTail, Shape::OneHot];

impl Program {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut random = Random(7);
        let weights: Vec<f64> = match shape {
            Shape::Five => vec![0.35, 0.25, 0.2, 0.12, 0.08],
            Shape::ThreeHundred => (0..300).map(|_| 0.7 + 0.6 * random.unit()).collect(),
            Shape::HeavyTail => (0..300).map(|n| 1.0 / f64::from(n + 2)).collect(),
            Shape::OneHot => (0..40).map(|n| if n == 0 { 100.0 } else { 0.3 * random.unit() }).collect(),
        };
        let sum: f64 = weights.iter().sum();
        let stacks = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| {
                let mut stack = vec![Frame::guest("main")];
                // Callers are functions of their own, and so have self weight and total weight.
                let mut caller = index;
                while caller > 5 && stack.len() < 6 {
                    caller /= 3;
                    stack.insert(1, Frame::guest(format!("f{caller}")));
                }
                stack.push(Frame::guest(format!("f{index}")));
                (stack, weight / sum)
            })
            .collect();
        Self { stacks, merged: 0.0, slices: true, disturbances: 0, phases: false }
    }

    /// The program with more time in one stack, by so much that its share rises by `points`, and what that does to
    /// its other shares.
    pub(crate) fn slower(&self, stack: usize, points: f64) -> Self {
        let old = self.stacks[stack].1;
        let others = (1.0 - old - points) / (1.0 - old);
        let stacks = self
            .stacks
            .iter()
            .enumerate()
            .map(|(index, (frames, share))| {
                (frames.clone(), if index == stack { share + points } else { share * others })
            })
            .collect();
        Self { stacks, ..self.clone() }
    }

    /// A profile of so many samples. Their weights vary as those of a varying period do.
    pub(crate) fn run(&self, random: &mut Random, samples: usize) -> Profile {
        self.run_with(random, samples, 0.0)
    }

    /// A run in which the share of each stack differs by itself, by this part of it.
    pub(crate) fn run_with(&self, random: &mut Random, samples: usize, spread: f64) -> Profile {
        let mut cumulative = Vec::with_capacity(self.stacks.len());
        let mut sum = 0.0;
        for (_, share) in &self.stacks {
            sum += share * (spread * random.normal()).exp();
            cumulative.push(sum);
        }
        let mut profile = Profile::default();
        profile.metadata.event = Event::time("cpu");
        let ids: Vec<Vec<_>> = self
            .stacks
            .iter()
            .map(|(frames, _)| frames.iter().map(|frame| profile.intern(frame.clone())).collect())
            .collect();
        let mut tallies = vec![[Tally::default(); SLICES]; ids.len()];
        let mut disturbed = [false; SLICES];
        for _ in 0..self.disturbances {
            let start = random.below(SLICES);
            (start..SLICES.min(start + SLICES / 10)).for_each(|slice| disturbed[slice] = true);
        }
        for _ in 0..samples {
            let slice = random.below(SLICES);
            // The first stack takes the place of all others in its turn of the time that is added.
            let first = cumulative[0];
            let mut at = random.unit() * (if disturbed[slice] { sum + 2.0 * first } else { sum });
            if at >= sum {
                at = 0.0;
            }
            if self.phases && slice < SLICES / 2 {
                at = first + random.unit() * (sum - first);
            }
            let stack = cumulative.partition_point(|&end| end <= at).min(ids.len() - 1);
            let mut weight = (1e6 * (0.55 + 1.1 * random.unit())) as u64;
            while stack == 0 && random.unit() < self.merged {
                weight += 1_000_000;
            }
            let tally = &mut tallies[stack][slice];
            *tally = tally.checked_add(Tally { samples: 1, weight }).unwrap();
        }
        for (ids, tallies) in ids.iter().zip(tallies) {
            for (tally, slice) in tallies.into_iter().zip(0..).filter(|(tally, _)| tally.samples > 0) {
                let origin = Origin { slice: self.slices.then_some(slice), ..Origin::default() };
                profile.add_from(ids, origin, tally).unwrap();
            }
        }
        profile
    }
}

/// A guest function at a place in the source.
pub(crate) fn at(frame: Frame, file: &str, line: u32) -> Frame {
    Frame { location: Some(SourceLocation { file: file.into(), line, column: 1 }), ..frame }
}

/// A guest function by its index and body, without a name if `name` is empty.
pub(crate) fn function(name: &str, index: u32, body: u64) -> Frame {
    let name = if name.is_empty() { format!("wasm-function[{index}]") } else { name.to_owned() };
    Frame { function_index: Some(index), body_hash: Some(body), ..Frame::new(FrameKind::Guest, name) }
}

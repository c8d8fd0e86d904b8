//! Self and total of each function.

use std::collections::HashMap;

use crate::{FrameKind, NameId, Names, Profile, Tally};

/// A function, and what fell on it. Frames of one kind and one shown name are one function, inlined or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Function {
    /// What it is.
    pub kind: FrameKind,
    /// Its shown name.
    pub name: NameId,
    /// The samples in which it was the youngest frame.
    pub self_tally: Tally,
    /// The samples that have it anywhere on the stack, each counted once however often the function recurses.
    pub total_tally: Tally,
}

impl Profile {
    /// The functions of all frames, in the order of first use. `names` are those of this profile.
    ///
    /// The sum of all self tallies is the profile's total.
    ///
    /// # Panics
    /// If frames were added after `names` were made.
    pub fn functions(&self, names: &Names) -> Vec<Function> {
        let mut functions = Vec::new();
        let mut indices = HashMap::new();
        let of_frame: Vec<usize> = self
            .frames()
            .map(|(id, frame)| {
                let (kind, name) = (frame.kind, names.id(id));
                *indices.entry((kind, name)).or_insert_with(|| {
                    let zero = Tally::default();
                    functions.push(Function { kind, name, self_tally: zero, total_tally: zero });
                    functions.len() - 1
                })
            })
            .collect();

        // The last stack that was counted for each function; stacks count from 1.
        let mut counted_in = vec![0; functions.len()];
        for (stack, number) in self.stacks().zip(1_u64..) {
            for frame in stack.frames {
                let function = of_frame[frame.index()];
                if counted_in[function] != number {
                    counted_in[function] = number;
                    add(&mut functions[function].total_tally, stack.tally);
                }
            }
            if let Some(youngest) = stack.frames.last() {
                add(&mut functions[of_frame[youngest.index()]].self_tally, stack.tally);
            }
        }
        functions
    }
}

/// Cannot overflow: no part of a profile exceeds its total.
fn add(sum: &mut Tally, part: Tally) {
    sum.samples += part.samples;
    sum.weight += part.weight;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::Frame;

    /// A frame out of a few, among them some that differ only in what a name does not show.
    fn frame(choice: u8) -> Frame {
        let name = format!("f{}", choice % 4);
        match choice / 4 {
            0 => Frame::guest(name),
            1 => Frame { inlined: true, ..Frame::guest(name) },
            2 => Frame { bytecode_offset: Some(9), ..Frame::guest(name) },
            _ => Frame::new(FrameKind::Host, name),
        }
    }

    proptest! {
        /// The reference goes through every sample one by one and searches its stack for each function.
        #[test]
        fn agree_with_a_naive_count(samples in vec((vec(0_u8..16, 1..12), 1_u64..1000), 0..60)) {
            let mut profile = Profile::default();
            let mut expected: BTreeMap<(FrameKind, String), [u64; 4]> = BTreeMap::new();
            for (stack, weight) in &samples {
                let frames: Vec<Frame> = stack.iter().map(|&choice| frame(choice)).collect();
                let keys: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.name.to_string())).collect();
                for (index, key) in keys.iter().enumerate() {
                    let row = expected.entry(key.clone()).or_default();
                    if index + 1 == keys.len() {
                        row[0] += 1;
                        row[1] += weight;
                    }
                    if !keys[..index].contains(key) {
                        row[2] += 1;
                        row[3] += weight;
                    }
                }
                let ids: Vec<_> = frames.into_iter().map(|frame| profile.intern(frame)).collect();
                profile.add(&ids, Tally { samples: 1, weight: *weight })?;
            }

            let names = Names::new(&profile);
            let functions = profile.functions(&names);
            let actual: BTreeMap<_, _> = functions
                .iter()
                .map(|function| {
                    let Function { kind, name, self_tally, total_tally } = *function;
                    let row = [self_tally.samples, self_tally.weight, total_tally.samples, total_tally.weight];
                    ((kind, names.text(name).to_owned()), row)
                })
                .collect();
            prop_assert_eq!(actual, expected);
            prop_assert_eq!(functions.iter().map(|f| f.self_tally.weight).sum::<u64>(), profile.total().weight);
            prop_assert_eq!(profile.total().samples, samples.len() as u64);
        }
    }
}

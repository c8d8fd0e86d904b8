//! The native format keeps everything, in little space.

use flamewalk_profile::{Format, Frame, Labels, Origin, Profile, SourceLocation, Tally, Thread, native};
use proptest::prelude::*;

use crate::profiles::{everything, profile, written};

proptest! {
    #[test]
    fn what_is_read_equals_what_was_written(profile in profile(1 << 50)) {
        let bytes = written(&profile, Format::Native);
        let back = native::read(&bytes)?;
        prop_assert_eq!(everything(&back), everything(&profile));
        prop_assert_eq!(written(&back, Format::Native), bytes);
    }
}

/// As large as ten minutes of a busy guest: stacks that are random from frame to frame share little, and so are
/// weights, which makes this an upper bound rather than a usual case.
#[test]
fn a_large_profile_is_a_small_file() {
    // Numbers that look random and are the same on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut profile = Profile::default();
    let frames: Vec<_> = (0..2_000_u32)
        .map(|index| {
            let file = format!("/build/guest/src/module_{}/mod.rs", index % 50).into();
            profile.intern(Frame {
                module: Some("guest.wasm".into()),
                location: Some(SourceLocation { file, line: 10 + index % 900, column: 1 + index % 80 }),
                function_index: Some(index / 4),
                bytecode_offset: Some(1_000 + index * 37),
                text_offset: Some(index * 113),
                body_hash: Some(u64::from(index / 4).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                ..Frame::guest(format!("guest::module_{}::Type<T>::function_{index}", index % 50))
            })
        })
        .collect();
    let threads: Vec<_> =
        (0..8).map(|id| profile.intern_thread(Thread { id, name: Some(format!("w{id}").into()) })).collect();
    let labels: Vec<_> = (0..20)
        .map(|tenant| {
            profile.intern_labels([("tenant", format!("{tenant}"))].into_iter().collect::<Labels>())
        })
        .collect();
    let stacks: Vec<Vec<_>> =
        (0..5_000).map(|_| (0..40).map(|_| frames[random(2_000) as usize]).collect()).collect();
    while profile.samples().len() < 65_000 {
        let origin = Origin {
            thread: Some(threads[random(8) as usize]),
            labels: labels[random(20) as usize],
            slice: Some((profile.samples().len() / 110) as u32),
        };
        let tally = Tally { samples: 1, weight: 1_000_000 + random(100_000) };
        profile.add_from(&stacks[random(5_000) as usize], origin, tally).unwrap();
    }
    assert_eq!(profile.stacks().len(), 5_000);

    let bytes = written(&profile, Format::Native);
    assert!(bytes.len() < 2_000_000, "{} bytes", bytes.len());
    assert_eq!(everything(&native::read(&bytes).unwrap()), everything(&profile));
}

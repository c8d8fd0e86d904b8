//! One profile means the same in every format.

use std::collections::BTreeMap;

use flamewalk_profile::{Format, format};
use proptest::prelude::*;

use crate::profiles::{profile, weights, written};

/// Folded stacks have a look-alike for what would end a frame or a value, and read it as the plain character.
fn plain(weights: BTreeMap<Vec<String>, u64>) -> BTreeMap<Vec<String>, u64> {
    let mut plain = BTreeMap::new();
    for (stack, weight) in weights {
        let stack =
            stack.iter().map(|name| name.replace('；', ";").replace('\u{a0}', " ").replace('＃', "#"));
        *plain.entry(stack.collect()).or_default() += weight;
    }
    plain
}

proptest! {
    #[test]
    fn every_stack_weighs_the_same_in_every_format(profile in profile(1 << 40)) {
        for format in Format::ALL {
            let back = format::read(&written(&profile, format))?;
            prop_assert_eq!(back.total().weight, profile.total().weight, "{}", format);
            if format == Format::Folded {
                prop_assert_eq!(plain(weights(&back)), plain(weights(&profile)), "{}", format);
            } else {
                prop_assert_eq!(back.total().samples, profile.total().samples, "{}", format);
                prop_assert_eq!(weights(&back), weights(&profile), "{}", format);
            }
            // What a format keeps, it keeps for good.
            let again = format::read(&written(&back, format))?;
            prop_assert_eq!(weights(&again), weights(&back), "{}", format);
        }
    }
}

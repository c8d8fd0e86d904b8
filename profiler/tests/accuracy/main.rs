//! Shares as a distribution: samples of guests whose shares are fixed by construction come as close to them as chance
//! allows, and not only as close as some tolerance.
//!
//! Each test asks how likely it is that as many independent samples come out as far from the truth (Pearson's test of
//! goodness of fit). Below 0.01, which a right profiler gives once in a hundred times, four times as many fresh samples
//! are taken, and have to come out below 0.0001: a right profiler fails once in a million times. Fresh sets of the same size, each
//! tested at 0.01, would forgive a bias whenever one of them happens to miss it: one that a set shows in four of five
//! cases, in half of all runs. Four times as many at 0.0001 show it practically always, so that such a bias fails four of
//! five runs, as one set at 0.01 would, and more than the one in twelve of one set at 0.000001. Of 20,000 samples, such a
//! test sees a wrong profiler that has one of five parts about 1.5 points off; of 100,000, 0.7 points. If the number of samples is
//! given, they are tested once, at 0.01:
//!
//! ```text
//! FLAMEWALK_ACCURACY_SAMPLES=100000 cargo test --workspace --test accuracy -- --nocapture
//! ```
//!
//! The guests' stretches are some microseconds long, a fiftieth of the profiler's period, so that samples ought to be
//! independent. That is tested as well, by how much batches of samples differ from each other; if they differ more than
//! independent ones would, the test of fit allows for it.
//!
//! A crate of its own, so that Cargo runs it alone.

mod fit;
#[cfg(target_arch = "x86_64")]
mod fixed_timer;
mod sampling;

use fit::{Batches, shares, total_variation};
use flamewalk::profile::{Profile, Stack};
use flamewalk_guests::{GeneratedGuest, Guest, KNOWN_LINES};
use sampling::{
    Running, alone, guest_functions, is_host_call, is_number_given, period, sample, sample_generated,
    wanted_samples,
};
use wasmtime::Config;

const RATE: u32 = 9_997;
const SUSPICIOUS: f64 = 1e-2;
const WRONG: f64 = 1e-4;
/// How many times as many samples decide whether what is suspicious is wrong.
const MORE: u64 = 4;

/// Takes samples, and more if they do not fit the truth.
fn check(what: &str, truth: &[f64], mut take: impl FnMut(u64) -> Batches) {
    let mut p_value = |samples| {
        let batches = take(samples);
        let (counts, p) = (batches.sums(), batches.p_value(truth));
        let measured = shares(&counts);
        println!(
            "{what}: {} samples, p = {p:.3e}, dispersion {:.2}, total variation {:.4}\n    truth    {truth:.4?}\n    measured {measured:.4?}",
            counts.iter().sum::<u64>(),
            batches.dispersion(),
            total_variation(&measured, truth),
        );
        p
    };
    let first = p_value(wanted_samples());
    if first > SUSPICIOUS {
        return;
    }
    assert!(!is_number_given(), "{what}: the samples do not fit the truth: p = {first:.1e}");
    let second = p_value(MORE * wanted_samples());
    assert!(second > WRONG, "{what}: the samples do not fit the truth: p = {first:.1e}, then {second:.1e}");
}

fn check_generated(what: &str, guest: &GeneratedGuest, config: &Config) {
    let _alone = alone();
    let take = |samples| sample_generated(guest, config, RATE, samples);
    check(&format!("{} {what}", guest.name), &guest.shares(), take);
}

#[test]
fn every_shape_of_code() {
    check_generated("", &GeneratedGuest::shapes(), &Config::new());
}

#[test]
fn call_sites_of_one_function() {
    check_generated("", &GeneratedGuest::call_sites(), &Config::new());
}

/// A delay that is added to one function moves its share by what was added, and takes from the others in proportion.
#[test]
fn a_delay_shows_where_it_was_added() {
    for delay in [0, 20, 100, 300] {
        check_generated(&format!("by {delay}0 steps"), &GeneratedGuest::delayed(delay), &Config::new());
    }
}

/// Lines of one function, and functions that the guest's compiler has inlined there.
#[test]
fn lines_and_inlined_functions() {
    let _alone = alone();
    let binary = std::fs::read(Guest::Lines.path()).unwrap();
    let (lines, truth): (Vec<u32>, Vec<f64>) = KNOWN_LINES.iter().copied().unzip();
    // The line of the function itself, whatever is inlined there.
    let line_of = |profile: &Profile, stack: &Stack<'_>| {
        let frames = stack.frames.iter().map(|&frame| profile.frame(frame));
        let line =
            frames.filter(|frame| &*frame.name == "lines").find_map(|frame| frame.location.as_ref())?.line;
        lines.iter().position(|known| *known == line)
    };
    check("lines", &truth, |samples| {
        sample(&binary, Running::new(&binary, &Config::new(), 1), RATE, samples, lines.len(), line_of)
    });
    let functions = ["lines", "once", "twice"];
    let function_of = |profile: &Profile, stack: &Stack<'_>| {
        // `steps`, which does the work of all, is inlined as well.
        let names = guest_functions(profile, stack);
        functions.iter().position(|known| names.iter().rfind(|name| **name != "steps") == Some(known))
    };
    check("inlined functions", &[0.3, 0.3, 0.4], |samples| {
        sample(&binary, Running::new(&binary, &Config::new(), 1), RATE, samples, 3, function_of)
    });
}

/// A guest that repeats itself with just the period of the timer. One whose period is always the same finds it at the
/// same place again and again, until the two clocks have moved against each other: what it says of a stretch of time is
/// wrong, and what it says of a whole run is right by luck only. With ours, samples are independent, or nearly so.
///
/// The rate is such that the guest's work takes less than the shortest period even if ticks are dear, as they are on
/// virtual machines. Where two ticks can fall on the work of one round, the first, by the time that it takes itself,
/// makes the second more likely to fall on `late`.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_guest_in_step_with_the_timer() {
    const RATE: u32 = 1_999;
    let _alone = alone();
    let guest = GeneratedGuest::in_step();
    let binary = guest.binary();
    let samples = wanted_samples() / 2;
    let instance = || Running::new(&binary, &Config::new(), period(RATE));
    // The guest's two parts, and where it waits: of that the share is not known beforehand.
    let part_of = |profile: &Profile, stack: &Stack<'_>| {
        let guest_part = guest.part_of(&guest_functions(profile, stack));
        guest_part.or_else(|| is_host_call(profile, stack).then_some(2))
    };
    let ours = sample(&binary, instance(), RATE, samples, 3, part_of);
    // Not to be held to chance: what comes first after waiting finds the processor's caches changed, and takes longer.
    let (measured, truth) = (shares(&ours.only(2).sums()), guest.shares());
    let distance = total_variation(&measured, &truth);
    println!("in step: early, late: {measured:.4?} of {truth:.4?}, dispersion {:.2}", ours.dispersion());
    assert!(distance < 0.06, "{measured:?} are not {truth:?}");

    let mut running = instance();
    let fixed = fixed_timer::sample(&running.module, &["early", "late"], period(RATE), || {
        running.run.call(&mut running.store, u32::try_from(samples).unwrap()).unwrap();
    });
    let expected = shares(&ours.sums());
    let deviation = fixed.deviation(&expected);
    let by_fixed = shares(&fixed.sums());
    println!("early, late, wait: {expected:.4?}, by a fixed period {by_fixed:.4?}, deviation {deviation:.2}");
    assert!(deviation > 5.0, "the guest is not in step with the timer: {fixed:?}");
    assert!(3.0 * ours.dispersion() < deviation, "samples that follow each other are alike: {ours:?}");
}

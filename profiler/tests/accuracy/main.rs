//! Shares as a distribution: samples of guests whose shares are fixed by construction come as close to them as chance
//! allows, and not only as close as some tolerance.
//!
//! Each test asks how likely it is that as many independent samples come out as far from the truth (Pearson's test of
//! goodness of fit), and fails below 0.01. A right profiler does that once in a hundred times, so a first failure is
//! followed by a second and a third, fresh set of samples, which have to fail as well: once in a million times. Of 20,000 samples, such
//! a test sees a wrong profiler that has one of five parts about 1.5 points off; of 100,000, 0.7 points:
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
    Running, alone, guest_functions, is_host_call, period, sample, sample_generated, wanted_samples,
};
use wasmtime::Config;

const RATE: u32 = 9_997;
const SIGNIFICANT: f64 = 0.01;

/// Takes samples, and up to twice more if they do not fit the truth.
fn check(what: &str, truth: &[f64], mut take: impl FnMut() -> Batches) {
    for attempt in 1..=3 {
        let batches = take();
        let (counts, p) = (batches.sums(), batches.p_value(truth));
        let measured = shares(&counts);
        println!(
            "{what}: {} samples, p = {p:.3}, dispersion {:.2}, total variation {:.4}\n    truth    {truth:.4?}\n    measured {measured:.4?}",
            counts.iter().sum::<u64>(),
            batches.dispersion(),
            total_variation(&measured, truth),
        );
        if p > SIGNIFICANT {
            return;
        }
        println!("{what}: does not fit, attempt {attempt}");
    }
    panic!("{what}: the samples do not fit the truth, three times");
}

fn check_generated(what: &str, guest: &GeneratedGuest, config: &Config) {
    let _alone = alone();
    let take = || sample_generated(guest, config, RATE, wanted_samples());
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
    check("lines", &truth, || {
        sample(
            &binary,
            Running::new(&binary, &Config::new(), 1),
            RATE,
            wanted_samples(),
            lines.len(),
            line_of,
        )
    });
    let functions = ["lines", "once", "twice"];
    let function_of = |profile: &Profile, stack: &Stack<'_>| {
        // `steps`, which does the work of all, is inlined as well.
        let names = guest_functions(profile, stack);
        functions.iter().position(|known| names.iter().rfind(|name| **name != "steps") == Some(known))
    };
    check("inlined functions", &[0.3, 0.3, 0.4], || {
        sample(&binary, Running::new(&binary, &Config::new(), 1), RATE, wanted_samples(), 3, function_of)
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

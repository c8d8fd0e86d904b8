//! Time by the cycle counter, compared with the clock.

use std::time::{Duration, Instant};

use flamewalk_handler::cycles::{self, CycleClock};

#[test]
#[cfg_attr(miri, ignore = "the interpreter has no cycle counter")]
fn cycles_take_the_time_that_the_clock_says() {
    let clock = CycleClock::start();
    for milliseconds in [5, 10, 20] {
        let before = Instant::now();
        let first = cycles::now();
        let begin = Instant::now();
        let least = Duration::from_millis(milliseconds);
        while begin.elapsed() < least {
            std::hint::spin_loop();
        }
        let counted = cycles::now() - first;
        let most = before.elapsed();
        let measured = clock.duration_of(counted);
        // A thousandth for how exactly the two were compared.
        let range = least.mul_f64(0.999)..=most.mul_f64(1.001);
        assert!(range.contains(&measured), "{measured:?}, not in {range:?}");
    }
    assert_eq!(clock.duration_of(0), Duration::ZERO);
}

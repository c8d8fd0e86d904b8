//! Weights and counts as a person reads them.

use std::{fmt, time::Duration};

use flamewalk_profile::{Event, Unit};
use num_format::{Buffer, Locale};

/// A weight in the unit of its event: `1.23 s`, `45.6 ms`, `1,234`.
pub(crate) struct Amount<'e> {
    pub(crate) weight: u64,
    pub(crate) event: &'e Event,
}

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.event.unit {
            Unit::Nanoseconds => time(Duration::from_nanos(self.weight)),
            Unit::Events => count(self.weight),
        };
        f.pad(&text)
    }
}

impl Amount<'_> {
    /// With what is counted: `1.23 s`, `1,234 page-faults`, or if that is not known, `weight 1,234`.
    pub(crate) fn named(&self) -> String {
        match self.event.unit {
            _ if !self.event.is_known() => format!("{} {self}", self.event.name),
            Unit::Nanoseconds => self.to_string(),
            Unit::Events => format!("{self} {}", flamewalk_profile::printable(&self.event.name)),
        }
    }
}

/// A number with thousands separators.
pub(crate) fn count(number: u64) -> String {
    let mut buffer = Buffer::new();
    buffer.write_formatted(&number, &Locale::en);
    buffer.as_str().to_owned()
}

/// A number of samples.
pub(crate) fn samples(number: u64) -> String {
    if number == 1 { "1 sample".to_owned() } else { format!("{} samples", count(number)) }
}

/// A time with three significant digits, or whole seconds from 1,000 s on.
pub(crate) fn time(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let (size, unit) = match nanoseconds {
        0 => return "0 s".to_owned(),
        1..1_000 => return format!("{nanoseconds} ns"),
        // Where rounding would give 1000 of a unit, the next one starts.
        1_000..999_500 => (1e3, "µs"),
        999_500..999_500_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = nanoseconds as f64 / size;
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits() {
        for (nanoseconds, expected) in [
            (0, "0 s"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_995, "10.0 µs"),
            (99_950, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (45_600_000, "45.6 ms"),
            (999_500_000, "1.00 s"),
            (1_234_000_000, "1.23 s"),
            (4_000_000_000_000, "4000 s"),
            (u64::MAX, "18446744074 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(nanoseconds)), expected);
        }
    }

    #[test]
    fn amounts_follow_the_unit() {
        let faults = Event::count("page-faults");
        assert_eq!(Amount { weight: 1_234, event: &faults }.named(), "1,234 page-faults");
        // The values of a folded file were called samples, whatever they were.
        assert_eq!(
            Amount { weight: 5_638_251_943, event: &Event::default() }.named(),
            "weight 5,638,251,943"
        );
        let cpu = Event::time("cpu");
        assert_eq!(Amount { weight: 1_500, event: &cpu }.named(), "1.50 µs");
        assert_eq!(format!("{:>9}|", Amount { weight: 1_500, event: &cpu }), "  1.50 µs|");
    }
}

//! Medians and how far they can be trusted.

use std::hash::{BuildHasher, RandomState};

/// A median, and the interval that holds the true one in 95 of 100 cases.
#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// By the bootstrap: what medians come out if as many values are drawn from these again and again.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        const RESAMPLES: usize = 2_000;
        if values.is_empty() {
            return None;
        }
        let random = RandomState::new();
        let mut draws = 0u64;
        let mut draw = || {
            draws += 1;
            values[(random.hash_one(draws) % values.len() as u64) as usize]
        };
        let mut medians: Vec<f64> =
            (0..RESAMPLES).map(|_| median(values.iter().map(|_| draw()).collect())).collect();
        medians.sort_by(f64::total_cmp);
        Some(Estimate {
            median: median(values.to_vec()),
            low: medians[RESAMPLES / 40],
            high: medians[RESAMPLES - 1 - RESAMPLES / 40],
        })
    }

    /// Half of the interval.
    pub fn uncertainty(self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// Whether the ratio that this estimates is known well enough to be stated: to a hundredth, or to a quarter of what
    /// it differs from 1 by.
    pub fn is_telling(self) -> bool {
        self.uncertainty() <= 0.01 || self.uncertainty() <= (self.median - 1.0).abs() / 4.0
    }
}

/// The value in the middle.
///
/// # Panics
///
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_narrows() {
        let values = |count: u32| (0..count).map(|n| 1.0 + f64::from(n % 7) / 100.0).collect::<Vec<_>>();
        let (few, many) = (Estimate::of(&values(14)).unwrap(), Estimate::of(&values(1400)).unwrap());
        assert_eq!(many.median, 1.03);
        assert!(few.low <= few.median && few.median <= few.high && few.uncertainty() > many.uncertainty());
        assert!(Estimate::of(&[]).is_none());
        assert!(!Estimate { median: 1.01, low: 0.95, high: 1.07 }.is_telling());
        assert!(Estimate { median: 1.4, low: 1.35, high: 1.45 }.is_telling());
    }
}

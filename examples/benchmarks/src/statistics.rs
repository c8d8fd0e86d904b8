//! Medians and how far they can be trusted.

use std::hash::{BuildHasher, RandomState};

/// A median, or what is made of medians, and the interval that holds the true one in 95 of 100 cases.
#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    pub fn of(values: &[f64]) -> Option<Estimate> {
        Self::by(values.len(), |chosen| median(chosen.iter().map(|&index| values[index]).collect()))
    }

    /// Of whatever `statistic` makes of a choice of rounds, by the bootstrap: what comes out if as many rounds are drawn
    /// from these again and again. `None` without rounds.
    pub fn by(rounds: usize, statistic: impl Fn(&[usize]) -> f64) -> Option<Estimate> {
        const RESAMPLES: usize = 2_000;
        if rounds == 0 {
            return None;
        }
        let random = RandomState::new();
        let mut draws = 0u64;
        let mut draw = || {
            draws += 1;
            (random.hash_one(draws) % rounds as u64) as usize
        };
        let mut drawn: Vec<f64> =
            (0..RESAMPLES).map(|_| statistic(&(0..rounds).map(|_| draw()).collect::<Vec<_>>())).collect();
        drawn.sort_by(f64::total_cmp);
        Some(Estimate {
            median: statistic(&(0..rounds).collect::<Vec<_>>()),
            low: drawn[RESAMPLES / 40],
            high: drawn[RESAMPLES - 1 - RESAMPLES / 40],
        })
    }

    /// Half of the interval.
    pub fn uncertainty(self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// Whether what this estimates is known to this part of it.
    pub fn is_known_to(self, part: f64) -> bool {
        self.uncertainty() <= part * self.median.abs()
    }

    /// Whether the slowdown that this estimates, 0 for none, is known well enough to be stated: to a hundredth of the
    /// guest's time, or to a quarter.
    pub fn is_telling(self) -> bool {
        self.uncertainty() <= 0.01 || self.is_known_to(0.25)
    }
}

/// The bounds of the middle half of some values.
///
/// # Panics
///
/// If there is none.
pub fn middle_half(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 4], values[values.len() - 1 - values.len() / 4])
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
        assert_eq!(middle_half(vec![9.0, 1.0, 2.0, 3.0, 4.0]), (2.0, 4.0));
        assert!(!Estimate { median: 0.01, low: -0.05, high: 0.07 }.is_telling());
        assert!(Estimate { median: 0.4, low: 0.35, high: 0.45 }.is_telling());
    }
}

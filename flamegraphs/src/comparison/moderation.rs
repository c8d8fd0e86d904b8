//! How noisy a function is, from its own stretches and from those of all others.
//!
//! A variance from few values is far off by chance: from 16 stretches by a third of itself, in either direction. Taken
//! as it is, it hides changes in functions that happen to look noisy. What disturbs a run, though, mostly disturbs all
//! functions alike, so that their variances, as multiples of that of sampling, scatter as chance has them scatter. As
//! far as they do, each is drawn towards the typical one and counts as known more surely; as far as they scatter more,
//! each stands for itself. That is the moderated variance of Smyth (2004), as it is used for the expression of genes:
//! variances are taken to come from a scaled inverse chi-squared distribution, which is fitted to the mean and the
//! variance of their logarithms.

use statrs::function::gamma::digamma;

/// From here on, degrees of freedom are as good as infinite.
const MANY_DEGREES: f64 = 1e6;

/// What the variances of many functions have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moderation {
    /// Of one variance.
    own_degrees: f64,
    /// The variance that all are drawn towards.
    typical: f64,
    /// How many degrees of freedom the typical variance is worth, next to one's own; may be infinite.
    typical_degrees: f64,
    /// As many as there are in all variances together.
    most_degrees: f64,
}

impl Moderation {
    /// From variances of things that are independent of each other, each with so many degrees of freedom.
    pub(super) fn new(variances: &[f64], own_degrees: f64) -> Self {
        let half = own_degrees / 2.0;
        // Logarithms without what an estimated variance's is too small by on average.
        let logarithms: Vec<f64> = variances
            .iter()
            .filter(|&&variance| variance > 0.0)
            .map(|variance| variance.ln() - digamma(half) + half.ln())
            .collect();
        let count = logarithms.len() as f64;
        if count < 2.0 {
            return Self { own_degrees, typical: 0.0, typical_degrees: 0.0, most_degrees: own_degrees };
        }
        let mean = logarithms.iter().sum::<f64>() / count;
        let scatter =
            logarithms.iter().map(|logarithm| (logarithm - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half_typical = inverse_trigamma(scatter - trigamma(half));
        let excess =
            if half_typical < MANY_DEGREES { digamma(half_typical) - half_typical.ln() } else { 0.0 };
        Self {
            own_degrees,
            typical: (mean + excess).exp(),
            typical_degrees: 2.0 * half_typical,
            most_degrees: own_degrees * count,
        }
    }

    /// A variance, and its degrees of freedom, in the light of all others.
    pub(super) fn of(&self, variance: f64) -> (f64, f64) {
        let Self { own_degrees, typical, typical_degrees, most_degrees } = *self;
        let together = own_degrees + typical_degrees;
        let drawn = if together < MANY_DEGREES {
            (typical_degrees * typical + own_degrees * variance) / together
        } else {
            typical
        };
        (drawn, together.min(most_degrees))
    }
}

/// The second derivative of the logarithm of the gamma function, for a positive number.
fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 8.0 {
        sum += x.powi(-2);
        x += 1.0;
    }
    let square = x.powi(-2);
    sum + 1.0 / x
        + square / 2.0
        + square / x * (1.0 / 6.0 - square * (1.0 / 30.0 - square * (1.0 / 42.0 - square / 30.0)))
}

/// The number of which [`trigamma`] is this; infinite for what is not positive.
fn inverse_trigamma(value: f64) -> f64 {
    if value <= 1.0 / MANY_DEGREES {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (1e-6_f64, 2.0 * MANY_DEGREES);
    for _ in 0..100 {
        // Trigamma falls.
        let middle = (low * high).sqrt();
        if trigamma(middle) > value {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published values: π²/6, π²/2, and at 10 from tables.
    #[test]
    fn trigamma_and_its_inverse() {
        let square = std::f64::consts::PI.powi(2);
        for (x, expected) in [(1.0, square / 6.0), (0.5, square / 2.0), (10.0, 0.105_166_335_681_685_75)] {
            assert!((trigamma(x) / expected - 1.0).abs() < 1e-9, "{x}: {}", trigamma(x));
            assert!((inverse_trigamma(expected) / x - 1.0).abs() < 1e-8);
        }
        assert_eq!(inverse_trigamma(0.0), f64::INFINITY);
        assert_eq!(inverse_trigamma(-1.0), f64::INFINITY);
    }

    #[test]
    fn what_scatters_by_chance_is_one_variance() {
        // Quantiles of chi-squared with 15 degrees of freedom, at 1/10, 3/10, …, divided by 15.
        let (typical, degrees) = Moderation::new(&[0.570, 0.781, 0.956, 1.155, 1.487], 15.0).of(0.5);
        assert!((0.9..1.1).contains(&typical), "{typical}");
        assert_eq!(degrees, 75.0, "not more than there are");
    }

    #[test]
    fn what_differs_stands_for_itself() {
        let moderation = Moderation::new(&[0.01, 1.0, 100.0, 0.1, 10.0], 15.0);
        let (variance, degrees) = moderation.of(100.0);
        assert!((90.0..=100.0).contains(&variance), "{variance}");
        assert!((15.0..17.0).contains(&degrees), "{degrees}");
    }

    #[test]
    fn one_alone_is_taken_as_it_is() {
        assert_eq!(Moderation::new(&[3.0], 15.0).of(3.0), (3.0, 15.0));
        assert_eq!(Moderation::new(&[], 15.0).of(3.0), (3.0, 15.0));
    }
}

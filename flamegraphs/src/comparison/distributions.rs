//! Probabilities that the tests need, exact far into the tails.
//!
//! Sums of discrete probabilities go from the observed value outwards, where the terms fall off: neither end of the
//! range cancels out, and the work is a few standard deviations. Beyond [`LARGEST_SUM`] the normal distribution takes
//! over, which is then as good.

use statrs::function::{beta::beta_reg, erf, gamma::ln_gamma};

/// The variance up to which probabilities are summed: 10,000 is a standard deviation that takes milliseconds.
const LARGEST_SUM: f64 = 1e8;
/// From here on, Student's distribution is the normal one.
const MANY_DEGREES: f64 = 1e6;

/// Probability of `drawn` or more in a hypergeometric draw: of `population` with `marked`, `draws` are taken. The
/// arguments are whole numbers.
pub(super) fn hypergeometric_upper(drawn: f64, population: f64, marked: f64, draws: f64) -> f64 {
    let most = marked.min(draws);
    let least = (marked + draws - population).max(0.0);
    if drawn <= least {
        return 1.0;
    }
    if drawn > most {
        return 0.0;
    }
    let mean = draws * marked / population;
    let variance = mean * (1.0 - marked / population) * (population - draws) / (population - 1.0);
    if variance > LARGEST_SUM {
        return normal_upper((drawn - 0.5 - mean) / variance.sqrt());
    }
    let first = ln_choose(marked, drawn) + ln_choose(population - marked, draws - drawn)
        - ln_choose(population, draws);
    sum(first, drawn, most, |k| {
        (marked - k) * (draws - k) / ((k + 1.0) * (population - marked - draws + k + 1.0))
    })
}

/// Probability of `hits` or more in `trials` of this `probability`. `hits` and `trials` are whole numbers.
pub(super) fn binomial_upper(hits: f64, trials: f64, probability: f64) -> f64 {
    if hits <= 0.0 {
        return 1.0;
    }
    if hits > trials {
        return 0.0;
    }
    let mean = trials * probability;
    let variance = mean * (1.0 - probability);
    if variance > LARGEST_SUM {
        return normal_upper((hits - 0.5 - mean) / variance.sqrt());
    }
    let first = ln_choose(trials, hits) + hits * probability.ln() + (trials - hits) * (-probability).ln_1p();
    let odds = probability / (1.0 - probability);
    sum(first, hits, trials, |k| (trials - k) / (k + 1.0) * odds)
}

/// Sum of probabilities from `from` to `to`, of which the first is given by its logarithm and each further one by
/// its ratio to the one before.
fn sum(first: f64, from: f64, to: f64, ratio: impl Fn(f64) -> f64) -> f64 {
    let (mut term, mut sum, mut k) = (1.0, 1.0, from);
    while k < to {
        term *= ratio(k);
        sum += term;
        k += 1.0;
        if term < sum * f64::EPSILON / 16.0 {
            break;
        }
    }
    (first + sum.ln()).exp().min(1.0)
}

fn ln_choose(of: f64, k: f64) -> f64 {
    ln_gamma(of + 1.0) - ln_gamma(k + 1.0) - ln_gamma(of - k + 1.0)
}

/// Probability that a standard normal value exceeds `z`.
fn normal_upper(z: f64) -> f64 {
    erf::erfc(z / std::f64::consts::SQRT_2) / 2.0
}

/// What a standard normal value exceeds in either direction with this probability.
pub(super) fn normal_two_sided(probability: f64) -> f64 {
    if probability >= 1.0 {
        return 0.0;
    }
    std::f64::consts::SQRT_2 * erf::erfc_inv(probability.max(f64::MIN_POSITIVE))
}

/// Probability that Student's t exceeds `t` in either direction.
pub(super) fn student_beyond(t: f64, degrees: f64) -> f64 {
    if degrees >= MANY_DEGREES {
        return 2.0 * normal_upper(t);
    }
    beta_reg(degrees / 2.0, 0.5, degrees / (degrees + t * t))
}

/// What Student's t exceeds in either direction with this probability.
pub(super) fn student_two_sided(probability: f64, degrees: f64) -> f64 {
    if degrees >= MANY_DEGREES {
        return normal_two_sided(probability);
    }
    // The tail is at least as heavy as the normal one.
    let mut low = normal_two_sided(probability);
    let mut high = low.max(1.0);
    while student_beyond(high, degrees) > probability && high < 1e100 {
        high *= 2.0;
    }
    while high - low > high * 1e-12 {
        let middle = f64::midpoint(low, high);
        if student_beyond(middle, degrees) > probability {
            low = middle
        } else {
            high = middle
        }
        if middle == low && middle == high {
            break;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(actual: f64, expected: f64) -> bool {
        (actual - expected).abs() <= expected.abs() * 1e-9
    }

    /// Published tables.
    #[test]
    fn quantiles() {
        for (probability, degrees, expected) in [
            (0.05, f64::INFINITY, 1.959_963_984_540_054),
            (0.001, f64::INFINITY, 3.290_526_731_491_926),
            (0.05, 1.0, 12.706_204_736_174_7),
            (0.05, 8.0, 2.306_004_135_204_166),
            (0.001, 4.0, 8.610_301_581_379_58),
        ] {
            let actual = student_two_sided(probability, degrees);
            assert!(close(actual, expected), "{probability} {degrees}: {actual}");
        }
        // 1/π · arctan: the distribution with one degree of freedom.
        for t in [0.5_f64, 3.0, 1e6] {
            assert!(close(student_beyond(t, 1.0), 2.0 / std::f64::consts::PI * (1.0 / t).atan()));
        }
        for probability in [1e-300, 1e-30, 1e-5, 0.3, 0.9] {
            let z = normal_two_sided(probability);
            assert!((2.0 * normal_upper(z) / probability - 1.0).abs() < 1e-8, "{probability}");
        }
        assert_eq!(normal_two_sided(1.0), 0.0);
    }

    /// Fisher's tea: 3 or more of 4 by chance 17 times of 70.
    #[test]
    fn tea() {
        assert!(close(hypergeometric_upper(3.0, 8.0, 4.0, 4.0), 17.0 / 70.0));
        assert!(close(hypergeometric_upper(4.0, 8.0, 4.0, 4.0), 1.0 / 70.0));
        assert_eq!(hypergeometric_upper(5.0, 8.0, 4.0, 4.0), 0.0);
        assert_eq!(hypergeometric_upper(0.0, 8.0, 4.0, 4.0), 1.0);
    }

    #[test]
    fn large_sums_meet_the_normal_distribution() {
        // Just below and above the largest variance that is summed.
        let [below, above] = [3.9e8, 4.1e8].map(|trials: f64| {
            binomial_upper((trials / 2.0 + 2.0 * (trials / 4.0).sqrt()).round(), trials, 0.5)
        });
        assert!((below / above - 1.0).abs() < 1e-3, "{below} {above}");
        let [below, above] = [1.59e9, 1.61e9].map(|n: f64| {
            hypergeometric_upper((n / 4.0 + 2.0 * (n / 16.0).sqrt()).round(), n, n / 2.0, n / 2.0)
        });
        assert!((below / above - 1.0).abs() < 1e-3, "{below} {above}");
    }

    proptest! {
        /// Against every outcome counted one by one.
        #[test]
        fn small_draws(population in 1_u32..25, marked in 0_u32..25, draws in 0_u32..25, drawn in 0_u32..26) {
            let (marked, draws) = (marked.min(population), draws.min(population));
            let choose = |n: u32, k: u32| -> f64 {
                if k > n { 0.0 } else { (0..k).fold(1.0, |c, i| c * f64::from(n - i) / f64::from(i + 1)) }
            };
            let expected: f64 = (drawn..=draws)
                .map(|k| choose(marked, k) * choose(population - marked, draws - k) / choose(population, draws))
                .sum();
            let [a, b, c, d] = [drawn, population, marked, draws].map(f64::from);
            let actual = hypergeometric_upper(a, b, c, d);
            prop_assert!((actual - expected).abs() < 1e-9, "{} is not {}", actual, expected);
        }

        #[test]
        fn small_trials(trials in 1_u32..30, hits in 0_u32..31, probability in 0.01_f64..0.99) {
            let choose = |k: u32| (0..k).fold(1.0, |c, i| c * f64::from(trials - i) / f64::from(i + 1));
            let expected: f64 = (hits..=trials)
                .map(|k| choose(k) * probability.powi(k as i32) * (1.0 - probability).powi((trials - k) as i32))
                .sum();
            let actual = binomial_upper(hits.into(), trials.into(), probability);
            prop_assert!((actual - expected).abs() < 1e-9, "{} is not {}", actual, expected);
        }
    }
}

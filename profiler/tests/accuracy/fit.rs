//! Whether counts are what known shares give.

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Samples of each part of a guest, in batches that follow each other in time.
#[derive(Debug, Default)]
pub(crate) struct Batches(pub(crate) Vec<Vec<u64>>);

impl Batches {
    /// Samples of each part over all batches.
    pub(crate) fn sums(&self) -> Vec<u64> {
        let parts = self.0.first().map_or(0, Vec::len);
        (0..parts).map(|part| self.0.iter().map(|batch| batch[part]).sum()).collect()
    }

    /// The first parts alone.
    pub(crate) fn only(&self, parts: usize) -> Self {
        Self(self.0.iter().map(|batch| batch[..parts].to_vec()).collect())
    }

    /// How far the batches are from these shares: 1 if they are independent samples of them, more if they are not.
    pub(crate) fn deviation(&self, shares: &[f64]) -> f64 {
        let statistic: f64 = self.0.iter().map(|batch| pearson(batch, shares)).sum();
        statistic / (self.0.len() * (shares.len() - 1)) as f64
    }

    /// How much more the batches differ from each other than independent samples would: 1 if they are independent,
    /// more if samples that follow each other are alike, less if they are spread more evenly than chance would have it.
    pub(crate) fn dispersion(&self) -> f64 {
        // Their own shares fit the batches better than the true ones would.
        let batches = self.0.len() as f64;
        self.deviation(&shares(&self.sums())) * batches / (batches - 1.0)
    }

    /// How likely it is that samples as independent as these come as far from the true shares, or farther.
    ///
    /// Pearson's statistic, as it is if the samples are no more alike than independent ones, and otherwise divided by
    /// their [`dispersion`](Self::dispersion), so that a sequence of like samples does not count as many.
    pub(crate) fn p_value(&self, truth: &[f64]) -> f64 {
        let statistic = pearson(&self.sums(), truth) / self.dispersion().max(1.0);
        ChiSquared::new((truth.len() - 1) as f64).unwrap().sf(statistic)
    }
}

fn pearson(counts: &[u64], shares: &[f64]) -> f64 {
    let all: u64 = counts.iter().sum();
    let part = |(&count, share): (&u64, &f64)| {
        let expected = share * all as f64;
        (count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(shares).map(part).sum()
}

pub(crate) fn shares(counts: &[u64]) -> Vec<f64> {
    let all: u64 = counts.iter().sum();
    counts.iter().map(|&count| count as f64 / all as f64).collect()
}

/// The largest part of the whole by which the two may differ: half the sum of all differences.
pub(crate) fn total_variation(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).sum::<f64>() / 2.0
}

/// The test itself tells right from wrong. (Counts with known answers: 120 throws of a die.)
#[test]
fn a_die() {
    let fair = [1.0 / 6.0; 6];
    let p_value = |throws: [u64; 6]| ChiSquared::new(5.0).unwrap().sf(pearson(&throws, &fair));
    assert_eq!(p_value([20; 6]), 1.0);
    // (4 + 4 + 1 + 1 + 0 + 0) × 25 / 20 = 12.5, of which the table says 0.0285.
    assert!((p_value([30, 10, 25, 15, 20, 20]) - 0.0285).abs() < 1e-4);
    let alike = Batches(vec![vec![10, 0], vec![0, 10], vec![10, 0], vec![0, 10]]);
    assert!((alike.dispersion() - 40.0 / 3.0).abs() < 1e-9);
    assert_eq!(alike.p_value(&[0.5, 0.5]), 1.0);
}

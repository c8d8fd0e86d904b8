//! How long to wait before something is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often a window is sent again when that may help. The wait doubles from attempt to attempt, and varies by half of it
/// so that a fleet does not come back at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retries {
    /// The first wait. Default: 1 s.
    pub first: Duration,
    /// The longest wait, also if the other side asks for more. Default: 1 min.
    pub longest: Duration,
    /// How many times a window is sent in all, before it is counted as abandoned. Default: 10, within four minutes.
    pub attempts: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60), attempts: 10 }
    }
}

impl Retries {
    /// The wait after so many attempts; `None` after the last one.
    pub(crate) fn wait(&self, attempts: u32, asked: Option<Duration>) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let doubled =
            self.first.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
        // Random, since the keys of each are.
        let part = RandomState::new().hash_one(attempts) as f64 / u64::MAX as f64;
        let varied = doubled.min(self.longest).mul_f64(0.5 + part / 2.0);
        Some(asked.map_or(varied, |asked| asked.min(self.longest).max(varied)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let retries = Retries::default();
        let (mut least, mut sum) = (Duration::ZERO, Duration::ZERO);
        for attempts in 1..10u32 {
            let full = Duration::from_secs(1 << (attempts - 1)).min(retries.longest);
            for _ in 0..100 {
                let wait = retries.wait(attempts, None).unwrap();
                assert!(wait >= full / 2 && wait <= full, "{wait:?} after {attempts}");
            }
            least += full / 2;
            sum += full;
        }
        println!("{least:?} to {sum:?}");
        assert!(least > Duration::from_secs(120) && sum < Duration::from_secs(244));
        assert_eq!(retries.wait(10, None), None);
        let asked = |seconds| retries.wait(1, Some(Duration::from_secs(seconds))).unwrap();
        assert_eq!((asked(7), asked(3_600)), (Duration::from_secs(7), Duration::from_secs(60)));
        let varied: std::collections::HashSet<_> = (0..100).map(|_| retries.wait(1, None)).collect();
        assert!(varied.len() > 50);
    }
}

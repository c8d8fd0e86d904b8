//! When a session ran and when it was paused, and at which rates.

use std::time::{Duration, Instant, SystemTime};

use flamewalk_profile::Metadata;

/// Rates that a profile names when it was changed while sampling; further ones are counted.
const NAMED_RATES: usize = 16;

/// The course of a session so far.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    started: Instant,
    started_at: SystemTime,
    /// Pauses that have ended, together.
    paused: Duration,
    paused_since: Option<Instant>,
    /// In Hz, the first of them.
    rates: Vec<u32>,
    /// The last of them.
    rate: u32,
    rate_changes: u64,
}

impl Timeline {
    /// A session that began at `started`, at `rate` Hz, paused or not.
    pub(crate) fn begin(started: Instant, rate: u32, is_paused: bool) -> Self {
        Self {
            started,
            started_at: SystemTime::now() - started.elapsed(),
            paused: Duration::ZERO,
            paused_since: is_paused.then_some(started),
            rates: vec![rate],
            rate,
            rate_changes: 0,
        }
    }

    /// Goes on as if it had begun at `started`, in the state and at the rate that it has.
    pub(crate) fn begin_anew(&mut self, started: Instant) {
        *self = Self::begin(started, self.rate, self.paused_since.is_some());
    }

    /// Begins a pause, or ends it; nothing, if it is so already.
    pub(crate) fn set_paused(&mut self, is_paused: bool) {
        if is_paused {
            self.paused_since.get_or_insert_with(Instant::now);
        } else {
            self.paused += self.paused_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
    }

    /// Notes the rate from now on, in Hz.
    pub(crate) fn set_rate(&mut self, rate: u32) {
        if self.rate == rate {
            return;
        }
        self.rate = rate;
        self.rate_changes += 1;
        if self.rates.len() < NAMED_RATES {
            self.rates.push(rate);
        }
    }

    /// Writes into a profile's metadata what it has to say of time and rates until `now`.
    pub(crate) fn describe(&self, now: Instant, metadata: &mut Metadata) {
        let duration = now.saturating_duration_since(self.started);
        let ongoing = self.paused_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let paused = self.paused + ongoing;
        metadata.start = Some(self.started_at);
        metadata.duration = Some(duration);
        metadata.paused = (paused > Duration::ZERO).then_some(paused);
        metadata.asked_rate = Some(f64::from(self.rate));
        if self.rate_changes > 0 {
            let rates: Vec<_> = self.rates.iter().map(u32::to_string).collect();
            let unnamed = self.rate_changes + 1 - self.rates.len() as u64;
            let more = if unnamed == 0 {
                String::new()
            } else {
                format!(" and {unnamed} more, lastly {}", self.rate)
            };
            metadata
                .notices
                .push(format!("the rate was changed while sampling: {} Hz{more}", rates.join(", then ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(timeline: &Timeline) -> Metadata {
        let mut metadata = Metadata::default();
        timeline.describe(Instant::now(), &mut metadata);
        metadata
    }

    #[test]
    fn pauses_add_up_and_count_while_they_last() {
        let mut timeline = Timeline::begin(Instant::now(), 997, false);
        assert_eq!(described(&timeline).paused, None);
        let mut before = Duration::ZERO;
        for _ in 0..3 {
            timeline.set_paused(true);
            timeline.set_paused(true);
            let metadata = described(&timeline);
            assert!(metadata.paused.unwrap() > before);
            timeline.set_paused(false);
            timeline.set_paused(false);
            before = described(&timeline).paused.unwrap();
            assert_eq!(described(&timeline).paused, Some(before), "a pause that is over goes on");
        }
        timeline.paused += Duration::from_secs(3600);
        timeline.set_paused(true);
        timeline.begin_anew(Instant::now());
        assert!(timeline.paused_since.is_some());
        timeline.set_paused(false);
        assert!(described(&timeline).paused.unwrap() < Duration::from_secs(3600), "it did not begin anew");
    }

    #[test]
    fn rates_are_told_in_order_and_not_without_end() {
        let mut timeline = Timeline::begin(Instant::now(), 97, false);
        timeline.set_rate(97);
        assert!(described(&timeline).notices.is_empty());
        timeline.set_rate(997);
        timeline.set_rate(97);
        let metadata = described(&timeline);
        assert_eq!(metadata.notices, ["the rate was changed while sampling: 97, then 997, then 97 Hz"]);
        assert_eq!(metadata.asked_rate, Some(97.0));
        (1..=100).for_each(|rate| timeline.set_rate(rate));
        let notice = described(&timeline).notices.remove(0);
        assert!(notice.ends_with("then 13 Hz and 87 more, lastly 100"), "{notice}");
    }
}

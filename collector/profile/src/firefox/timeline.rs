//! When samples happened, as far as slices of time tell, in milliseconds from the start of the profile.

use std::time::Duration;

use crate::{Profile, Sample, Unit};

pub(super) struct Timeline {
    /// Length of a slice.
    slice: Option<f64>,
    /// Of the whole profile.
    pub(super) end: f64,
    /// From one tick to the next.
    pub(super) interval: f64,
}

impl Timeline {
    pub(super) fn of(profile: &Profile) -> Self {
        let metadata = &profile.metadata;
        let slice = metadata.slice.map(milliseconds).filter(|&slice| slice > 0.0);
        let rate = metadata.real_rate.or(metadata.asked_rate).filter(|rate| rate.is_finite() && *rate > 0.0);
        let period = metadata.period.filter(|&period| period > 0 && metadata.event.unit == Unit::Nanoseconds);
        let interval =
            rate.map(|rate| 1e3 / rate).or(period.map(|period| period as f64 / 1e6)).or(slice).unwrap_or(1.0);
        let last = profile.samples().filter_map(|sample| sample.origin.slice).max();
        let sliced = slice.zip(last).map_or(0.0, |(slice, last)| slice * (f64::from(last) + 1.0));
        let duration = metadata.duration.map_or(0.0, milliseconds).max(sliced);
        let end = if duration > 0.0 { duration } else { interval * profile.samples().len().max(1) as f64 };
        Self { slice, end, interval }
    }

    /// The time that a slice covers, or all time if none is known.
    pub(super) fn range(&self, slice: Option<u32>) -> (f64, f64) {
        match self.slice.zip(slice) {
            Some((length, slice)) => (length * f64::from(slice), length * (f64::from(slice) + 1.0)),
            None => (0.0, self.end),
        }
    }

    /// Puts samples in the order of time, and says when each was: evenly over the slice.
    pub(super) fn order(&self, samples: &mut [Sample]) -> Vec<f64> {
        samples.sort_by_key(|sample| sample.origin.slice);
        let mut timed = Vec::with_capacity(samples.len());
        for of_slice in samples.chunk_by(|a, b| a.origin.slice == b.origin.slice) {
            let (start, end) = self.range(of_slice[0].origin.slice);
            let step = (end - start) / of_slice.len() as f64;
            for (index, sample) in of_slice.iter().enumerate() {
                timed.push((start + step * (index as f64 + 0.5), *sample));
            }
        }
        // Samples without a slice fall between the others.
        timed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        for (place, (_, sample)) in samples.iter_mut().zip(&timed) {
            *place = *sample;
        }
        timed.into_iter().map(|(time, _)| time).collect()
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

//! Title and subtitle of a flame graph.

use flamewalk_profile::{EndReason, Metadata, Profile, Tally, Unit, printable};

use crate::amount::{Amount, count, samples, time};

/// Characters of the title that fit the initial width of 1,200 pixels.
const TITLE_WIDTH: usize = 110;
/// The same for the smaller subtitle.
pub(crate) const SUBTITLE_WIDTH: usize = 160;

/// The given title, or the guest, or its command line.
pub(crate) fn title(metadata: &Metadata, given: Option<&str>) -> String {
    let text = match (given, &metadata.guest) {
        (Some(title), _) => title.to_owned(),
        (None, Some(guest)) => guest.clone(),
        (None, None) if !metadata.command.is_empty() => metadata.command.join(" "),
        (None, None) => "Flame graph".to_owned(),
    };
    shorten(&printable(&text), TITLE_WIDTH)
}

/// What was measured and how, in a line: `cpu 1.23 s · 1,234 samples · 997 Hz · perf cpu-clock · ran 1.25 s`.
pub fn summary(profile: &Profile) -> String {
    subtitle(&profile.metadata, profile.total())
}

/// What was measured and how, from what the profile knows, as in
/// `cpu 1.23 s · 1,234 samples · 997 Hz · perf cpu-clock · ran 1.25 s`.
pub(crate) fn subtitle(metadata: &Metadata, total: Tally) -> String {
    let event = &metadata.event;
    let amount = Amount { weight: total.weight, event }.named();
    let mut parts = match event.unit {
        Unit::Nanoseconds => vec![format!("{} {amount}", printable(&event.name))],
        Unit::Events => vec![amount],
    };
    // A profile that was read from a file may not know how many there were.
    if total.samples > 0 {
        parts.push(samples(total.samples));
    }
    let lost = metadata.statistics.total_lost().samples;
    if lost > 0 {
        parts.push(format!("{} lost", count(lost)));
    }
    parts.extend(rate(metadata));
    parts.extend(metadata.engine.as_deref().map(printable));
    parts.extend(metadata.duration.map(|duration| format!("ran {}", time(duration))));
    match &metadata.end {
        None | Some(EndReason::Finished) => {}
        Some(end) => parts.push(printable(&end.to_string())),
    }
    shorten(&parts.join(" · "), SUBTITLE_WIDTH)
}

/// The real rate, with the one that was asked for if it is another; for a counter, its period.
pub(crate) fn rate(metadata: &Metadata) -> Option<String> {
    match (metadata.real_rate, metadata.asked_rate) {
        (Some(real), Some(asked)) if (real - asked).abs() > asked * 0.01 => {
            Some(format!("{} (asked {})", hertz(real), hertz(asked)))
        }
        (Some(rate), _) | (None, Some(rate)) => Some(hertz(rate)),
        (None, None) => {
            let amount = Amount { weight: metadata.period?, event: &metadata.event };
            Some(format!("one sample per {}", amount.named()))
        }
    }
}

fn hertz(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1} Hz") } else { format!("{} Hz", count(rate.round() as u64)) }
}

/// Cuts text in the middle, so that both ends stay: paths differ at their ends, command lines at the start.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let start = (width - 1) / 2;
    let end = width - 1 - start;
    text.chars().take(start).chain(['…']).chain(text.chars().skip(length - end)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flamewalk_profile::Event;

    use super::*;

    #[test]
    fn the_subtitle_says_what_is_known() {
        let mut metadata = Metadata::default();
        let total = Tally { samples: 1_234, weight: 1_234_000_000 };
        assert_eq!(subtitle(&metadata, Tally { samples: 0, weight: 7 }), "weight 7");

        metadata.event = Event::time("cpu");
        metadata.engine = Some("timer CLOCK_THREAD_CPUTIME_ID".into());
        metadata.asked_rate = Some(997.0);
        metadata.real_rate = Some(250.0);
        metadata.duration = Some(Duration::from_millis(1_250));
        metadata.end = Some(EndReason::Trap("unreachable\n<&".into()));
        metadata.statistics.lost.insert("ring full".into(), Tally { samples: 3, weight: 0 });
        let expected = "cpu 1.23 s · 1,234 samples · 3 lost · 250 Hz (asked 997 Hz) · timer CLOCK_THREAD_CPUTIME_ID \
                        · ran 1.25 s · trap: unreachable␊<&";
        assert_eq!(subtitle(&metadata, total), expected);

        metadata.real_rate = Some(996.4);
        metadata.end = Some(EndReason::Finished);
        assert!(subtitle(&metadata, total).contains("· 996 Hz · "));
        assert!(subtitle(&metadata, total).ends_with("ran 1.25 s"));

        metadata.event = Event::count("page-faults");
        (metadata.asked_rate, metadata.real_rate, metadata.period) = (None, None, Some(1_000));
        let text = subtitle(&metadata, total);
        assert!(text.starts_with("1,234,000,000 page-faults · 1,234 samples"), "{text}");
        assert!(text.contains("· one sample per 1,000 page-faults · "), "{text}");
    }

    #[test]
    fn the_title_is_the_best_name_there_is() {
        let mut metadata = Metadata::default();
        assert_eq!(title(&metadata, None), "Flame graph");
        metadata.command = vec!["a.wasm".into(), "-x".into()];
        assert_eq!(title(&metadata, None), "a.wasm -x");
        metadata.guest = Some("a.wasm".into());
        assert_eq!(title(&metadata, None), "a.wasm");
        assert_eq!(title(&metadata, Some("mine")), "mine");
        let long = format!("start{}end", "-".repeat(200));
        let short = title(&metadata, Some(&long));
        assert_eq!(short.chars().count(), TITLE_WIDTH);
        assert!(short.starts_with("start-") && short.contains('…') && short.ends_with("-end"));
    }
}

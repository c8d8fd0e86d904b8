//! A profile divided by where its samples come from: threads, values of a label, modules of the guest.

use std::{cmp::Reverse, collections::HashMap, fmt};

use flamewalk_profile::{Event, FrameKind, Profile, Sample, Tally, printable};

use crate::{
    amount::{Amount, count},
    table::{Table, percent},
};

/// What a profile is divided by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum By {
    /// The thread, by its id and name.
    Thread,
    /// The value of the label with this key.
    Label(String),
    /// The module of the youngest guest frame: what a host call costs counts for its caller.
    Module,
}

/// The parts of a profile, and with it a table as text through [`Display`](fmt::Display).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Breakdown {
    /// The parts, largest first. Their sum is the profile.
    pub parts: Vec<Part>,
    /// What it is divided by.
    pub by: By,
    /// What was measured, and with it the unit of the weights.
    pub event: Event,
    /// Columns of the terminal; longer lines are cut. `None`, the default, cuts nothing.
    pub columns: Option<usize>,
}

/// A part of the profile.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// What its samples have in common; `None` for samples that have no such thing, or do not say.
    pub name: Option<String>,
    /// Its samples.
    pub tally: Tally,
    /// Their weight as a share of the profile's, from 0 to 1.
    pub share: f64,
}

/// Divides `profile`; among parts of one weight, the name decides. Parts without any weight are left out.
pub fn breakdown(profile: &Profile, by: By) -> Breakdown {
    let mut sums: HashMap<Option<String>, Tally> = HashMap::new();
    for sample in profile.samples() {
        let sum = sums.entry(name(profile, &sample, &by)).or_default();
        // Cannot overflow: no part of a profile exceeds its total.
        sum.samples += sample.tally.samples;
        sum.weight += sample.tally.weight;
    }
    sums.retain(|_, tally| tally.weight > 0);
    let share = |tally: Tally| tally.weight as f64 / profile.total().weight as f64;
    let mut parts: Vec<Part> =
        sums.into_iter().map(|(name, tally)| Part { name, tally, share: share(tally) }).collect();
    parts.sort_by(|a, b| {
        Reverse(a.tally.weight).cmp(&Reverse(b.tally.weight)).then_with(|| a.name.cmp(&b.name))
    });
    Breakdown { parts, by, event: profile.metadata.event.clone(), columns: None }
}

fn name(profile: &Profile, sample: &Sample, by: &By) -> Option<String> {
    match by {
        By::Thread => {
            let thread = profile.thread(sample.origin.thread?);
            Some(match &thread.name {
                Some(name) => format!("{} ({})", thread.id, printable(name)),
                None => thread.id.to_string(),
            })
        }
        By::Label(key) => profile.labels(sample.origin.labels).get(key).map(printable),
        By::Module => {
            let frames = profile.stack(sample.stack).frames.iter().map(|&id| profile.frame(id));
            let youngest = frames.rev().find(|frame| frame.kind == FrameKind::Guest)?;
            youngest.module.as_deref().map(printable)
        }
    }
}

impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_head = match &self.by {
            By::Thread => "THREAD".to_owned(),
            By::Label(key) => printable(key),
            By::Module => "MODULE".to_owned(),
        };
        let cells = |part: &Part| {
            let amount = Amount { weight: part.tally.weight, event: &self.event }.to_string();
            [amount, percent(part.share), count(part.tally.samples)]
        };
        let table = Table {
            heads: ["WEIGHT", "SHARE", "SAMPLES"],
            name_head: &name_head,
            rows: self.parts.iter().map(|part| (cells(part), part.name())).collect(),
            columns: self.columns,
        };
        write!(f, "{table}")
    }
}

impl Part {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("(none)")
    }
}

#[cfg(test)]
mod tests {
    use flamewalk_profile::{Frame, Labels, Origin, Thread};

    use super::*;

    fn profile() -> Profile {
        let mut profile = Profile::default();
        profile.metadata.event = Event::time("cpu");
        let main = profile.intern(Frame { module: Some("app".into()), ..Frame::guest("main") });
        let other = profile.intern(Frame { module: Some("library".into()), ..Frame::guest("main") });
        let write = profile.intern(Frame::host_call("env", "write"));
        let worker = Some(profile.intern_thread(Thread { id: 7, name: Some("worker".into()) }));
        let plain = Some(profile.intern_thread(Thread { id: 8, name: None }));
        let labels: Labels = [("tenant", "a")].into_iter().collect();
        let labels = profile.intern_labels(labels);
        let labelled = Origin { labels, ..Origin::default() };
        for (frames, origin, weight) in [
            (&[main][..], Origin { thread: worker, ..labelled }, 1_000),
            (&[main, other, write], Origin { thread: plain, ..labelled }, 5_000),
            (&[main, other], Origin { thread: worker, ..Origin::default() }, 2_000),
            (&[write], Origin::default(), 2_000),
        ] {
            profile.add_from(frames, origin, Tally { samples: 2, weight }).unwrap();
        }
        profile
    }

    fn lines(by: By) -> Vec<String> {
        breakdown(&profile(), by).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_parts_are_the_whole() {
        assert_eq!(
            lines(By::Thread),
            [
                " WEIGHT   SHARE  SAMPLES  THREAD",
                "5.00 µs  50.00%        2  8",
                "3.00 µs  30.00%        4  7 (worker)",
                "2.00 µs  20.00%        2  (none)",
            ]
        );
        assert_eq!(
            lines(By::Label("tenant".into())),
            [
                " WEIGHT   SHARE  SAMPLES  tenant",
                "6.00 µs  60.00%        4  a",
                "4.00 µs  40.00%        4  (none)",
            ]
        );
        assert_eq!(
            lines(By::Module),
            [
                " WEIGHT   SHARE  SAMPLES  MODULE",
                "7.00 µs  70.00%        4  library",
                "2.00 µs  20.00%        2  (none)",
                "1.00 µs  10.00%        2  app",
            ]
        );
        assert_eq!(breakdown(&Profile::default(), By::Module).parts, []);
    }
}

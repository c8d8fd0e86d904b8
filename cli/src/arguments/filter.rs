//! The options that choose a part of a profile, the same for all commands that read one.

use std::time::Duration;

use clap::Args;
use flamewalk_flamegraphs::{Filter, Pattern};

#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct FilterArguments {
    /// Keep the samples of this thread, by its id or name; of any of several
    #[arg(long = "thread", value_name = "THREAD")]
    threads: Vec<String>,

    /// Keep the samples with this label; with one of several values for a key, and one for each key
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Keep the samples from this time on, counted from the start, as in 1.5s or 300ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Duration>,

    /// Keep the samples before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Duration>,

    /// Keep the stacks with a function that this regular expression matches; with several, that each matches
    #[arg(long, value_name = "PATTERN")]
    focus: Vec<Pattern>,

    /// Drop the stacks with a function that this regular expression matches; with several, that any matches
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<Pattern>,

    /// Show a function that calls itself as one frame
    #[arg(long)]
    collapse_recursion: bool,
}

impl FilterArguments {
    pub(crate) fn filter(&self) -> Filter {
        let mut filter = Filter::default();
        filter.threads.clone_from(&self.threads);
        filter.labels.clone_from(&self.labels);
        filter.from = self.from;
        filter.to = self.to;
        filter.focus.clone_from(&self.focus);
        filter.ignore.clone_from(&self.ignore);
        filter.collapse_recursion = self.collapse_recursion;
        filter
    }
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is given as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 5] = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[number.len()..];
    let size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| size);
    let seconds = number.parse::<f64>().ok().zip(size).map(|(number, size)| number * size);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a time is given as a number and ns, us, ms, s or m, as in 1.5s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in
            [("1.5s", 1_500), ("300ms", 300), ("2000us", 2), ("0s", 0), ("2m", 120_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1h", "infs", "nans", "1e300s", "1 s"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}

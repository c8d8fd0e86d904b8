//! What samples the process: the kernel, from outside, or the profiler that the program has inside.
//!
//! Inside is preferred, if the program offers it and no option needs the outside. What keeps it from being used is said,
//! and unless the user insists on it, the process is then sampled from outside.

use std::path::Path;
use std::time::Duration;

use flamewalk::profile::{Profile, Statistics};
use flamewalk_attach::{Attachment, Options};
use flamewalk_flamegraphs::Filter;

use super::inside::Inside;
use crate::arguments::Attach;
use crate::failure::Failure;
use crate::terminal;

pub(crate) enum Attached {
    Outside(Box<Attachment>),
    Inside(Inside),
}

impl Attached {
    /// Begins to sample, and says which way.
    pub(crate) fn start(arguments: &Attach) -> Result<Self, Failure> {
        let say = |sentence: String| {
            if !arguments.quiet {
                terminal::say(sentence);
            }
        };
        let must_be_inside = arguments.inside || !arguments.labels.is_empty();
        let (reason, is_refused) = match arguments.needs_outside() {
            Some(option) => (format!("as {option} needs"), false),
            None => match Inside::start(arguments) {
                Ok(inside) => {
                    say(format!("sampling process {} from inside, at {}", arguments.pid, inside.socket()));
                    return Ok(Self::Inside(inside));
                }
                Err(failure) if must_be_inside => return Err(failure),
                Err(failure) => (failure.to_string(), !matches!(failure, Failure::NotOffered { .. })),
            },
        };
        match Attachment::start(arguments.pid, options(arguments)?) {
            Ok(attachment) => {
                say(format!("sampling process {} from outside: {reason}", arguments.pid));
                Ok(Self::Outside(Box::new(attachment)))
            }
            Err(error) => {
                // Neither way can be gone, and the other may be the one to see to.
                if is_refused {
                    say(reason);
                }
                Err(error.into())
            }
        }
    }

    pub(crate) fn is_inside(&self) -> bool {
        matches!(self, Self::Inside(_))
    }

    /// Whether nothing more will be sampled.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Outside(attachment) => attachment.has_ended(),
            Self::Inside(inside) => inside.has_ended(),
        }
    }

    /// What became of the ticks so far.
    pub(crate) fn statistics(&self) -> Result<Statistics, Failure> {
        match self {
            Self::Outside(attachment) => Ok(attachment.statistics()?),
            Self::Inside(inside) => Ok(inside.statistics()),
        }
    }

    /// What was sampled lately: from this time on, counted from the start, or in the last answer from inside.
    pub(crate) fn recent(&self, from: Duration) -> Result<Profile, Failure> {
        match self {
            Self::Outside(attachment) => {
                let mut filter = Filter::default();
                filter.from = Some(from);
                filter
                    .apply(&attachment.snapshot()?)
                    .map_err(|error| Failure::Live { reason: error.to_string() })
            }
            Self::Inside(inside) => Ok(inside.latest()),
        }
    }

    /// Ends sampling and returns what was sampled.
    pub(crate) fn stop(self) -> Result<Profile, Failure> {
        match self {
            Self::Outside(attachment) => Ok(attachment.stop()?),
            Self::Inside(inside) => Ok(inside.stop()),
        }
    }
}

fn options(arguments: &Attach) -> Result<Options, Failure> {
    let mut options = Options::default();
    options.rate = arguments.rate.unwrap_or(options.rate);
    options.frame_limit = arguments.frame_limit.unwrap_or(options.frame_limit);
    options.host_frames = arguments.host_frames;
    options.stack_bytes = arguments.stack_bytes.unwrap_or(options.stack_bytes);
    options.threads.clone_from(&arguments.threads);
    options.wait_for_guests = arguments.wait;
    options.duration = arguments.duration;
    for path in &arguments.symbols {
        let bytes = std::fs::read(path).map_err(|source| Failure::Read { path: path.into(), source })?;
        let name = path.file_stem().unwrap_or(Path::new("guest").as_os_str()).to_string_lossy();
        options.symbols.push((name.into_owned(), bytes));
    }
    Ok(options)
}

//! `flamewalk attach`: from a running process to its profile.
//!
//! Everything here asks a source of profiles, [`Attachment`], for what was sampled so far and in the end.

mod top;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flamewalk::profile::Profile;
use flamewalk_attach::{Attachment, Options};
use flamewalk_flamegraphs::hottest;

use crate::arguments::Attach;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;
use crate::sources::Sources;
use crate::terminal;

/// How often it is asked whether there is something to do.
const STEP: Duration = Duration::from_millis(20);

/// Profiles the process, and returns the command's exit status.
pub(crate) fn attach(arguments: &Attach) -> Result<u8, Failure> {
    // Before anything else: threads that are started later inherit what is done with signals.
    let stop = Arc::new(AtomicBool::new(false));
    let on_interrupt = Arc::clone(&stop);
    interrupt::on_first_interrupt(move || on_interrupt.store(true, Ordering::Relaxed))
        .map_err(|source| flamewalk::Error::System { action: "wait for Ctrl-C", source })?;

    let options = options(arguments)?;
    let sources = Sources::new(&arguments.outputs.source_directories)?;
    let outputs = Output::open_all(&arguments.outputs.outputs)?;
    let attachment = Arc::new(Attachment::start(arguments.pid, options)?);
    let end = arguments.duration.and_then(|duration| Instant::now().checked_add(duration));
    let is_over = || {
        stop.load(Ordering::Relaxed) || attachment.has_ended() || end.is_some_and(|end| Instant::now() >= end)
    };
    if arguments.live {
        top::show(&attachment, arguments, &is_over)?;
    } else {
        let progress = sampling_progress(&attachment, arguments.quiet);
        while !is_over() {
            std::thread::sleep(STEP);
        }
        drop(progress);
    }
    let attachment = Arc::into_inner(attachment).expect("the progress has let go of it");
    let profile = attachment.stop()?;
    if profile.is_empty() {
        outputs.iter().for_each(Output::discard);
        if !arguments.quiet {
            terminal::report_quality(&profile.metadata);
        }
        return Err(Failure::NoSamples { reason: why_empty(&profile, arguments.pid) });
    }
    // Every output is tried; the first failure is reported.
    let written: Vec<_> = outputs.iter().map(|output| output.write(&profile, &sources)).collect();
    if !arguments.quiet {
        let mut table = hottest(&profile, arguments.rows);
        table.columns = terminal::columns(&std::io::stderr());
        eprint!("{table}");
        terminal::report_quality(&profile.metadata);
        for (output, _) in outputs.iter().zip(&written).filter(|(_, result)| result.is_ok()) {
            eprintln!("flamewalk: wrote {}", output.path().display());
        }
    }
    written.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(0)
}

fn options(arguments: &Attach) -> Result<Options, Failure> {
    let mut options = Options::default();
    options.rate = arguments.rate;
    options.frame_limit = arguments.frame_limit;
    options.host_frames = arguments.host_frames;
    options.stack_bytes = arguments.stack_bytes;
    options.threads.clone_from(&arguments.threads);
    options.wait_for_guests = arguments.wait;
    for path in &arguments.symbols {
        let bytes = std::fs::read(path).map_err(|source| Failure::Read { path: path.into(), source })?;
        let name = path.file_stem().unwrap_or(Path::new("guest").as_os_str()).to_string_lossy();
        options.symbols.push((name.into_owned(), bytes));
    }
    Ok(options)
}

/// Shows how much has been sampled.
fn sampling_progress(attachment: &Arc<Attachment>, quiet: bool) -> Progress {
    let attachment = Arc::downgrade(attachment);
    Progress::start(quiet, move |elapsed| {
        let statistics = attachment.upgrade()?.statistics().ok()?;
        let lost = match statistics.total_lost().samples {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        let seconds = elapsed.as_secs_f64();
        Some(format!("{seconds:.1} s, {} samples of guests{lost}", statistics.delivered.samples))
    })
}

/// Says why there is no sample, and what to do.
fn why_empty(profile: &Profile, pid: i32) -> String {
    let statistics = &profile.metadata.statistics;
    let (ticks, outside) = (statistics.ticks.samples, statistics.outside.samples);
    match statistics.total_lost().samples {
        _ if ticks == 0 => {
            format!("process {pid} took no CPU time meanwhile; sample for longer, or when it has work to do")
        }
        0 => format!(
            "none of the {outside} ticks fell into a guest; sample for longer, or when guests have work to do"
        ),
        lost => format!("of {ticks} ticks, {outside} fell outside of guests and {lost} were lost"),
    }
}

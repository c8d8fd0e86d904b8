//! `flamewalk attach`: from a running process to its profile.
//!
//! Everything here asks a source of profiles, [`Attached`], for what was sampled so far and in the end.

mod attached;
mod inside;
mod top;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flamewalk::profile::Profile;
use flamewalk_flamegraphs::hottest;

use attached::Attached;

use crate::arguments::Attach;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::{Output, Written};
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

    let sources = Sources::new(&arguments.outputs.source_directories)?;
    let outputs = Output::open_all(&arguments.outputs.outputs, arguments.outputs.graph.orientation())?;
    if arguments.live {
        Output::not_standard(&outputs, "the view")?;
    }
    let attached = Arc::new(Attached::start(arguments)?);
    let is_over = || stop.load(Ordering::Relaxed) || attached.has_ended();
    // What was sampled is there and is written, whatever becomes of the view.
    let shown = if arguments.live {
        top::show(&attached, arguments, &is_over)
    } else {
        let progress = sampling_progress(&attached, arguments.quiet);
        while !is_over() {
            std::thread::sleep(STEP);
        }
        drop(progress);
        Ok(())
    };
    let attached = Arc::into_inner(attached).expect("the progress has let go of it");
    let is_inside = attached.is_inside();
    let profile = attached.stop()?;
    if profile.is_empty() {
        if !arguments.quiet {
            terminal::report_quality(&profile.metadata);
        }
        shown?;
        return Err(Failure::NoSamples { reason: why_empty(&profile, arguments, is_inside) });
    }
    let written = Written::profile(&outputs, &profile, &sources);
    if !arguments.quiet {
        let mut table = hottest(&profile, arguments.rows);
        table.columns = terminal::columns(&std::io::stderr());
        terminal::print_to_stderr(table);
        terminal::report_quality(&profile.metadata);
        written.say();
    }
    written.result()?;
    shown.map(|()| 0)
}

/// Shows how much has been sampled.
fn sampling_progress(attached: &Arc<Attached>, quiet: bool) -> Progress {
    let attached = Arc::downgrade(attached);
    Progress::start(quiet, move |elapsed| {
        let statistics = attached.upgrade()?.statistics().ok()?;
        let lost = match statistics.total_lost().samples {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        let seconds = elapsed.as_secs_f64();
        Some(format!("{seconds:.1} s, {} samples of guests{lost}", statistics.delivered.samples))
    })
}

/// Says why there is no sample, and what to do.
fn why_empty(profile: &Profile, arguments: &Attach, is_inside: bool) -> String {
    let pid = arguments.pid;
    let statistics = &profile.metadata.statistics;
    let (ticks, outside) = (statistics.ticks.samples, statistics.outside.samples);
    match statistics.total_lost().samples {
        _ if ticks == 0 && is_inside => {
            let which = if arguments.labels.is_empty() { "" } else { " with these labels" };
            format!(
                "no guest{which} ran in process {pid} meanwhile; sample for longer, or when guests have work to do"
            )
        }
        _ if ticks == 0 => {
            format!("process {pid} took no CPU time meanwhile; sample for longer, or when it has work to do")
        }
        0 => format!(
            "none of the {outside} ticks fell into a guest; sample for longer, or when guests have work to do"
        ),
        lost => format!("of {ticks} ticks, {outside} fell outside of guests and {lost} were lost"),
    }
}

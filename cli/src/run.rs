//! `flamewalk run`: from a guest to its profile.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use flamewalk::profile::{EndReason, Metadata, Profile};
use flamewalk::{Options, Profiler};
use flamewalk_flamegraphs::hottest;

use crate::arguments::Run;
use crate::failure::Failure;
use crate::guest::Loaded;
use crate::interrupt;
use crate::output::{Output, Written};
use crate::progress::Progress;
use crate::sources::Sources;
use crate::terminal;
use crate::wasi;

const TRAPPED: u8 = 134;
const INTERRUPTED: u8 = 130;

/// Runs and profiles the guest, and returns the command's exit status.
pub(crate) fn run(arguments: &Run) -> Result<u8, Failure> {
    let mut options = Options::default();
    options.event = arguments.event;
    options.rate = arguments.rate;
    options.frame_limit = arguments.frame_limit;
    options.host_frames = arguments.host_frames;
    // Before anything else: threads that are started later inherit what is done with signals.
    let to_finish = Arc::new(OnceLock::<Weak<Finish>>::new());
    let on_interrupt = Arc::clone(&to_finish);
    interrupt::on_interrupt(move || match on_interrupt.get().and_then(Weak::upgrade) {
        Some(finish) => finish.finish(EndReason::Interrupted).unwrap_or_else(|failure| failure.report()),
        // The guest has not been loaded yet, or has ended.
        None => INTERRUPTED,
    })
    .map_err(|source| flamewalk::Error::System { action: "wait for Ctrl-C", source })?;

    let profiler = Arc::new(Profiler::new(options)?);
    let sources = Sources::new(&arguments.outputs.source_directories)?;
    let outputs = Output::open_all(&arguments.outputs.outputs, arguments.outputs.graph.orientation())?;
    Output::not_standard(&outputs, "what the guest writes")?;
    let guest = Loaded::load(&arguments.guest, arguments.allow_precompiled)?;
    guest.register(&profiler, arguments.symbols.as_deref())?;

    let progress = sampling_progress(Arc::downgrade(&profiler), arguments.quiet);
    let finish = Arc::new(Finish {
        profiler: Arc::clone(&profiler),
        outputs,
        sources,
        guest: guest.name.clone(),
        command: std::iter::once(guest.name.clone()).chain(arguments.arguments.iter().cloned()).collect(),
        top: arguments.top,
        quiet: arguments.quiet,
        progress: Mutex::new(Some(progress)),
        finished: Mutex::new(false),
    });
    // Set once, here.
    let _ = to_finish.set(Arc::downgrade(&finish));
    match wasi::run(&guest, &profiler, arguments) {
        Ok((end, returned)) => {
            let printed = terminal::print(returned);
            let status = finish.finish(end)?;
            printed.map(|()| status)
        }
        Err(failure) => {
            finish.end_progress();
            Err(failure)
        }
    }
}

/// What is done when the run has ended, by whichever thread sees it end.
struct Finish {
    profiler: Arc<Profiler>,
    outputs: Vec<Output>,
    sources: Sources,
    guest: String,
    command: Vec<String>,
    top: usize,
    quiet: bool,
    progress: Mutex<Option<Progress>>,
    /// Held while the profile is written, so that a guest that ends at the same time as it is interrupted does
    /// not end the process before that.
    finished: Mutex<bool>,
}

impl Finish {
    fn finish(&self, end: EndReason) -> Result<u8, Failure> {
        let status = match &end {
            EndReason::Finished => 0,
            // What a shell would see.
            EndReason::ExitStatus(status) => (status & 0xff) as u8,
            EndReason::Trap(_) => TRAPPED,
            _ => INTERRUPTED,
        };
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *finished, true) {
            return Ok(status);
        }
        self.end_progress();
        let mut metadata = Metadata::default();
        metadata.guest = Some(self.guest.clone());
        metadata.command.clone_from(&self.command);
        if let EndReason::Trap(message) = &end {
            terminal::say(format_args!("the guest trapped: {message}"));
        }
        metadata.end = Some(end);
        let profile = self.profiler.stop(metadata)?;
        if profile.is_empty() {
            self.report_quality(&profile);
            let failure = Failure::NoSamples { reason: why_empty(&profile) };
            if status == 0 {
                return Err(failure);
            }
            // How the guest failed is worth more.
            failure.report();
            return Ok(status);
        }
        let written = Written::profile(&self.outputs, &profile, &self.sources);
        self.report(&profile, &written);
        written.result()?;
        Ok(status)
    }

    fn report(&self, profile: &Profile, written: &Written<'_>) {
        if self.quiet {
            return;
        }
        let mut table = hottest(profile, self.top);
        table.columns = terminal::columns(&std::io::stderr());
        terminal::print_to_stderr(table);
        self.report_quality(profile);
        written.say();
    }

    /// Says what makes the profile poorer than it could be.
    fn report_quality(&self, profile: &Profile) {
        if self.quiet {
            return;
        }
        terminal::report_quality(&profile.metadata);
    }

    fn end_progress(&self) {
        drop(self.progress.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Shows how much has been sampled.
fn sampling_progress(profiler: Weak<Profiler>, quiet: bool) -> Progress {
    Progress::start(quiet, move |elapsed| {
        let statistics = profiler.upgrade()?.statistics().ok()?;
        let lost = match statistics.total_lost().samples {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        Some(format!("{:.1} s, {} samples{lost}", elapsed.as_secs_f64(), statistics.delivered.samples))
    })
}

/// Says why there is no sample, and what to do.
fn why_empty(profile: &Profile) -> String {
    let statistics = &profile.metadata.statistics;
    let event = &profile.metadata.event.name;
    let end = match &profile.metadata.end {
        None | Some(EndReason::Finished) => String::new(),
        Some(end) => format!(" ({end})"),
    };
    let (ticks, outside) = (statistics.ticks.samples, statistics.outside.samples);
    match statistics.total_lost().samples {
        _ if ticks == 0 => format!(
            "the event `{event}` did not occur before the guest ended{end}; choose a higher --freq or another --event, or let the \
             guest run longer"
        ),
        0 => format!(
            "all {outside} ticks of the event `{event}` fell outside the guest, before it started or after it ended{end}; \
             choose a higher --freq, or let the guest run longer"
        ),
        lost => format!("of {ticks} ticks of the event `{event}`, {lost} were lost; choose a lower --freq"),
    }
}

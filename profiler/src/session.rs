//! A session: what samples, from the opening of the first window to the closing of the last.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use flamewalk_collector::{Channel, Collector, Extent, Sampling};
use flamewalk_profile::{Metadata, Profile};
use flamewalk_symbolizer::HostSymbolizer;
use flamewalk_unwinder::{HostCode, HostFrames};

use crate::error::Error;
use crate::event::Event;
use crate::options::Options;
use crate::shared::{Shared, WindowId};
use crate::source::Plan;
use crate::suspended::SuspendedSampler;
use crate::thread::{Armed, Thread};
use crate::timeline::Timeline;

/// Notices that a session keeps at most: as many threads as like can fail to be sampled.
const MAX_NOTICES: usize = 64;

/// What samples, from the opening of the first window to the closing of the last. A clone is the same session, for work
/// on it that takes longer than the lock should.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) plan: Plan,
    /// The host's own code, if its frames are wanted.
    host: Option<Arc<HostCode>>,
    pub(crate) collector: Arc<Collector>,
    /// Samples what runs on no thread, if asked for.
    suspended: Option<Arc<SuspendedSampler>>,
    notices: Vec<String>,
    pub(crate) is_paused: bool,
    pub(crate) windows: BTreeMap<WindowId, Window>,
}

/// What is sampled from its opening to its closing, with a profile of its own. A clone is the same window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) collected: Arc<flamewalk_collector::Window>,
    timeline: Arc<Mutex<Timeline>>,
}

impl Window {
    pub(crate) fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// A session whose threads are not armed yet.
    pub(crate) fn begin(shared: &Shared, rate: u32) -> Result<Self, Error> {
        let options = &shared.options;
        let (plan, mut notices) = Plan::choose(options.event, rate, options.signal)?;
        notices.extend(crate::signal::install(plan.signal)?);
        let host = options.host_frames.then(|| Arc::new(crate::host::loaded_code()));
        let symbols =
            HostSymbolizer::new(host.as_ref().map_or_else(Vec::new, |host| host.objects().to_vec()));
        let (registry, labels) = (Arc::clone(&shared.registry), Arc::clone(&shared.labels));
        let collector = Collector::start(registry, labels, symbols, &options.collector)
            .map_err(|source| Error::System { action: "start the collector thread", source })?;
        let collector = Arc::new(collector);
        let suspended = match (options.suspended, plan.event) {
            (false, _) => None,
            (true, Event::Wall) => {
                let calls = Arc::clone(&shared.host_calls);
                let sampler = SuspendedSampler::start(calls, &collector, options.ring_words, plan.rate);
                sampler.map_err(|error| notices.push(format!("suspended guests are not shown: {error}"))).ok()
            }
            (true, event) => {
                notices.push(format!(
                    "suspended guests are not shown: they take no `{event}`, only `wall` time"
                ));
                None
            }
        };
        let suspended = suspended.map(Arc::new);
        Ok(Self { plan, host, collector, suspended, notices, is_paused: false, windows: BTreeMap::new() })
    }

    /// Opens a window of what is sampled from now on.
    pub(crate) fn open(&self) -> Result<Window, Error> {
        let collected = Arc::new(self.collector.open()?);
        let timeline = Timeline::begin(collected.opened(), self.plan.rate, self.is_paused);
        Ok(Window { collected, timeline: Arc::new(timeline.into()) })
    }

    pub(crate) fn note(&mut self, notice: String) {
        if self.notices.contains(&notice) {
            return;
        }
        match self.notices.len() {
            ..MAX_NOTICES => self.notices.push(notice),
            MAX_NOTICES => self.notices.push("there were further notices, which are left out".to_owned()),
            _ => {}
        }
    }

    pub(crate) fn arm(&mut self, thread: &Thread, options: &Options) {
        let armed = self.plan.arm(thread.id).and_then(|(source, notices)| {
            notices.into_iter().for_each(|notice| self.note(notice));
            let source = Arc::new(source);
            // The source goes when the thread is disarmed; the channel lives until it is drained.
            let vary = Arc::downgrade(&source);
            let on_drain = move || vary.upgrade().iter().for_each(|source| source.vary_period());
            let channel = Arc::new(Channel::new(options.ring_words, thread.id, on_drain));
            let host = self.host.clone().map(|code| UnsafeCell::new(HostFrames::new(code)));
            let armed = Armed { source, channel, frame_limit: options.frame_limit, host };
            armed.expect(&self.plan);
            self.collector.add(Arc::clone(&armed.channel));
            thread.arm(armed, self.is_paused)
        });
        if let Err(error) = armed {
            self.note(format!("thread {} is not sampled: {error}", thread.id));
        }
    }

    /// Ends all ticks. What was sampled is in the rings when this returns.
    pub(crate) fn end(&self, threads: &[Arc<Thread>]) {
        threads.iter().for_each(|thread| thread.disarm());
        self.suspended.iter().for_each(|sampler| sampler.end());
    }

    /// Changes something of the sources of all threads.
    fn change(
        &mut self,
        threads: &[Arc<Thread>],
        change: impl Fn(&crate::source::Source) -> Result<(), Error>,
    ) {
        for thread in threads {
            if let Some(Err(error)) = thread.with_armed(|armed| change(&armed.source)) {
                self.note(format!("thread {} is not sampled as asked: {error}", thread.id));
            }
        }
    }

    pub(crate) fn pause(&mut self, threads: &[Arc<Thread>]) {
        if !std::mem::replace(&mut self.is_paused, true) {
            self.windows.values().for_each(|window| window.timeline().set_paused(true));
            threads.iter().for_each(|thread| _ = thread.with_armed(|armed| armed.source.stop()));
            self.suspended.iter().for_each(|sampler| sampler.pause());
        }
    }

    /// Ends the pause, if there is one.
    pub(crate) fn resume(&mut self, threads: &[Arc<Thread>]) {
        if std::mem::take(&mut self.is_paused) {
            self.windows.values().for_each(|window| window.timeline().set_paused(false));
            self.change(threads, |source| source.start());
            self.suspended.iter().for_each(|sampler| sampler.resume());
        }
    }

    pub(crate) fn set_rate(&mut self, rate: u32, threads: &[Arc<Thread>]) -> Result<(), Error> {
        self.plan = self.plan.at_rate(rate)?;
        // Before there are more ticks.
        threads.iter().for_each(|thread| _ = thread.with_armed(|armed| armed.expect(&self.plan)));
        self.collector.follow_expectations();
        self.windows.values().for_each(|window| window.timeline().set_rate(rate));
        self.change(threads, |source| source.set_rate(rate));
        self.suspended.iter().for_each(|sampler| sampler.set_rate(rate));
        Ok(())
    }

    pub(crate) fn profile(
        &self,
        shared: &Shared,
        window: &Window,
        mut metadata: Metadata,
        sampling: Sampling,
        extent: Extent,
    ) -> Result<Profile, Error> {
        let plan = &self.plan;
        metadata.event = plan.event.of_profile();
        metadata.engine = Some(plan.engine.describe());
        let is_time = metadata.event.unit == flamewalk_profile::Unit::Nanoseconds;
        metadata.period = is_time.then(|| plan.period());
        // Both can be about threads and stores of others.
        let is_of_all = !matches!(extent, Extent::Labelled(_));
        if is_of_all {
            metadata.notices.extend(self.notices.iter().cloned());
        }
        let timeline = Arc::clone(&window.timeline);
        let ended = (sampling == Sampling::Ended).then(Instant::now);
        let begins_anew = extent == Extent::Rest;
        let describe = move |drained: Instant| {
            // What is still going on is sampled until the rings have been drained.
            let mut timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
            timeline.describe(ended.unwrap_or(drained), &mut metadata);
            if begins_anew {
                timeline.begin_anew(drained);
            }
            metadata
        };
        let mut profile = window.collected.snapshot(describe, sampling, extent)??;
        if is_of_all {
            shared.add_to(&mut profile.metadata.statistics)?;
        }
        let ticks = profile.metadata.statistics.ticks;
        // Per second of what is sampled: of CPU time, or of time that passes.
        let Metadata { duration, paused, .. } = profile.metadata;
        let sampled = duration.unwrap_or_default().saturating_sub(paused.unwrap_or_default());
        let seconds = if is_time { ticks.weight as f64 / 1e9 } else { sampled.as_secs_f64() };
        profile.metadata.real_rate = (seconds > 0.0).then(|| ticks.samples as f64 / seconds);
        Ok(profile)
    }
}

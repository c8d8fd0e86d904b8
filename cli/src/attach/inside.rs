//! Sampling by the profiler that the program has inside, through the socket where it offers profiles.
//!
//! A request is for a stretch of time, and its answer is the profile of that. So that nothing is waited for for long, and
//! little is lost if the process ends, a thread asks for one short stretch after the other and merges the answers. Between
//! two stretches nothing is sampled, for as long as it takes to make and send a profile.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flamewalk::profile::{Profile, Statistics, Unit};
use flamewalk_flamegraphs::{MergeError, merge};
use flamewalk_serve::{Ask, FetchError, fetch, offered_by};

use super::STEP;
use crate::arguments::Attach;
use crate::failure::Failure;

/// The first stretch, after which it is known whether this way can be gone.
const FIRST: Duration = Duration::from_millis(500);
/// Further ones. Ctrl-C takes as long.
const STRETCH: Duration = Duration::from_secs(2);
/// The same for a view that changes each second.
const LIVE_STRETCH: Duration = Duration::from_secs(1);
/// How long a profile may take to be made and sent, after it was sampled.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a process may take to end after it has closed its socket.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// A process that is being asked.
pub(crate) struct Inside {
    socket: PathBuf,
    state: Arc<State>,
    /// Asks until it is to stop, there is an error, or the time is up.
    thread: JoinHandle<()>,
}

#[derive(Clone)]
struct Target {
    process: u32,
    socket: PathBuf,
    command: Vec<String>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    collected: Mutex<Collected>,
}

#[derive(Default)]
struct Collected {
    /// All answers, oldest first; without notices. Neighbours are merged as soon as they are of as many answers, so that each
    /// answer is merged as often as their number doubles, and not with each that follows.
    profiles: Vec<Profile>,
    /// Of how many answers each of them is.
    answers: Vec<u64>,
    latest: Profile,
    /// Of all answers, each once, and what went wrong.
    notices: Vec<String>,
}

impl Inside {
    /// Asks for the first stretch.
    pub(crate) fn start(arguments: &Attach) -> Result<Self, Failure> {
        let pid = arguments.pid;
        let process = u32::try_from(pid).unwrap_or_default();
        let socket = offered_by(process).ok_or(Failure::NotOffered { pid })?;
        let target = Target { process, socket, command: command(process) };
        let mut ask = Ask::default();
        ask.rate = arguments.rate;
        if let Some((key, _)) = arguments
            .labels
            .iter()
            .enumerate()
            .find_map(|(index, label)| arguments.labels[..index].iter().find(|(key, _)| *key == label.0))
        {
            return Err(Failure::LabelTwice { key: key.clone() });
        }
        ask.labels = arguments.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        ask.patience = Some(PATIENCE);
        let end = arguments.duration.and_then(|duration| Instant::now().checked_add(duration));
        let first = target.fetch(&mut ask, FIRST.min(arguments.duration.unwrap_or(FIRST)));
        let first = first.map_err(|source| Failure::Inside { pid, source })?;

        let state = Arc::<State>::default();
        state.add(first)?;
        let (shared, asked) = (Arc::clone(&state), target.clone());
        let stretch = if arguments.live { LIVE_STRETCH } else { STRETCH };
        let thread = std::thread::Builder::new()
            .name("inside".into())
            .spawn(move || asked.ask_again_and_again(ask, stretch, end, &shared))
            .map_err(|source| flamewalk::Error::System { action: "start the asking thread", source })?;
        Ok(Self { socket: target.socket, state, thread })
    }

    pub(crate) fn socket(&self) -> impl std::fmt::Display {
        self.socket.display()
    }

    /// Whether there will be no further answer.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What became of the ticks of all answers.
    pub(crate) fn statistics(&self) -> Statistics {
        let of_answers = |profile: &Profile| Profile::new(profile.metadata.clone());
        let without_stacks: Vec<_> = self.state.collected().profiles.iter().map(of_answers).collect();
        merge(&without_stacks).unwrap_or_default().metadata.statistics
    }

    /// The last answer.
    pub(crate) fn latest(&self) -> Profile {
        self.state.collected().latest.clone()
    }

    /// Waits for the answer that is under way, and returns all of them as one profile.
    pub(crate) fn stop(self) -> Profile {
        // Pair: the load in the thread's loop, which orders nothing but itself.
        self.state.stop.store(true, Ordering::Relaxed);
        let panicked = self.thread.join().is_err();
        let mut collected = self.state.collected();
        let mut profile = collected.whole();
        let metadata = &mut profile.metadata;
        metadata.notices.append(&mut collected.notices);
        if panicked {
            metadata
                .notices
                .push("asking has ended early by a panic, which is a bug in flamewalk".to_owned());
        }
        // That of the stretches differs a little.
        let (ticks, seconds) = (metadata.statistics.ticks, metadata.statistics.ticks.weight as f64 / 1e9);
        if metadata.event.unit == Unit::Nanoseconds && seconds > 0.0 {
            metadata.real_rate = Some(ticks.samples as f64 / seconds);
        }
        profile
    }
}

impl Collected {
    /// All answers as one profile.
    fn whole(&self) -> Profile {
        merge(&self.profiles).map(without_notices).unwrap_or_default()
    }
}

/// They are kept apart, since merging adds its own.
fn without_notices(mut profile: Profile) -> Profile {
    profile.metadata.notices.clear();
    profile
}

impl State {
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an answer to the others, unless it is of something else.
    fn add(&self, answer: Profile) -> Result<(), MergeError> {
        let mut collected = self.collected();
        let Collected { profiles, answers, latest, notices } = &mut *collected;
        for notice in &answer.metadata.notices {
            if !notices.contains(notice) {
                notices.push(notice.clone());
            }
        }
        if let Some(first) = profiles.first()
            && first.metadata.event != answer.metadata.event
        {
            return merge(&[first.clone(), answer]).map(drop);
        }
        *latest = answer.clone();
        profiles.push(without_notices(answer));
        answers.push(1);
        while let [.., older, younger] = answers[..]
            && older <= younger
        {
            let pair = profiles.len() - 2;
            let sum = without_notices(merge(&profiles[pair..])?);
            profiles.splice(pair.., [sum]);
            answers.splice(pair.., [older + younger]);
        }
        Ok(())
    }

    fn note(&self, notice: String) {
        self.collected().notices.push(notice);
    }
}

impl Target {
    /// The answer for a stretch of this length.
    fn fetch(&self, ask: &mut Ask, stretch: Duration) -> Result<Profile, FetchError> {
        ask.duration = Some(stretch);
        let mut profile = fetch(&self.socket, self.process, ask)?;
        profile.metadata.command.clone_from(&self.command);
        profile.metadata.guest.get_or_insert_with(|| format!("process {}", self.process));
        Ok(profile)
    }

    /// Asks for one stretch after the other, until the end.
    fn ask_again_and_again(&self, mut ask: Ask, stretch: Duration, end: Option<Instant>, state: &State) {
        // Pair: the store in `Inside::stop`.
        while !state.stop.load(Ordering::Relaxed) {
            let left = end.map_or(stretch, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            let error = match self.fetch(&mut ask, left.min(stretch)) {
                Ok(answer) => match state.add(answer) {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let process = self.process;
            return state.note(match self.ends() {
                true => {
                    format!("process {process} has ended while it was sampled; its last moments are missing")
                }
                false => format!("process {process} was not sampled to the end: {error}"),
            });
        }
    }

    /// Whether the process ends in this moment.
    fn ends(&self) -> bool {
        let limit = Instant::now() + LAST_BREATH;
        loop {
            // After the name, which can hold anything but is the last that does, comes the state.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process));
            let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
            if matches!(state, None | Some('Z' | 'X')) {
                return true;
            }
            if Instant::now() >= limit {
                return false;
            }
            std::thread::sleep(STEP);
        }
    }
}

/// The command line of a process.
fn command(process: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flamewalk::profile::{Event, Frame, Tally};

    /// A program whose profiler began to count something else lost what was collected of it before.
    #[test]
    fn an_answer_that_cannot_be_added_leaves_the_others() {
        let answer = |event| {
            let mut profile = Profile::new(Default::default());
            profile.metadata.event = event;
            let frame = profile.intern(Frame::guest("work"));
            profile.add(&[frame], Tally { samples: 1, weight: 10 }).unwrap();
            profile
        };
        let state = State::default();
        let time = answer(Event::time("cpu"));
        (0..7).for_each(|_| state.add(time.clone()).unwrap());
        assert_eq!(state.collected().answers, [4, 2, 1]);
        let count = Event { name: "faults".into(), unit: Unit::Events };
        let error = state.add(answer(count)).unwrap_err();
        assert!(matches!(error, MergeError::DifferentEvents { .. }), "{error}");
        assert_eq!(state.collected().whole().total(), Tally { samples: 7, weight: 70 });
    }
}

//! A line on the terminal while the guest runs.

use std::io::{IsTerminal, Write};
use std::sync::Weak;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flamewalk::Profiler;

const INTERVAL: Duration = Duration::from_millis(500);

/// Shows the line until it is dropped. Nothing is shown if standard error is not a terminal.
pub(crate) struct Progress {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    pub(crate) fn start(profiler: Weak<Profiler>, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { running: None };
        }
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let Some(statistics) = profiler.upgrade().and_then(|profiler| profiler.statistics().ok())
                else {
                    continue;
                };
                let (seconds, samples) = (started.elapsed().as_secs_f64(), statistics.delivered.samples);
                let lost = match statistics.total_lost().samples {
                    0 => String::new(),
                    lost => format!(", {lost} lost"),
                };
                eprint!("\r\x1b[Kflamewalk: {seconds:.1} s, {samples} samples{lost}");
                // A terminal that is gone needs no progress.
                let _ = std::io::stderr().flush();
            }
            eprint!("\r\x1b[K");
        });
        Self { running: Some((stop, thread)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // It only prints; if that panicked, the line is missing.
            let _ = thread.join();
        }
    }
}

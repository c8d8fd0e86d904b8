//! A line on the terminal while something takes its time.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::terminal;

const INTERVAL: Duration = Duration::from_millis(500);

/// Shows the line until it is dropped. Nothing is shown if standard error is not a terminal, or before half a second
/// has passed.
pub(crate) struct Progress {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Shows what `line` says about the time that has passed, again and again.
    pub(crate) fn start(quiet: bool, line: impl Fn(Duration) -> Option<String> + Send + 'static) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { running: None };
        }
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let Some(line) = line(started.elapsed()) else { continue };
                terminal::print_to_stderr(format_args!("\r\x1b[Kflamewalk: {line}"));
            }
            terminal::print_to_stderr("\r\x1b[K");
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

//! The hottest functions on the terminal, anew each second.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossterm::terminal::{self as screen, ClearType};
use crossterm::{cursor, execute, queue};
use flamewalk::profile::printable;
use flamewalk_flamegraphs::hottest;
use nix::errno::Errno;

use super::attached::Attached;
use crate::arguments::Attach;
use crate::failure::Failure;
use crate::terminal;

const INTERVAL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);
/// Rows of a terminal that does not say how many it has.
const ROWS: usize = 24;

/// The terminal as it is while the view is on it; as it was before afterwards, whatever happens.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        screen::enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), screen::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(io::stdout(), cursor::Show, screen::LeaveAlternateScreen);
        let _ = screen::disable_raw_mode();
    }
}

/// Shows the view until `is_over`, or the user ends it with `q`, Escape or Ctrl-C, or goes away. Where standard output is no
/// terminal, each view is printed behind the one before.
pub(crate) fn show(
    attached: &Attached,
    arguments: &Attach,
    is_over: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let screen = match is_terminal.then(Screen::enter).transpose() {
        Err(source) => return end_by(source),
        Ok(screen) => screen,
    };
    let started = Instant::now();
    let mut next = started + INTERVAL;
    while !is_over() {
        if is_terminal {
            match is_ended_by_user() {
                Ok(false) => {}
                Ok(true) => break,
                Err(source) => return end_by(source),
            }
        } else {
            std::thread::sleep(STEP);
        }
        if Instant::now() < next {
            continue;
        }
        next = (next + INTERVAL).max(Instant::now());
        let text = view(attached, arguments, started.elapsed())?;
        let shown = match &screen {
            Some(_) => draw(&text),
            None => terminal::try_print(format_args!("{text}\n")),
        };
        if let Err(source) = shown {
            return end_by(source);
        }
    }
    Ok(())
}

/// Nobody looking any more, at the end of a pipe or at the terminal, is an end like another.
fn end_by(source: io::Error) -> Result<(), Failure> {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPIPE | Errno::EIO) => Ok(()),
        _ => Err(Failure::Print { source }),
    }
}

/// Whether the user has pressed a key that ends the view, or has gone. Waits for a key for a moment. (`crossterm`, which reads
/// keys as well, reads from a terminal that has hung up again and again, and does not return.)
fn is_ended_by_user() -> io::Result<bool> {
    let stdin = io::stdin();
    if !terminal::wait_for_input(&stdin, STEP)? {
        return Ok(false);
    }
    let mut keys = [0; 64];
    match nix::unistd::read(stdin.as_fd(), &mut keys) {
        Ok(0) => Ok(true),
        Ok(count) => Ok(is_end(&keys[..count])),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a key that ends the view is among those that were pressed: q, Escape or Ctrl-C. Keys such as the arrows are sent as
/// an Escape with something behind: `[`, parameters and a letter; `O` and a letter; or, with Alt, another key.
fn is_end(mut keys: &[u8]) -> bool {
    const ESCAPE: u8 = 0x1b;
    const CONTROL_C: u8 = 0x03;
    loop {
        keys = match keys {
            [] => return false,
            [b'q' | CONTROL_C, ..] | [ESCAPE] => return true,
            [ESCAPE, b'[', rest @ ..] => {
                let is_parameter = |byte: &u8| (0x20..=0x3f).contains(byte);
                let letter = rest.iter().position(|byte| !is_parameter(byte)).unwrap_or(rest.len());
                match &rest[letter..] {
                    [CONTROL_C, ..] => return true,
                    others => others.get(1..).unwrap_or_default(),
                }
            }
            [ESCAPE, b'O', _, rest @ ..] | [_, rest @ ..] => rest,
        }
    }
}

/// What fell on functions since the last view, and what became of all ticks.
fn view(attached: &Attached, arguments: &Attach, elapsed: Duration) -> Result<String, Failure> {
    let statistics = attached.statistics()?;
    let recent = attached.recent(elapsed.saturating_sub(INTERVAL))?;
    let name = printable(recent.metadata.command.first().map_or("", String::as_str)).to_string();
    let head = format!(
        "process {} {name}, {:.0} s: {} samples of guests, {} outside, {} lost (q ends)\n\n",
        arguments.pid,
        elapsed.as_secs_f64(),
        statistics.delivered.samples,
        statistics.outside.samples,
        statistics.total_lost().samples,
    );
    if recent.is_empty() {
        return Ok(head + "no guest in the last second\n");
    }
    let mut table = hottest(&recent, arguments.rows);
    table.columns = terminal::columns(&io::stdout());
    Ok(format!("{head}{table}"))
}

fn draw(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let rows = terminal::rows(&stdout).unwrap_or(ROWS);
    queue!(stdout, cursor::MoveTo(0, 0))?;
    for line in text.lines().take(rows.saturating_sub(1)) {
        queue!(stdout, screen::Clear(ClearType::CurrentLine))?;
        write!(stdout, "{line}\r\n")?;
    }
    queue!(stdout, screen::Clear(ClearType::FromCursorDown))?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::is_end;

    /// Several keys are read as one if they were pressed while the view was made. It once was that what came after an arrow, as
    /// a wheel sends them, was not looked at.
    #[test]
    fn keys_that_end_the_view_do_among_others() {
        for keys in [
            "q",
            "\x03",
            "\x1b",
            "xq",
            "\x1b[A\x03",
            "\x1b[1;5Bq",
            "\x1bOP\x1b",
            "\x1b[\x03",
            "\x1b\x1b",
            "ab\x1b",
        ] {
            assert!(is_end(keys.as_bytes()), "{keys:?}");
        }
        for keys in ["", "x", "\x1b[A", "\x1b[A\x1b[B", "\x1bOP", "\x1b[1;5", "\x1bx", "\x1b["] {
            assert!(!is_end(keys.as_bytes()), "{keys:?}");
        }
    }
}

//! The hottest functions on the terminal, anew each second.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self as screen, ClearType};
use crossterm::{cursor, execute, queue};
use flamewalk::profile::printable;
use flamewalk_flamegraphs::hottest;

use super::attached::Attached;
use crate::arguments::Attach;
use crate::failure::Failure;
use crate::terminal;

const INTERVAL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);

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

/// Shows the view until `is_over`, or the user ends it with `q`, Escape or Ctrl-C. Where standard output is no terminal, each
/// view is printed behind the one before.
pub(crate) fn show(
    attached: &Attached,
    arguments: &Attach,
    is_over: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let print = |source| Failure::Print { source };
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let screen = if is_terminal { Some(Screen::enter().map_err(print)?) } else { None };
    let started = Instant::now();
    let mut next = started + INTERVAL;
    while !is_over() {
        if is_terminal {
            if event::poll(STEP).map_err(print)? && is_end(&event::read().map_err(print)?) {
                break;
            }
        } else {
            std::thread::sleep(STEP);
        }
        if Instant::now() < next {
            continue;
        }
        next = (next + INTERVAL).max(Instant::now());
        let text = view(attached, arguments, started.elapsed())?;
        match &screen {
            Some(_) => draw(&text).map_err(print)?,
            None => terminal::print(format_args!("{text}\n"))?,
        }
    }
    Ok(())
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
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
    let (_, rows) = screen::size()?;
    queue!(stdout, cursor::MoveTo(0, 0))?;
    for line in text.lines().take(usize::from(rows).saturating_sub(1)) {
        queue!(stdout, screen::Clear(ClearType::CurrentLine))?;
        write!(stdout, "{line}\r\n")?;
    }
    queue!(stdout, screen::Clear(ClearType::FromCursorDown))?;
    stdout.flush()
}

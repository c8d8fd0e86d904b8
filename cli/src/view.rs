//! `flamewalk view`: a profile in a browser.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use flamewalk_flamegraphs::report::{ReportOptions, html};

use crate::arguments::View;
use crate::failure::Failure;
use crate::input;
use crate::output::WriteError;
use crate::sources::Sources;
use crate::terminal;

pub(crate) fn view(arguments: &View) -> Result<u8, Failure> {
    let sources = Sources::new(&arguments.source_directories)?;
    let profile = input::read(&arguments.profile, &arguments.filter.filter())?;
    let mut options = ReportOptions::default();
    options.sources = sources.texts(&profile);

    let folder = std::env::temp_dir();
    let failed = |source| Failure::Write { path: folder.clone(), source };
    // Readable by the user alone, and of a name that nobody else can have made.
    let file =
        tempfile::Builder::new().prefix("flamewalk-").suffix(".html").tempfile_in(&folder).map_err(failed)?;
    let mut writer = BufWriter::new(&file);
    html(&profile, &options, &mut writer).map_err(|error| match error.into_io() {
        Ok(source) => failed(source),
        Err(reason) => Failure::Draw { path: file.path().into(), reason },
    })?;
    writer.flush().map_err(failed)?;
    drop(writer);
    let (_, path) = file.keep().map_err(|error| failed(error.error))?;
    if !arguments.no_open {
        open(&path)?;
    }
    terminal::print(format_args!("{}\n", path.display()))?;
    Ok(0)
}

/// Opens a file with `$BROWSER`, a list of commands with colons between them, or else with `xdg-open`.
fn open(path: &Path) -> Result<(), Failure> {
    let browsers = std::env::var("BROWSER").unwrap_or_default();
    let commands: Vec<&str> = browsers.split(':').filter(|command| !command.is_empty()).collect();
    let commands = if commands.is_empty() { vec!["xdg-open"] } else { commands };
    let mut reasons = Vec::new();
    for command in commands {
        let mut words = command.split_whitespace();
        let Some(program) = words.next() else { continue };
        // What the browser prints is nobody's concern here. It is not waited for: it may stay open for hours.
        let started = Command::new(program)
            .args(words)
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(_) => return Ok(()),
            Err(error) => reasons.push(format!("`{program}`: {error}")),
        }
    }
    Err(Failure::Browser { path: path.into(), reason: reasons.join(", ") })
}

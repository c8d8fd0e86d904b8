//! `flamewalk diff`: what changed between two builds, and whether that is reason to fail.

use std::path::PathBuf;

use flamewalk::profile::Profile;
use flamewalk_flamegraphs::comparison::{
    Comparison, ComparisonError, ComparisonOptions, DifferentialOptions, Shape,
};
use flamewalk_flamegraphs::report::{ReportOptions, html_comparison};

use crate::arguments::{Diff, DiffFormat, DiffShape};
use crate::failure::Failure;
use crate::input;
use crate::output::{Output, OutputFormat, Written};
use crate::progress::Progress;
use crate::sources::Sources;
use crate::terminal;

/// The exit status if something rose too much.
const ROSE: u8 = 1;

pub(crate) fn diff(arguments: &Diff) -> Result<u8, Failure> {
    let mut options = ComparisonOptions::default();
    options.work = match *arguments.work {
        [] => None,
        [both] => Some((both, both)),
        [base, new] => Some((base, new)),
        _ => return Err(Failure::Work { given: arguments.work.len() }),
    };
    options.error_rate = arguments.error_rate;
    options.period = arguments.period;
    let sources = Sources::new(&arguments.source_directories)?;
    let outputs = Output::open_all(&arguments.outputs, arguments.graph.orientation())?;
    if let Some(other) = outputs.iter().find(|output| matches!(output.format(), OutputFormat::Profile(_))) {
        return Err(Failure::ComparisonFormat { path: other.path().into() });
    }
    let (base_paths, new_paths) = match &*arguments.profiles {
        [base, new] => (std::slice::from_ref(base), std::slice::from_ref(new)),
        _ => (&*arguments.base, &*arguments.new),
    };
    let (base, new) = (read(arguments, base_paths)?, read(arguments, new_paths)?);
    let progress = Progress::start(false, |_| Some("comparing".to_owned()));
    let comparison = Comparison::new(&base, &new, &options)?;
    drop(progress);
    if !arguments.quiet {
        print(arguments, &comparison)?;
    }
    let written =
        Written::each(&outputs, |output| draw(arguments, output, (&base, &new), &comparison, &sources));
    if !arguments.quiet {
        written.say();
    }
    written.result()?;
    let Some(threshold) = arguments.fail_above else { return Ok(0) };
    let verdict = comparison.fail_above(threshold).map_err(|error| {
        let mut profiles = base_paths.iter().zip(&base).chain(new_paths.iter().zip(&new));
        let unknown =
            profiles.find(|(_, profile)| profile.total().samples == 0 && profile.metadata.period.is_none());
        match (&error, unknown) {
            (ComparisonError::NoiseUnknown, Some((path, _))) => Failure::NoiseUnknown { path: path.clone() },
            _ => error.into(),
        }
    })?;
    if arguments.quiet && !verdict.failed() {
        return Ok(0);
    }
    verdict.to_string().lines().for_each(terminal::say);
    Ok(if verdict.failed() { ROSE } else { 0 })
}

fn read(arguments: &Diff, paths: &[PathBuf]) -> Result<Vec<Profile>, Failure> {
    let filter = arguments.filter.filter();
    paths.iter().map(|path| input::read(path, &filter)).collect()
}

fn draw(
    arguments: &Diff,
    output: &Output,
    (base, new): (&[Profile], &[Profile]),
    comparison: &Comparison,
    sources: &Sources,
) -> Result<(), Failure> {
    if output.format() == OutputFormat::Html {
        let mut options = ReportOptions::default();
        // The sources at hand are those of the new build, if they are of either.
        options.sources = new.iter().chain(base).flat_map(|profile| sources.texts(profile)).collect();
        options.sources.sort();
        options.sources.dedup();
        return output.replace(|writer| html_comparison(base, new, comparison, &options, writer));
    }
    let mut options = DifferentialOptions::default();
    options.shape = match arguments.shape {
        DiffShape::New => Shape::New,
        DiffShape::Base => Shape::Base,
        DiffShape::Vanished => Shape::Vanished,
    };
    options.orientation = arguments.graph.orientation();
    output.replace(|writer| comparison.svg(&options, writer))
}

fn print(arguments: &Diff, comparison: &Comparison) -> Result<(), Failure> {
    match arguments.format {
        DiffFormat::Text => {
            let mut table = comparison.table();
            table.rows = arguments.top;
            table.columns = terminal::columns(&std::io::stdout());
            terminal::print(table)
        }
        DiffFormat::Markdown => {
            let mut markdown = comparison.markdown();
            markdown.rows = arguments.top;
            terminal::print(markdown)
        }
        DiffFormat::Json => {
            let mut json = Vec::new();
            comparison.write_json(&mut json).map_err(Failure::from)?;
            terminal::print(String::from_utf8_lossy(&json))
        }
    }
}

impl From<ComparisonError> for Failure {
    fn from(error: ComparisonError) -> Self {
        Self::Compare { reason: error.to_string() }
    }
}

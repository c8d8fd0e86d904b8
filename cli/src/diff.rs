//! `flamewalk diff`: what changed between two builds, and whether that is reason to fail.

use std::path::PathBuf;

use flamewalk::profile::Profile;
use flamewalk_flamegraphs::comparison::{Comparison, ComparisonError, ComparisonOptions};

use crate::arguments::{Diff, DiffFormat};
use crate::failure::Failure;
use crate::input;
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
    let (base, new) = match &*arguments.profiles {
        [base, new] => (std::slice::from_ref(base), std::slice::from_ref(new)),
        _ => (&*arguments.base, &*arguments.new),
    };
    let (base, new) = (read(arguments, base)?, read(arguments, new)?);
    let comparison = Comparison::new(&base, &new, &options)?;
    print(arguments, &comparison)?;
    let Some(threshold) = arguments.fail_above else { return Ok(0) };
    let verdict = comparison.fail_above(threshold)?;
    verdict.to_string().lines().for_each(|line| eprintln!("flamewalk: {line}"));
    Ok(if verdict.failed() { ROSE } else { 0 })
}

fn read(arguments: &Diff, paths: &[PathBuf]) -> Result<Vec<Profile>, Failure> {
    let filter = arguments.filter.filter();
    paths.iter().map(|path| input::read(path, &filter)).collect()
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

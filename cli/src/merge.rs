//! `flamewalk merge`: several profiles as one.

use crate::arguments::Merge;
use crate::failure::Failure;
use crate::input;
use crate::output::{Output, Written};
use crate::sources::Sources;
use crate::terminal;

pub(crate) fn merge(arguments: &Merge) -> Result<u8, Failure> {
    let outputs = Output::open_all(&arguments.outputs, arguments.graph.orientation())?;
    let filter = arguments.filter.filter();
    let profiles =
        arguments.profiles.iter().map(|path| input::read(path, &filter)).collect::<Result<Vec<_>, _>>()?;
    let merged = flamewalk_flamegraphs::merge(&profiles)?;
    let sources = Sources::new(&[])?;
    let written = Written::profile(&outputs, &merged, &sources);
    if !arguments.quiet {
        terminal::report_quality(&merged.metadata);
        written.say();
    }
    written.result().map(|()| 0)
}

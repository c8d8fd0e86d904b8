//! A profile as a page for the browser: one file that works from a disk, without a network.
//!
//! The page holds the whole profile: every sample with its thread, labels and slice of time. What it shows, it computes
//! itself, so that shares follow the filters: a flame graph with zoom and search, callers and callees of one function,
//! a table, source lines. Weights are exact up to 2⁵³ (a quarter of a year in nanoseconds).

mod calls;
mod columns;
mod comparison;
mod document;
mod functions;
mod page;

use std::io::Write;

use flamewalk_profile::Profile;

use self::{calls::Calls, columns::Columns, document::Document, functions::Functions};
use crate::FlamegraphError;

/// How a report is made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReportOptions {
    /// Title; by default the guest's name or command line.
    pub title: Option<String>,
    /// Source texts by their paths as the frames' locations have them. Those that no frame refers to are left out.
    pub sources: Vec<(String, String)>,
}

/// Writes `profile` as a page. Without any sample, the page shows what is known about the run.
///
/// # Errors
/// [`FlamegraphError::Io`] if `output` fails, or if all names and sources together exceed 4 GiB.
pub fn html(profile: &Profile, options: &ReportOptions, output: impl Write) -> Result<(), FlamegraphError> {
    let functions = Functions::new([profile], |_, function| function);
    let calls = Calls::new(&[profile], &functions);
    let document = Document::new(&[profile], 1, &functions, &calls, options);
    write(document, &calls, output)
}

fn write(mut document: Document, calls: &Calls, output: impl Write) -> Result<(), FlamegraphError> {
    let mut columns = Columns::default();
    calls.write(&mut columns);
    document.columns = columns.index;
    let document = serde_json::to_vec(&document).map_err(std::io::Error::from)?;
    Ok(page::write(&document, &columns.bytes, output)?)
}

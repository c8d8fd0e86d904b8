//! A profile as a page for the browser: one file that works from a disk, without a network.
//!
//! The page holds the whole profile: every sample with its thread, labels and slice of time. What it shows, it computes
//! itself, so that shares follow the filters: a flame graph with zoom and search, callers and callees of one function,
//! a table, source lines. Weights are exact up to 2⁵³ (a quarter of a year in nanoseconds). It needs a browser that can
//! decompress (`DecompressionStream`), as all have been able to since 2023.

mod calls;
mod changes;
mod columns;
mod document;
mod functions;
mod page;

use std::io::Write;

use flamewalk_profile::Profile;

use self::{calls::Calls, changes::Changes, columns::Columns, document::Document, functions::Functions};
use crate::{FlamegraphError, comparison::Comparison};

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
    let profiles = [profile];
    let functions = Functions::new(&profiles, |_, _| None);
    let calls = Calls::new(&profiles, &functions, |_, _| false);
    let document = Document::new(&profiles, 1, &functions, &calls, options);
    write(document, &calls, Columns::default(), output)
}

/// Writes the profiles of two builds as one page, which shows either build, or their difference: what changed beyond
/// noise has a colour, all else is grey. `comparison` is that of `base` and `new`.
///
/// # Errors
/// [`FlamegraphError::Io`] if `output` fails, or if all names and sources together exceed 4 GiB.
///
/// # Panics
/// If `comparison` is that of other profiles.
pub fn html_comparison(
    base: &[Profile],
    new: &[Profile],
    comparison: &Comparison,
    options: &ReportOptions,
    output: impl Write,
) -> Result<(), FlamegraphError> {
    let profiles: Vec<&Profile> = base.iter().chain(new).collect();
    let (functions, calls) = changes::merge(&profiles, base.len(), comparison);
    let mut document = Document::new(&profiles, base.len(), &functions, &calls, options);
    document.title = comparison.title(options.title.as_deref());
    document.changes = Some(Changes::new(comparison, &functions));
    let mut columns = Columns::default();
    columns.push("callHue", changes::hues(comparison, &functions, &calls));
    write(document, &calls, columns, output)
}

fn write(
    mut document: Document,
    calls: &Calls,
    mut columns: Columns,
    output: impl Write,
) -> Result<(), FlamegraphError> {
    calls.write(&mut columns);
    document.columns = columns.index;
    let document = serde_json::to_vec(&document).map_err(std::io::Error::from)?;
    Ok(page::write(&document, &columns.bytes, output)?)
}

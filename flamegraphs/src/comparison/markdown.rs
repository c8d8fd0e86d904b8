//! A comparison as Markdown, for a pull request.

use std::fmt;

use super::{
    Change, Comparison, FunctionChange,
    wording::{ARROW, Wording},
};
use crate::amount::count;

/// A comparison as Markdown, through [`Display`](fmt::Display): a sentence that says what there is to see, tables of
/// the significant changes, and the rest folded away.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Markdown<'c> {
    comparison: &'c Comparison,
    /// The most functions and the most call paths that are listed. 20 by default.
    pub rows: usize,
}

impl Comparison {
    /// The comparison as Markdown, for a pull request.
    pub fn markdown(&self) -> Markdown<'_> {
        Markdown { comparison: self, rows: 20 }
    }
}

impl fmt::Display for Markdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comparison = self.comparison;
        let wording = Wording { comparison };
        let significant: Vec<_> = comparison
            .functions
            .iter()
            .filter(|function| function.is_significant())
            .take(self.rows)
            .collect();
        let quiet = comparison.functions.iter().filter(|function| !function.is_significant()).count();
        let others: Vec<_> = comparison
            .functions
            .iter()
            .filter(|function| !function.is_significant())
            .take(self.rows)
            .collect();
        match comparison.functions.iter().filter(|function| function.is_significant()).count() {
            0 if comparison.is_significant() => {
                writeln!(f, "**No function changed beyond noise, but see below.**\n")?
            }
            0 => {
                let size = wording.detectable().map(|size| format!(" {}.", capitalized(&size)));
                writeln!(f, "**Nothing changed beyond noise.**{}\n", size.unwrap_or_default())?;
            }
            1 => writeln!(f, "**One function changed beyond noise.**\n")?,
            number => writeln!(f, "**{number} functions changed beyond noise.**\n")?,
        }
        if let Some([values, change, interval]) = wording.whole() {
            writeln!(
                f,
                "Per unit of work: {}, **{}** ({}).\n",
                text(&values),
                text(&change),
                text(&interval)
            )?;
        }
        functions(f, wording, &significant)?;
        if !comparison.paths.is_empty() {
            writeln!(f, "| Call path | {} |\n|:---|---:|---:|---:|---:|---:|---:|", heads(wording))?;
            for path in comparison.paths.iter().take(self.rows) {
                let names: Vec<String> = path
                    .functions
                    .chunk_by(|a, b| a == b)
                    .map(|same| {
                        let name = code(&comparison.functions[same[0]].name);
                        if same.len() > 1 { format!("{name} × {}", same.len()) } else { name }
                    })
                    .collect();
                let names = names.join(&format!(" {ARROW} "));
                writeln!(f, "| {names} | {} |", cells(wording, &path.own, &path.total))?;
            }
            writeln!(f)?;
        }
        if !others.is_empty() {
            writeln!(f, "<details><summary>Within noise: {}</summary>\n", functions_named(quiet))?;
            functions(f, wording, &others)?;
            if quiet > others.len() {
                writeln!(f, "… and {} more\n", functions_named(quiet - others.len()))?;
            }
            writeln!(f, "</details>\n")?;
        }
        for line in wording.headline().into_iter().chain(wording.detectable()) {
            writeln!(f, "- {}", text(&line.replace(":  ", ": ")))?;
        }
        for notice in &comparison.notices {
            writeln!(f, "- {}", text(notice))?;
        }
        Ok(())
    }
}

fn functions(f: &mut fmt::Formatter<'_>, wording: Wording<'_>, functions: &[&FunctionChange]) -> fmt::Result {
    if functions.is_empty() {
        return Ok(());
    }
    writeln!(f, "| Function | {} | Matched by |\n|:---|---:|---:|---:|---:|---:|---:|:---|", heads(wording))?;
    for function in functions {
        let cells = cells(wording, &function.own, &function.total);
        let title = match &function.base_name {
            Some(base) if *base != function.name => format!("{} (was {})", code(&function.name), code(base)),
            _ => code(&function.name),
        };
        writeln!(f, "| {title} | {cells} | {} |", wording.matched(function))?;
    }
    writeln!(f)
}

fn heads(wording: Wording<'_>) -> String {
    let heads = [wording.heads("Self"), wording.heads("Total")].concat();
    heads.iter().map(|head| sentence_case(head)).collect::<Vec<_>>().join(" | ")
}

fn cells(wording: Wording<'_>, own: &Change, total: &Change) -> String {
    let cells = [wording.cells(own), wording.cells(total)].concat();
    cells.iter().map(|cell| text(cell)).collect::<Vec<_>>().join(" | ")
}

fn sentence_case(head: &str) -> String {
    capitalized(&head.to_lowercase())
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + chars.as_str()
}

fn functions_named(number: usize) -> String {
    if number == 1 { "one function".to_owned() } else { format!("{} functions", count(number as u64)) }
}

/// Text in which nothing is markup.
fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Numeric, so that neither Markdown nor a mention of a person takes it for its own.
            '*' | '_' | '`' | '|' | '[' | ']' | '\\' | '~' | '#' | '@' | '!' | '$' => {
                escaped.push_str(&format!("&#{};", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// A name as code: a guest chooses it, so that it must not end the code or the cell of the table.
fn code(name: &str) -> String {
    format!("<code>{}</code>", text(name))
}

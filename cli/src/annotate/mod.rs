//! `flamewalk annotate`: a function by source line, by instruction of its bytecode, or by machine instruction.

mod machine;
mod wat;

use std::path::Path;

use flamewalk::profile::{Metadata, Profile, printable};
use flamewalk_flamegraphs::{Annotation, Body, BodyId, Listing, annotate as annotate_function};

use crate::arguments::Annotate;
use crate::failure::Failure;
use crate::input;
use crate::sources::Sources;
use crate::terminal;

pub(crate) fn annotate(arguments: &Annotate) -> Result<u8, Failure> {
    let sources = Sources::new(&arguments.source_directories)?;
    let profile = input::read(&arguments.profile, &arguments.filter.filter())?;
    let annotation = annotate_function(&profile, &arguments.function)?;
    let listings = match &arguments.guest {
        Some(guest) if arguments.wat => of_bodies(&annotation, &mut wat::Bytecode::read(guest)?, &profile)?,
        Some(guest) if arguments.machine => {
            of_bodies(&annotation, &mut machine::MachineCode::read(guest)?, &profile)?
        }
        _ => of_sources(&annotation, &sources, &profile)?,
    };
    let columns = terminal::columns(&std::io::stdout());
    let (own, total) = (annotation.cost.self_weight, annotation.cost.total_weight);
    let share = |weight: u64| 100.0 * weight as f64 / profile.total().weight.max(1) as f64;
    let mut text = format!("{}: self {:.2}%, total {:.2}%\n", annotation.name, share(own), share(total));
    for mut listing in listings {
        listing.columns = columns;
        text += &format!("\n{listing}");
    }
    let no_line = annotation.no_line;
    if !arguments.wat && !arguments.machine && no_line.total_weight > 0 {
        let (own, total) = (share(no_line.self_weight), share(no_line.total_weight));
        text += &format!("\non no known line: self {own:.2}%, total {total:.2}%\n");
    }
    terminal::print(text)?;
    Ok(0)
}

fn of_sources(
    annotation: &Annotation,
    sources: &Sources,
    profile: &Profile,
) -> Result<Vec<Listing>, Failure> {
    if annotation.files.is_empty() {
        return Err(Failure::NoLines { name: annotation.name.clone() });
    }
    let total = profile.total().weight;
    let listings = annotation.files.iter().map(|(path, costs)| {
        Listing::of_source(path, costs, sources.text(path).as_deref(), &profile.metadata, total)
    });
    Ok(listings.collect())
}

/// Code of a guest, in which a function's instructions are found.
trait Code {
    /// Whether the profile kept where in this kind of code its samples are.
    fn is_known(&self, body: &Body) -> bool;

    /// The instructions of the function, with their costs; or why this is not the code that ran.
    fn listing(
        &mut self,
        id: &BodyId,
        body: &Body,
        metadata: &Metadata,
        total: u64,
    ) -> Result<Listing, OtherGuest>;

    fn path(&self) -> &Path;
}

/// How a guest differs from the one that was profiled.
struct OtherGuest(&'static str);

fn of_bodies(
    annotation: &Annotation,
    code: &mut dyn Code,
    profile: &Profile,
) -> Result<Vec<Listing>, Failure> {
    let name = || annotation.name.clone();
    if annotation.bodies.is_empty() {
        let kept = profile.frames().any(|(_, frame)| frame.function_index.is_some());
        return Err(if kept {
            Failure::OnlyInlined { name: name() }
        } else {
            Failure::NoInstructions { name: name() }
        });
    }
    let mut listings = Vec::new();
    let known: Vec<_> = annotation.bodies.iter().filter(|(_, body)| code.is_known(body)).collect();
    for (id, body) in known {
        match code.listing(id, body, &profile.metadata, profile.total().weight) {
            Ok(listing) => listings.push(listing),
            Err(OtherGuest(reason)) => {
                return Err(Failure::OtherGuest { path: code.path().into(), name: name(), reason });
            }
        }
    }
    if listings.is_empty() {
        return Err(Failure::NoInstructions { name: name() });
    }
    Ok(listings)
}

/// What the listing of a function is called.
fn title(id: &BodyId) -> String {
    let module = id.module.as_deref().map(printable).unwrap_or_default();
    format!("{module} function {}", id.function_index).trim_start().to_owned()
}

//! `flamewalk annotate`: a function by source line, by instruction of its bytecode, or by machine instruction.

mod json;
mod machine;
mod wat;

use std::path::Path;

use flamewalk::profile::{Metadata, Profile, printable};
use flamewalk_flamegraphs::{
    Annotation, Body, BodyId, Listing, ListingLine, Subject, annotate as annotate_function,
};

use crate::arguments::{Annotate, ListFormat};
use crate::failure::Failure;
use crate::input;
use crate::progress::Progress;
use crate::sources::Sources;
use crate::terminal;

pub(crate) fn annotate(arguments: &Annotate) -> Result<u8, Failure> {
    let sources = Sources::new(&arguments.source_directories)?;
    let profile = input::read(&arguments.profile, &arguments.filter.filter())?;
    let annotation = annotate_function(&profile, &arguments.function)?;
    let listings = match &arguments.guest {
        Some(guest) if arguments.wat => {
            of_bodies(&annotation, &mut wat::Bytecode::read(guest)?, guest, &profile)?
        }
        Some(guest) if arguments.machine => {
            of_bodies(&annotation, &mut machine::MachineCode::read(guest)?, guest, &profile)?
        }
        _ => of_sources(&annotation, &sources, &profile)?,
    };
    match arguments.format {
        ListFormat::Json => {
            let document = json::document(&profile, &annotation, &listings);
            terminal::print(format_args!("{document:#}\n"))?;
        }
        ListFormat::Text => terminal::print(text(&profile, &annotation, listings))?,
    }
    Ok(0)
}

fn text(profile: &Profile, annotation: &Annotation, listings: Vec<Listing>) -> String {
    let columns = terminal::columns(&std::io::stdout());
    let (own, total) = (annotation.cost.self_weight, annotation.cost.total_weight);
    let share = |weight: u64| 100.0 * weight as f64 / profile.total().weight.max(1) as f64;
    let mut text = format!("{}: self {:.2}%, total {:.2}%\n", annotation.name, share(own), share(total));
    let of_sources = listings.iter().any(|listing| matches!(listing.subject, Subject::File(_)));
    for mut listing in listings {
        listing.columns = columns;
        text += &format!("\n{listing}");
    }
    let no_line = annotation.no_line;
    if of_sources && no_line.total_weight > 0 {
        let (own, total) = (share(no_line.self_weight), share(no_line.total_weight));
        text += &format!("\non no known line: self {own:.2}%, total {total:.2}%\n");
    }
    text
}

fn of_sources(
    annotation: &Annotation,
    sources: &Sources,
    profile: &Profile,
) -> Result<Vec<Listing>, Failure> {
    if annotation.files.is_empty() {
        let (name, reason) = (annotation.name.clone(), why_no_lines(&profile.metadata));
        return Err(Failure::NoLines { name, reason });
    }
    let total = profile.total().weight;
    let listings = annotation.files.iter().map(|(path, costs)| {
        let (file, text) = sources.text(path).map(|found| (found.file, found.text)).unzip();
        let mut listing = Listing::of_source(path, costs, text.as_deref(), &profile.metadata, total);
        listing.text_file =
            file.filter(|file| *file != *path.as_ref()).map(|file| file.display().to_string());
        listing
    });
    Ok(listings.collect())
}

/// What was found wrong with the guests' debug information when the profile was made, if anything was.
fn why_no_lines(metadata: &Metadata) -> String {
    let notices: Vec<_> = metadata
        .notices
        .iter()
        .filter(|notice| notice.contains("DWARF"))
        .map(|notice| printable(notice))
        .collect();
    if notices.is_empty() {
        "the guest has no debug information for it, or the profile's format lost it".to_owned()
    } else {
        notices.join("; ")
    }
}

/// Code of a guest, in which a function's instructions are found.
trait Code {
    /// Whether the profile kept where in this kind of code its samples are.
    fn is_known(&self, body: &Body) -> bool;

    /// The instructions of the function, with their costs; or why this is not the code that ran.
    fn lines(&mut self, id: &BodyId, body: &Body) -> Result<Vec<ListingLine>, OtherGuest>;
}

/// How a guest differs from the one that was profiled.
struct OtherGuest(&'static str);

fn of_bodies(
    annotation: &Annotation,
    code: &mut dyn Code,
    guest: &Path,
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
    let doing = format!("looking for {} in {}", annotation.name, guest.display());
    let _progress = Progress::start(false, move |_| Some(doing.clone()));
    let known: Vec<_> = annotation.bodies.iter().filter(|(_, body)| code.is_known(body)).collect();
    let mut listings = Vec::new();
    for (id, body) in known {
        let lines = code.lines(id, body).map_err(|OtherGuest(reason)| Failure::OtherGuest {
            path: guest.into(),
            name: name(),
            reason,
        })?;
        let subject = Subject::Body(id.clone());
        listings.push(Listing::new(subject, lines, &profile.metadata, profile.total().weight));
    }
    if listings.is_empty() {
        return Err(Failure::NoInstructions { name: name() });
    }
    Ok(listings)
}

//! An annotation as JSON; what its members mean is in the command's help.

use flamewalk::profile::Profile;
use flamewalk_flamegraphs::{Annotation, Cost, Listing, ListingLine, Subject};
use serde_json::{Value, json};

use crate::json;

/// See [`json::about`].
const FORMAT: &str = "flamewalk annotation 1";

pub(super) fn document(profile: &Profile, annotation: &Annotation, listings: &[Listing]) -> Value {
    let whole = profile.total().weight;
    let mut document = json::about(FORMAT, profile);
    document["function"] = annotation.name.as_str().into();
    add(&mut document, annotation.cost, whole);
    document["listings"] = listings.iter().map(|listing| of_listing(listing, whole)).collect();
    if listings.iter().any(|listing| matches!(listing.subject, Subject::File(_))) {
        let mut no_line = json!({});
        add(&mut no_line, annotation.no_line, whole);
        document["no_line"] = no_line;
    }
    document
}

fn of_listing(listing: &Listing, whole: u64) -> Value {
    let (mut document, position) = match &listing.subject {
        Subject::File(path) => (json!({ "file": &**path }), "line"),
        Subject::Body(id) => {
            (json!({ "module": id.module.as_deref(), "function_index": id.function_index }), "offset")
        }
    };
    let line = |line: &ListingLine| {
        let mut document = json!({ position: line.position, "text": line.text });
        add(&mut document, line.cost, whole);
        document
    };
    if let Some(file) = &listing.text_file {
        document["text_file"] = file.as_str().into();
    }
    document["lines"] = listing.lines.iter().flatten().map(line).collect();
    document
}

/// What fell on something, as `report` has it.
fn add(document: &mut Value, cost: Cost, whole: u64) {
    let share = |weight: u64| weight as f64 / whole.max(1) as f64;
    document["self_weight"] = cost.self_weight.into();
    document["self_share"] = share(cost.self_weight).into();
    document["total_weight"] = cost.total_weight.into();
    document["total_share"] = share(cost.total_weight).into();
}

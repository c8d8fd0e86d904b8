//! A comparison as JSON.

use std::io::{BufWriter, Write};

use flamewalk_profile::Event;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Comparison, ComparisonError};

/// Changes whenever a field loses its meaning or its name; fields may be added without a change.
const FORMAT: &str = "flamewalk comparison 1";

#[derive(Serialize)]
struct Document<'c> {
    format: &'static str,
    #[serde(flatten)]
    comparison: &'c Comparison,
}

impl Comparison {
    /// Writes the comparison as one JSON object: the public fields under their names, a function's own change as
    /// `self`, and `format`, which says `flamewalk comparison 1` as long as no field changes its meaning.
    ///
    /// # Errors
    /// [`ComparisonError::Io`] if `output` fails.
    pub fn write_json(&self, output: impl Write) -> Result<(), ComparisonError> {
        let mut output = BufWriter::new(output);
        serde_json::to_writer_pretty(&mut output, &Document { format: FORMAT, comparison: self })
            .map_err(std::io::Error::from)?;
        output.write_all(b"\n")?;
        output.flush()?;
        Ok(())
    }
}

/// An event as `{"name": …, "unit": "nanoseconds" | "events" | "unknown"}`.
pub(super) fn event<S: Serializer>(event: &Event, serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_struct("Event", 2)?;
    object.serialize_field("name", &event.name)?;
    object.serialize_field("unit", event.unit_name())?;
    object.end()
}

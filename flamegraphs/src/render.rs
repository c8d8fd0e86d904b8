//! Completes a flame graph that inferno drew with numbers for names.
//!
//! Goes once through the document and changes four things: the texts of each frame, which become what the number
//! stands for; the height, for one more line at the bottom; that line, the legend; and the style, so that the word that
//! opens the search can be seen. Every text is escaped by the XML writer.
//!
//! ```text
//! <svg height=… viewBox=…>                       + LEGEND_HEIGHT
//!   <rect … fill="url(#background)" height=…/>   + LEGEND_HEIGHT
//!                                                + legend
//!   <svg id="frames">
//!     <g><title>17 (3,000,000 samples, 75.00%)</title><rect … width="75%"/><text …>17</text></g>
//!               ^ name (details)                                                  ^ as much of the name as fits
//! ```

use std::io::{BufWriter, Write};

use inferno::flamegraph::color::Color;
use quick_xml::{
    Reader, Writer,
    events::{BytesStart, BytesText, Event},
};

use crate::FlamegraphError;

pub(crate) const FONT_SIZE: usize = 12;
/// Width of a character of the monospaced font, as a share of its size.
pub(crate) const FONT_WIDTH: f64 = 0.59;

/// Width that a graph has before its script fits it to the window, as inferno lays it out.
const IMAGE_WIDTH: f64 = 1200.0;
/// Inferno shows the word at a tenth of its colour, until the pointer finds it.
const VISIBLE_SEARCH: &str = "#search { opacity:0.7; }\n";
const LEGEND_HEIGHT: usize = 20;
const MARGIN: usize = 10;

/// The texts of one frame.
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) details: String,
}

/// A colour and what it means.
pub(crate) struct LegendEntry {
    pub(crate) color: Color,
    pub(crate) text: &'static str,
}

/// Writes `graph` with the texts that `label` gives for each number, and for no number the frame below all others.
pub(crate) fn complete(
    graph: &[u8],
    legend: &[LegendEntry],
    label: impl Fn(Option<usize>) -> Option<Label>,
    output: impl Write,
) -> Result<(), FlamegraphError> {
    let mut reader = Reader::from_reader(graph);
    let mut writer = Writer::new(BufWriter::new(output));
    let mut height = None;
    loop {
        match (reader.read_event()?, height) {
            (Event::Eof, _) => break,
            (Event::Start(root), None) => {
                let grown = parse(&root, "height", str::parse::<usize>)? + LEGEND_HEIGHT;
                height = Some(grown);
                writer.write_event(Event::Start(with_height(&root, grown)?))?;
            }
            (Event::Start(container), Some(height)) if container.name().as_ref() == b"svg" => {
                write_legend(&mut writer, height, legend)?;
                writer.write_event(Event::Start(container))?;
                frames(&mut reader, &mut writer, &label)?;
            }
            (Event::Empty(rect), Some(height)) if attribute(&rect, "fill")? == "url(#background)" => {
                writer.write_event(Event::Empty(with_height(&rect, height)?))?;
            }
            (Event::End(style), _) if style.name().as_ref() == b"style" => {
                writer.write_event(Event::Text(BytesText::new(VISIBLE_SEARCH)))?;
                writer.write_event(Event::End(style))?;
            }
            (event, _) => writer.write_event(event)?,
        }
    }
    writer.into_inner().flush()?;
    Ok(())
}

/// The root or the background with another height.
fn with_height(element: &BytesStart<'_>, height: usize) -> Result<BytesStart<'static>, FlamegraphError> {
    let name = String::from_utf8_lossy(element.name().as_ref()).into_owned();
    let mut changed = BytesStart::new(name);
    for attribute in element.attributes() {
        let attribute = attribute.map_err(quick_xml::Error::from)?;
        match attribute.key.as_ref() {
            b"height" => changed.push_attribute(("height", height.to_string().as_str())),
            b"viewBox" => changed.push_attribute(("viewBox", format!("0 0 {IMAGE_WIDTH} {height}").as_str())),
            _ => changed.push_attribute(attribute),
        }
    }
    Ok(changed)
}

/// Writes the legend into the last line of an image of this height.
fn write_legend<W: Write>(
    writer: &mut Writer<W>,
    height: usize,
    legend: &[LegendEntry],
) -> Result<(), FlamegraphError> {
    let baseline = height - MARGIN;
    let mut x = MARGIN as f64;
    for LegendEntry { color, text } in legend {
        let swatch = BytesStart::new("rect").with_attributes([
            ("x", x.to_string().as_str()),
            ("y", (baseline + 2 - FONT_SIZE).to_string().as_str()),
            ("width", FONT_SIZE.to_string().as_str()),
            ("height", FONT_SIZE.to_string().as_str()),
            ("fill", format!("rgb({},{},{})", color.r, color.g, color.b).as_str()),
        ]);
        writer.write_event(Event::Empty(swatch))?;
        x += 1.5 * FONT_SIZE as f64;
        let start = BytesStart::new("text")
            .with_attributes([("x", x.to_string().as_str()), ("y", baseline.to_string().as_str())]);
        write_element(writer, start, text)?;
        x += (text.len() + 3) as f64 * FONT_SIZE as f64 * FONT_WIDTH;
    }
    Ok(())
}

/// Copies the frames up to their end, with their texts exchanged.
fn frames<W: Write>(
    reader: &mut Reader<&[u8]>,
    writer: &mut Writer<W>,
    label: impl Fn(Option<usize>) -> Option<Label>,
) -> Result<(), FlamegraphError> {
    let mut current = Label { name: String::new(), details: String::new() };
    let mut width = 0.0;
    loop {
        match reader.read_event()? {
            Event::Start(title) if title.name().as_ref() == b"title" => {
                let text =
                    reader.read_text(title.name())?.decode().map_err(quick_xml::Error::from)?.into_owned();
                current = number(&text).and_then(&label).ok_or(FlamegraphError::UnexpectedGraph { text })?;
                // The script takes a last pair of parentheses without another inside for the details.
                let details = current.details.replace('(', "[").replace(')', "]");
                write_element(writer, title, &format!("{} ({details})", current.name))?;
            }
            Event::Empty(rect) => {
                width = parse(&rect, "width", |text| text.trim_end_matches('%').parse::<f64>())?;
                writer.write_event(Event::Empty(rect))?;
            }
            Event::Start(text) if text.name().as_ref() == b"text" => {
                reader.read_to_end(text.name())?;
                let room = IMAGE_WIDTH * width / 100.0 / (FONT_SIZE as f64 * FONT_WIDTH);
                write_element(writer, text, &cut(&current.name, room as usize))?;
            }
            Event::End(end) if end.name().as_ref() == b"svg" => {
                return Ok(writer.write_event(Event::End(end))?);
            }
            Event::Eof => return Err(FlamegraphError::UnexpectedGraph { text: String::new() }),
            event => writer.write_event(event)?,
        }
    }
}

/// The number at the start of a frame's title, or an inner `None` for the frame below all others.
fn number(title: &str) -> Option<Option<usize>> {
    match title.split_once(' ')?.0 {
        "all" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// As much of a name as fits, with two dots for the rest as the graph's script does it when it is resized.
fn cut(name: &str, room: usize) -> String {
    if room < 3 {
        String::new()
    } else if name.chars().count() < room {
        name.to_owned()
    } else {
        name.chars().take(room - 2).chain("..".chars()).collect()
    }
}

fn write_element<W: Write>(
    writer: &mut Writer<W>,
    start: BytesStart<'_>,
    text: &str,
) -> Result<(), FlamegraphError> {
    let end = start.to_end().into_owned();
    writer.write_event(Event::Start(start))?;
    writer.write_event(Event::Text(BytesText::new(text)))?;
    writer.write_event(Event::End(end))?;
    Ok(())
}

/// The value of an attribute, empty if there is none.
fn attribute(element: &BytesStart<'_>, name: &str) -> Result<String, FlamegraphError> {
    let attribute = element.try_get_attribute(name).map_err(quick_xml::Error::from)?;
    Ok(attribute.map(|attribute| String::from_utf8_lossy(&attribute.value).into_owned()).unwrap_or_default())
}

fn parse<T, E>(
    element: &BytesStart<'_>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, FlamegraphError> {
    let text = attribute(element, name)?;
    parse(&text).map_err(|_| FlamegraphError::UnexpectedGraph { text })
}

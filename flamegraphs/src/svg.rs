//! A profile as a flame graph in SVG: oldest frames at the bottom, or at the top of an icicle graph.
//!
//! inferno lays the graph out and makes it interactive. It knows a frame by its name only, which is not enough for
//! colours by kind or for source lines, so it draws the frames under their numbers and [`render`](crate::render)
//! puts in what each shows. The output depends on the profile alone.

use std::io::Write;

use flamewalk_profile::{Names, Profile, printable};
use inferno::flamegraph::{
    self, Direction, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap},
};

use crate::{
    FlamegraphError,
    amount::{Amount, count, samples},
    category::Category,
    headline,
    render::{self, Label, LegendEntry},
    tree::{Lines, Tree},
};

/// The narrowest frame that is drawn, as a share of the graph: a tenth of a pixel. It bounds the size of the file.
pub(crate) const MIN_SHARE: f64 = 0.0001;
/// The frame below all others.
pub(crate) const ALL: Color = Color { r: 232, g: 232, b: 232 };
const BACKGROUND: Color = Color { r: 250, g: 250, b: 248 };

/// Which way stacks grow.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Orientation {
    /// A flame graph: callers below what they call.
    #[default]
    Flames,
    /// An icicle graph: callers above what they call.
    Icicles,
}

/// How a flame graph is drawn.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Title; by default the guest's name or command line.
    pub title: Option<String>,
    /// Which way stacks grow.
    pub orientation: Orientation,
}

/// Writes `profile` as a flame graph in SVG. Widths are weights. A frame's text for the pointer, which is also what
/// the search in the graph looks through, gives weight, share, samples and the hottest source line.
///
/// Frames narrower than 0.01 % of the graph are left out.
///
/// # Errors
/// [`FlamegraphError::NoSamples`] if there is nothing to draw, before anything is written;
/// [`FlamegraphError::Io`] if `output` fails.
pub fn svg(profile: &Profile, options: &Options, output: impl Write) -> Result<(), FlamegraphError> {
    let names = Names::new(profile);
    let tree = Tree::new(profile, &names, MIN_SHARE);
    if tree.total.weight == 0 {
        let statistics = &profile.metadata.statistics;
        return Err(FlamegraphError::NoSamples {
            ticks: statistics.ticks.samples,
            outside: statistics.outside.samples,
            lost: statistics.total_lost().samples,
        });
    }
    let graph = draw(profile, &tree, &names, options)?;
    let label = |node: Option<usize>| label(profile, &tree, &names, node);
    render::complete(&graph, &legend(&tree), label, output)
}

/// The flame graph with numbers for names.
fn draw(
    profile: &Profile,
    tree: &Tree,
    names: &Names,
    options: &Options,
) -> Result<Vec<u8>, FlamegraphError> {
    let mut colors = PaletteMap::default();
    colors.insert("", ALL);
    for (index, node) in tree.nodes.iter().enumerate() {
        colors.insert(index, node.category.color_of(names.text(node.name)));
    }
    let title = headline::title(&profile.metadata, options.title.as_deref());
    let subtitle = headline::subtitle(&profile.metadata, tree.total);
    lay_out(&tree.folded, &mut colors, title, subtitle, options.orientation)
}

/// A graph of folded lines in the order of the tree, with numbers for names and a colour for each number.
pub(crate) fn lay_out(
    folded: &[String],
    colors: &mut PaletteMap,
    title: String,
    subtitle: String,
    orientation: Orientation,
) -> Result<Vec<u8>, FlamegraphError> {
    let mut drawing = flamegraph::Options::default();
    drawing.direction = match orientation {
        Orientation::Flames => Direction::Straight,
        Orientation::Icicles => Direction::Inverted,
    };
    drawing.title = title;
    drawing.subtitle = Some(subtitle);
    drawing.bgcolors = Some(BackgroundColor::Flat(BACKGROUND));
    drawing.palette_map = Some(colors);
    drawing.font_size = render::FONT_SIZE;
    drawing.font_width = render::FONT_WIDTH;
    drawing.image_width = None;
    // The start of a name says more than the end of its arguments.
    drawing.text_truncate_direction = TextTruncateDirection::Right;
    // The tree has already left out what is too narrow.
    drawing.min_width = 0.0;
    // A flame chart takes the lines in the opposite of the given order, where all others are sorted by their bytes.
    // Those sort `a;x` behind `a-b` and thus draw the frame `a` twice.
    drawing.flame_chart = true;
    let mut graph = Vec::new();
    flamegraph::from_lines(&mut drawing, folded.iter().rev().map(String::as_str), &mut graph)?;
    Ok(graph)
}

/// The categories that occur.
fn legend(tree: &Tree) -> Vec<LegendEntry> {
    let mut categories: Vec<Category> = tree.nodes.iter().map(|node| node.category).collect();
    categories.sort_unstable();
    categories.dedup();
    categories
        .into_iter()
        .map(|category| LegendEntry { color: category.color(), text: category.label() })
        .collect()
}

/// What a node shows; without a node, the frame below all others.
fn label(profile: &Profile, tree: &Tree, names: &Names, node: Option<usize>) -> Option<Label> {
    let (name, total, lines) = match node {
        None => ("all", tree.total, None),
        Some(index) => {
            let node = tree.nodes.get(index)?;
            (names.text(node.name), node.total, node.lines.as_ref())
        }
    };
    let amount = Amount { weight: total.weight, event: &profile.metadata.event }.named();
    let mut details = format!("{amount}, {:.2}%", 100.0 * total.weight as f64 / tree.total.weight as f64);
    if total.samples > 0 && profile.metadata.event.name != "samples" {
        details += &format!(", {}", samples(total.samples));
    }
    if let Some(lines) = lines {
        details += &format!(", {}", location(lines));
    }
    Some(Label { name: name.to_owned(), details })
}

fn location(lines: &Lines) -> String {
    let mut text = format!("{}:{}", printable(&lines.hottest_file), lines.hottest_line);
    match lines.others {
        0 => {}
        1 => text += " and 1 more line",
        others => text += &format!(" and {} more lines", count(others as u64)),
    }
    text
}

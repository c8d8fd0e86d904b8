//! A comparison as a differential flame graph in SVG.
//!
//! Widths are those of one side; colours say what changed beyond noise. What is within noise is grey, however large
//! the difference is.

use std::io::Write;

use flamewalk_profile::Metadata;
use inferno::flamegraph::color::{Color, PaletteMap};

use super::{Call, Change, Comparison, Cost, FunctionChange, wording::Wording};
use crate::{
    FlamegraphError,
    category::{mix, position_of},
    headline::{self, SUBTITLE_WIDTH},
    render::{self, Label, LegendEntry},
    svg::{ALL, MIN_SHARE, Orientation, lay_out},
};

/// Which call paths a differential flame graph shows, and how wide.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// Those of the new build, by their weight there.
    #[default]
    New,
    /// Those of the base, by their weight there.
    Base,
    /// Those of the base that are not in the new build, by their weight in the base, on top of their callers.
    Vanished,
}

/// How a differential flame graph is drawn.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DifferentialOptions {
    /// Title; by default the guests' names.
    pub title: Option<String>,
    /// Which call paths it shows.
    pub shape: Shape,
    /// Which way stacks grow.
    pub orientation: Orientation,
}

/// What a frame's colour says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Hue {
    Costlier,
    CostlierFunction,
    Cheaper,
    CheaperFunction,
    Noise,
}

impl Hue {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 5] =
        [Self::Costlier, Self::CostlierFunction, Self::Cheaper, Self::CheaperFunction, Self::Noise];

    /// Of a call path and its function.
    pub(crate) fn of(call: &Call, function: &FunctionChange) -> Self {
        match costlier([&call.own, &call.total]) {
            Some(true) => Self::Costlier,
            Some(false) => Self::Cheaper,
            None => Self::of_function(function),
        }
    }

    /// Of a function, whoever calls it.
    pub(crate) fn of_function(function: &FunctionChange) -> Self {
        match costlier([&function.own, &function.total]) {
            Some(true) => Self::CostlierFunction,
            Some(false) => Self::CheaperFunction,
            None => Self::Noise,
        }
    }

    /// The ends of its shades.
    pub(crate) fn shades(self) -> [[u8; 3]; 2] {
        match self {
            Self::Costlier => [[222, 84, 68], [240, 118, 96]],
            Self::CostlierFunction => [[247, 190, 178], [250, 208, 198]],
            Self::Cheaper => [[82, 142, 214], [118, 170, 230]],
            Self::CheaperFunction => [[182, 208, 240], [200, 220, 245]],
            Self::Noise => [[204, 204, 204], [224, 224, 224]],
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Costlier => "this call path became costlier",
            Self::CostlierFunction => "its function became costlier, over all callers",
            Self::Cheaper => "this call path became cheaper",
            Self::CheaperFunction => "its function became cheaper, over all callers",
            Self::Noise => "within noise",
        }
    }
}

/// Whether self and total cost more or less, if that is significant. The total goes first.
fn costlier([own, total]: [&Change; 2]) -> Option<bool> {
    let significant = [total, own].into_iter().map(Change::leading).find(|difference| difference.significant);
    significant.map(|difference| difference.estimate > 0.0)
}

/// The call paths of a shape as a tree.
struct Frames {
    /// By call path; those without weight are not drawn.
    weights: Vec<u64>,
    called: Vec<Vec<usize>>,
    roots: Vec<usize>,
    total: u64,
}

impl Frames {
    fn new(comparison: &Comparison, shape: Shape) -> Self {
        let calls = &comparison.calls;
        let mut weights: Vec<u64> = calls
            .iter()
            .map(|call| match shape {
                Shape::New => call.total.new.weight,
                Shape::Base => call.total.base.weight,
                Shape::Vanished if call.total.new.weight == 0 => call.total.base.weight,
                Shape::Vanished => 0,
            })
            .collect();
        if shape == Shape::Vanished {
            // What is left of a path that did not vanish is what is called from it. Callers come first.
            for index in (0..calls.len()).rev() {
                if let Some(caller) = calls[index].caller
                    && calls[caller].total.new.weight > 0
                {
                    weights[caller] = weights[caller].saturating_add(weights[index]);
                }
            }
        }
        let is_root = |index: &usize| calls[*index].caller.is_none();
        let total =
            (0..calls.len()).filter(is_root).fold(0_u64, |sum, root| sum.saturating_add(weights[root]));
        let narrowest = total as f64 * MIN_SHARE;
        let mut drawn: Vec<usize> = (0..calls.len())
            .filter(|&index| weights[index] > 0 && weights[index] as f64 >= narrowest)
            .collect();
        drawn.sort_by_key(|&index| &comparison.functions[calls[index].function].name);
        let mut called = vec![Vec::new(); calls.len()];
        let mut roots = Vec::new();
        for index in drawn {
            match calls[index].caller {
                Some(caller) => called[caller].push(index),
                None => roots.push(index),
            }
        }
        Self { weights, called, roots, total }
    }

    /// The tree as folded lines in its order, with the number of a call path as its name.
    fn folded(&self) -> Vec<String> {
        let mut folded = Vec::new();
        let mut path = String::new();
        let mut pending: Vec<(usize, usize)> = self.roots.iter().rev().map(|&root| (root, 0)).collect();
        while let Some((index, length)) = pending.pop() {
            path.truncate(length);
            if length > 0 {
                path.push(';');
            }
            path.push_str(&index.to_string());
            let called = &self.called[index];
            let above = called.iter().fold(0_u64, |sum, &index| sum.saturating_add(self.weights[index]));
            let own = self.weights[index].saturating_sub(above);
            if own > 0 {
                folded.push(format!("{path} {own}"));
            }
            pending.extend(called.iter().rev().map(|&index| (index, path.len())));
        }
        folded
    }
}

impl Comparison {
    /// Writes the comparison as a flame graph in SVG. A frame's text for the pointer, which is also what the search
    /// in the graph looks through, gives what it was and is, the difference and its interval.
    ///
    /// Frames narrower than 0.01 % of the graph are left out.
    ///
    /// # Errors
    /// [`FlamegraphError::NothingVanished`] for [`Shape::Vanished`] if nothing did, before anything is written;
    /// [`FlamegraphError::Io`] if `output` fails.
    pub fn svg(&self, options: &DifferentialOptions, output: impl Write) -> Result<(), FlamegraphError> {
        let frames = Frames::new(self, options.shape);
        if frames.total == 0 {
            return Err(FlamegraphError::NothingVanished);
        }
        let hues: Vec<Hue> =
            self.calls.iter().map(|call| Hue::of(call, &self.functions[call.function])).collect();
        let mut colors = PaletteMap::default();
        colors.insert("", ALL);
        for (index, (call, hue)) in self.calls.iter().zip(&hues).enumerate() {
            colors.insert(index, mix(hue.shades(), position_of(&self.functions[call.function].name)));
        }
        let graph = lay_out(
            &frames.folded(),
            &mut colors,
            self.title(options.title.as_deref()),
            self.subtitle(options.shape),
            options.orientation,
        )?;
        render::complete(&graph, &legend(&hues), |index| self.label(&frames, index), output)
    }

    /// The given title, or the guests' names.
    pub(crate) fn title(&self, given: Option<&str>) -> String {
        let given = given.map(str::to_owned).unwrap_or_else(|| match (&self.base.guest, &self.new.guest) {
            (Some(base), Some(new)) if base != new => format!("{base} → {new}"),
            (_, Some(guest)) | (Some(guest), None) => guest.clone(),
            (None, None) => "Comparison".to_owned(),
        });
        headline::title(&Metadata::default(), Some(&given))
    }

    fn subtitle(&self, shape: Shape) -> String {
        let shown = match shape {
            Shape::New => "widths of the new build",
            Shape::Base => "widths of the base",
            Shape::Vanished => "what vanished, widths of the base",
        };
        let [base, new, _] = Wording { comparison: self }.headline();
        headline::shorten(&format!("{shown} · {base} · {new}"), SUBTITLE_WIDTH)
    }

    /// What a call path shows; without one, the frame below all others.
    fn label(&self, frames: &Frames, index: Option<usize>) -> Option<Label> {
        let wording = Wording { comparison: self };
        let Some(index) = index else {
            return Some(Label { name: "all".to_owned(), details: wording.headline()[..2].join(", ") });
        };
        let call = self.calls.get(index)?;
        let function = &self.functions[call.function];
        let [values, change, interval] = wording.cells(&call.total);
        let unit = if call.total.per_work.is_some() { " per unit of work" } else { " %" };
        let mut details = format!("{values}{unit}, {change}, {interval}");
        if let Some(size) = wording.missed(&call.total) {
            details += &format!(", may have changed by less than {size}");
        }
        if call.own.is_significant() {
            let [values, change, interval] = wording.cells(&call.own);
            details += &format!("; self {values}{unit}, {change}, {interval}");
        }
        let only = |cost: Cost| cost.weight == 0;
        if only(call.total.base) {
            details += "; only in the new build";
        } else if only(call.total.new) {
            details += "; only in the base";
        }
        let share = 100.0 * frames.weights[index] as f64 / frames.total as f64;
        details += &format!("; {share:.2}% of the graph");
        Some(Label { name: function.title(), details })
    }
}

/// The hues that occur.
fn legend(hues: &[Hue]) -> Vec<LegendEntry> {
    let mut hues = hues.to_vec();
    hues.sort_unstable();
    hues.dedup();
    hues.into_iter()
        .map(|hue| {
            let [[r, g, b], _] = hue.shades();
            LegendEntry { color: Color { r, g, b }, text: hue.label() }
        })
        .collect()
}

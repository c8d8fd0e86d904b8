//! What a frame is drawn as: one hue and one entry of the legend for each kind.

use flamewalk_profile::{Frame, FrameKind};
use inferno::flamegraph::color::Color;

/// A category of frames. In the order of the legend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Category {
    Guest,
    InlinedGuest,
    HostCall,
    Builtin,
    Host,
    Truncated,
}

impl Category {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 6] =
        [Self::Guest, Self::InlinedGuest, Self::HostCall, Self::Builtin, Self::Host, Self::Truncated];

    pub(crate) fn of(frame: &Frame) -> Self {
        Self::of_kind(frame.kind, frame.inlined)
    }

    pub(crate) fn of_kind(kind: FrameKind, inlined: bool) -> Self {
        match kind {
            FrameKind::Guest if inlined => Self::InlinedGuest,
            FrameKind::Guest => Self::Guest,
            FrameKind::HostCall => Self::HostCall,
            FrameKind::Builtin => Self::Builtin,
            FrameKind::Host => Self::Host,
            FrameKind::Truncated => Self::Truncated,
        }
    }

    /// What the legend calls it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::InlinedGuest => "guest, inlined",
            Self::HostCall => "host call",
            Self::Builtin => "runtime builtin",
            Self::Host => "native host code",
            Self::Truncated => "older frames missing",
        }
    }

    /// Its colour in the legend: in the middle of the shades.
    pub(crate) fn color(self) -> Color {
        self.shade(0.5)
    }

    /// The colour of a function: a shade of the category's hue that depends on nothing but the name, so that
    /// neighbours can be told apart and a function looks the same in every graph. Black text is readable on all.
    pub(crate) fn color_of(self, name: &str) -> Color {
        self.shade(position_of(name))
    }

    /// The red, green and blue of its first and its last shade. Those of one category do not overlap with those of
    /// another one.
    pub(crate) fn ends(self) -> [[u8; 3]; 2] {
        match self {
            Self::Guest => [[226, 118, 42], [244, 166, 70]],
            Self::InlinedGuest => [[250, 206, 140], [253, 228, 180]],
            Self::HostCall => [[104, 162, 222], [150, 196, 242]],
            Self::Builtin => [[108, 190, 128], [152, 216, 160]],
            Self::Host => [[178, 148, 214], [206, 182, 234]],
            Self::Truncated => [[176, 176, 176], [176, 176, 176]],
        }
    }

    /// A colour between the category's ends.
    fn shade(self, position: f64) -> Color {
        mix(self.ends(), position)
    }
}

/// Where between its category's ends a function's colour is, from 0 to 1.
pub(crate) fn position_of(name: &str) -> f64 {
    f64::from(hash(name)) / f64::from(u32::MAX)
}

/// The colour at a position between two colours.
pub(crate) fn mix([from, to]: [[u8; 3]; 2], position: f64) -> Color {
    let mix =
        |from: u8, to: u8| (f64::from(from) + (f64::from(to) - f64::from(from)) * position).round() as u8;
    Color { r: mix(from[0], to[0]), g: mix(from[1], to[1]), b: mix(from[2], to[2]) }
}

/// FNV-1a, which stays the same from one version of the compiler to the next, unlike the standard hasher.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Euclidean distance in RGB.
    fn distance(a: Color, b: Color) -> f64 {
        let square = |a: u8, b: u8| (f64::from(a) - f64::from(b)).powi(2);
        (square(a.r, b.r) + square(a.g, b.g) + square(a.b, b.b)).sqrt()
    }

    #[test]
    fn no_shade_of_one_category_is_close_to_one_of_another() {
        let all = Category::ALL;
        let shades = |category: Category| (0..=16).map(move |step| category.shade(f64::from(step) / 16.0));
        for (index, &a) in all.iter().enumerate() {
            for &b in &all[..index] {
                let closest = shades(a)
                    .flat_map(|shade| shades(b).map(move |other| distance(shade, other)))
                    .fold(f64::INFINITY, f64::min);
                assert!(closest > 40.0, "{a:?} and {b:?} come as close as {closest}");
            }
        }
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Published test vectors.
        assert_eq!(hash(""), 0x811c_9dc5);
        assert_eq!(hash("a"), 0xe40c_292c);
        assert_eq!(hash("foobar"), 0xbf9c_f968);
    }
}

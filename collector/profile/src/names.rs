//! The names that frames are shown by, in every format.

use std::{borrow::Cow, sync::Arc};

use indexmap::IndexSet;

use crate::{Frame, FrameId, FrameKind, Profile};

const HOST_CALL: &str = "[host] ";
const BUILTIN: &str = "[builtin] ";
const TRUNCATED: &str = "[truncated]";
/// Takes the place of `[` in a function's own name that starts like one of the above.
const LOOK_ALIKE: char = '［';

/// A distinct shown name of one profile: frames of one name share it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NameId(u32);

impl NameId {
    /// Position in [`Names::all`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The shown names of all frames of a profile, as it is when they are made.
///
/// | frame | shown as |
/// |---|---|
/// | guest function | `name`, or `module!name` if the profile holds guest frames of more than one module |
/// | call of an import | `[host] module.name` |
/// | builtin of the runtime | `[builtin] name` |
/// | native function of the host | `name` |
/// | missing older frames | `[truncated]` |
///
/// Guests choose their names, and so may be hostile. A shown name has no control character (a line break, an
/// escape sequence of the terminal, what XML forbids) and nothing that changes the direction of text: each is
/// replaced by its picture (`␊`) or by `�`. It does not start or end with white space and is never empty. A guest
/// function cannot pass for another kind of frame: in a name such as `[host] x` the bracket becomes `［`.
#[derive(Clone, Debug)]
pub struct Names {
    of_frame: Vec<NameId>,
    names: IndexSet<String>,
}

impl Names {
    /// The shown names of `profile`.
    pub fn new(profile: &Profile) -> Self {
        let mut modules = Modules::default();
        profile.frames().for_each(|(_, frame)| modules.add(frame));
        let mut names = IndexSet::new();
        let of_frame = profile
            .frames()
            .map(|(_, frame)| {
                // There are at most as many names as frames, whose ids have 32 bits.
                NameId(names.insert_full(show(frame, modules.are_shown())).0 as u32)
            })
            .collect();
        Self { of_frame, names }
    }

    /// The name of a frame.
    ///
    /// # Panics
    /// If the frame was added after the names were made.
    pub fn id(&self, frame: FrameId) -> NameId {
        self.of_frame[frame.index()]
    }

    /// The text of a name.
    ///
    /// # Panics
    /// If `id` belongs to the names of another profile.
    pub fn text(&self, id: NameId) -> &str {
        &self.names[id.index()]
    }

    /// The text of a frame's name.
    ///
    /// # Panics
    /// If the frame was added after the names were made.
    pub fn of(&self, frame: FrameId) -> &str {
        self.text(self.id(frame))
    }

    /// All distinct names, in the order of their ids.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// Text from a guest (a name, a path) as it can be shown on a terminal and in any format: without white space at
/// either end, and with a picture or `�` for each character that could do harm, as described at [`Names`].
pub fn printable(text: &str) -> String {
    text.trim().chars().map(printable_char).collect()
}

/// A function's own name, or what stands for it if that shows nothing. Of any content otherwise.
pub(crate) fn own_name(frame: &Frame) -> Cow<'_, str> {
    if !frame.name.trim().is_empty() {
        return Cow::Borrowed(&frame.name);
    }
    Cow::Owned(match frame.function_index {
        Some(index) => format!("wasm-function[{index}]"),
        None => "[unknown]".to_owned(),
    })
}

/// Whether the modules of guest frames are part of their names: if there are several.
#[derive(Default)]
pub(crate) struct Modules {
    first: Option<Arc<str>>,
    are_several: bool,
}

impl Modules {
    pub(crate) fn add(&mut self, frame: &Frame) {
        if let (FrameKind::Guest, Some(module)) = (frame.kind, &frame.module) {
            self.are_several |= self.first.get_or_insert_with(|| Arc::clone(module)) != module;
        }
    }

    /// To be called when all frames are there.
    pub(crate) fn are_shown(&self) -> bool {
        self.are_several
    }
}

/// The shown name of a frame.
pub(crate) fn show(frame: &Frame, with_module: bool) -> String {
    let name = printable(&own_name(frame));
    let module = frame.module.as_deref().map(printable).filter(|module| !module.is_empty());
    match (frame.kind, module) {
        (FrameKind::HostCall, Some(module)) => format!("{HOST_CALL}{module}.{name}"),
        (FrameKind::HostCall, None) => format!("{HOST_CALL}{name}"),
        (FrameKind::Builtin, _) => format!("{BUILTIN}{name}"),
        (FrameKind::Truncated, _) => TRUNCATED.to_owned(),
        (FrameKind::Guest, Some(module)) if with_module => disarm(format!("{module}!{name}")),
        (FrameKind::Guest | FrameKind::Host, _) => disarm(name),
    }
}

/// The frame that a shown name stands for. A module stays part of the name, since names may contain what separates
/// the two; a native host function reads as a guest function.
pub(crate) fn parse(shown: &str) -> Frame {
    if let Some(name) = shown.strip_prefix(HOST_CALL) {
        return Frame::new(FrameKind::HostCall, name);
    }
    if let Some(name) = shown.strip_prefix(BUILTIN) {
        return Frame::builtin(name);
    }
    if shown == TRUNCATED {
        return Frame::truncated();
    }
    if let Some(rest) = shown.strip_prefix(LOOK_ALIKE) {
        let armed = format!("[{rest}");
        if is_reserved(&armed) {
            return Frame::guest(armed);
        }
    }
    Frame::guest(shown)
}

fn is_reserved(name: &str) -> bool {
    name.starts_with(HOST_CALL) || name.starts_with(BUILTIN) || name == TRUNCATED
}

fn disarm(name: String) -> String {
    if is_reserved(&name) { format!("{LOOK_ALIKE}{}", &name[1..]) } else { name }
}

fn printable_char(c: char) -> char {
    match c {
        // The pictures of the control characters stand in the same order as these.
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        // Marks, embeddings, overrides and isolates of bidirectional text.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(frames: &[Frame]) -> Vec<String> {
        let mut profile = Profile::default();
        let ids: Vec<_> = frames.iter().map(|frame| profile.intern(frame.clone())).collect();
        let names = Names::new(&profile);
        ids.into_iter().map(|id| names.of(id).to_owned()).collect()
    }

    fn in_module(module: &str, name: &str) -> Frame {
        Frame { module: Some(module.into()), ..Frame::guest(name) }
    }

    #[test]
    fn each_kind_has_its_form() {
        let frames = [
            Frame::truncated(),
            in_module("app", "main"),
            Frame::host_call("wasi_snapshot_preview1", "fd_write"),
            Frame::builtin("memory.grow"),
            Frame::new(FrameKind::Host, "tokio::park"),
        ];
        let expected = [
            "[truncated]",
            "main",
            "[host] wasi_snapshot_preview1.fd_write",
            "[builtin] memory.grow",
            "tokio::park",
        ];
        assert_eq!(shown(&frames), expected);
    }

    #[test]
    fn the_module_shows_only_if_there_are_several() {
        assert_eq!(shown(&[in_module("a", "f"), Frame::guest("g"), in_module("a", "h")]), ["f", "g", "h"]);
        assert_eq!(shown(&[in_module("a", "f"), Frame::host_call("env", "g")]), ["f", "[host] env.g"]);
        assert_eq!(
            shown(&[in_module("a", "f"), Frame::guest("g"), in_module("b", "f")]),
            ["a!f", "g", "b!f"]
        );
    }

    #[test]
    fn frames_of_one_name_share_its_id() {
        let mut profile = Profile::default();
        let plain = profile.intern(Frame::guest("f"));
        let inlined = profile.intern(Frame { inlined: true, ..Frame::guest("f") });
        let other = profile.intern(Frame::guest("g"));
        let names = Names::new(&profile);
        assert_eq!(names.id(plain), names.id(inlined));
        assert_ne!(names.id(plain), names.id(other));
        assert_eq!(names.all().collect::<Vec<_>>(), ["f", "g"]);
    }

    #[test]
    fn hostile_names_are_harmless() {
        let frames = [
            Frame::guest("a\nb\x1b[31m\x7f\u{9b}\u{202e}c\u{ffff}"),
            Frame::guest("[host] env.now"),
            Frame::guest("[truncated]"),
            Frame::guest(" \t"),
            Frame { function_index: Some(7), ..Frame::guest("") },
            Frame::guest("[T]::len"),
        ];
        let expected =
            ["a␊b␛[31m␡��c�", "［host] env.now", "［truncated]", "[unknown]", "wasm-function[7]", "[T]::len"];
        assert_eq!(shown(&frames), expected);
    }

    proptest! {
        #[test]
        fn a_shown_name_reads_as_what_it_shows(name in any::<String>(), kind in 0..3) {
            let frame = match kind {
                0 => Frame::guest(name),
                1 => Frame::host_call("env", name),
                _ => Frame::builtin(name),
            };
            let text = show(&frame, false);
            prop_assert!(!text.is_empty());
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
            let back = parse(&text);
            prop_assert_eq!(back.kind, frame.kind);
            prop_assert_eq!(show(&back, false), text);
        }
    }
}

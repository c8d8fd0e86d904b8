//! What each address of compiled guest code is.
//!
//! A [`CodeImage`] describes the `.text` of one module or component: a table of functions sorted by their
//! offset, each with its [`CodeKind`]. A [`CodeTable`] is all images of the process, sorted by address, in groups. All
//! are plain slices: a look-up is three binary searches and touches nothing but these tables. A [`Hint`] spares the
//! search for the image if it is the one that was found last.

use core::ops::Range;
// Not the models': nothing is told to another thread through a hint.
use core::sync::atomic::{AtomicU64, Ordering};

/// What a range of compiled code is, as far as walking a stack is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CodeKind {
    /// A function of the guest, a fused adapter between components, or a module's start-up code: a frame.
    Guest,
    /// Enters the guest from the host (`array_to_wasm`). Its saved frame pointer belongs to the host.
    EntryTrampoline,
    /// Leaves the guest for a function of the host (`wasm_to_array`, a component's lowered import).
    ExitTrampoline,
    /// Leaves the guest for the runtime itself (`memory.grow` and the like).
    BuiltinTrampoline,
}

impl CodeKind {
    /// Whether the code leaves the guest.
    pub const fn leaves_guest(self) -> bool {
        matches!(self, Self::ExitTrampoline | Self::BuiltinTrampoline)
    }
}

/// One function in an image's `.text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Offset of the first instruction from the start of `.text`, in bytes.
    pub start: u32,
    /// Length of the code, in bytes.
    pub length: u32,
    /// What the code is.
    pub kind: CodeKind,
    /// For exit and builtin trampolines, the size in bytes of the frame below the saved frame pointer, or
    /// [`UNKNOWN_FRAME_SIZE`]. 0 for everything else.
    pub frame_size: u32,
}

impl Function {
    /// The text offset just past the function.
    #[inline]
    pub const fn end(&self) -> u32 {
        self.start.saturating_add(self.length)
    }
}

/// The frame size of a trampoline whose prologue does not have the usual shape.
pub const UNKNOWN_FRAME_SIZE: u32 = u32::MAX;

/// How many different frame sizes of trampolines an image keeps for [`CodeImage::trampoline_frame_sizes`]. CPython and
/// SQLite have 13 to 16; each costs a host call in a sample one read of the stack.
pub const MAX_TRAMPOLINE_FRAME_SIZES: usize = 32;

/// One image's code at the addresses where it is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeImage<'a> {
    text: Range<usize>,
    functions: &'a [Function],
    /// The longest run of addresses that belong to guest functions only (padding included).
    guest_run: Range<usize>,
    trampoline_frame_sizes: [u32; MAX_TRAMPOLINE_FRAME_SIZES],
    trampoline_frame_size_count: usize,
}

/// A function found by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundFunction {
    /// Address of the first instruction.
    pub start: usize,
    /// Address just past the code.
    pub end: usize,
    /// The function's entry in its image.
    pub function: Function,
}

impl<'a> CodeImage<'a> {
    /// Describes code executed at `text`, whose `functions` are sorted by `start` and do not overlap.
    pub fn new(text: Range<usize>, functions: &'a [Function]) -> Self {
        let mut image = Self {
            guest_run: longest_guest_run(&text, functions),
            text,
            functions,
            trampoline_frame_sizes: [0; MAX_TRAMPOLINE_FRAME_SIZES],
            trampoline_frame_size_count: 0,
        };
        for function in functions.iter().filter(|function| function.kind.leaves_guest()) {
            let size = function.frame_size;
            if size == UNKNOWN_FRAME_SIZE || image.trampoline_frame_sizes().contains(&size) {
                continue;
            }
            let Some(slot) = image.trampoline_frame_sizes.get_mut(image.trampoline_frame_size_count) else {
                // With one missing, a word of an older call could pass for the one that is looked for.
                image.trampoline_frame_size_count = 0;
                break;
            };
            *slot = size;
            image.trampoline_frame_size_count = image.trampoline_frame_size_count.saturating_add(1);
        }
        image
    }

    /// The addresses of `.text`.
    #[inline]
    pub fn text(&self) -> Range<usize> {
        self.text.clone()
    }

    /// Whether `address` is known to be in a guest function, without a search. False negatives are possible.
    #[inline]
    pub fn is_surely_guest(&self, address: usize) -> bool {
        self.guest_run.contains(&address)
    }

    /// Addresses that are all known to be in guest functions.
    #[inline]
    pub fn guest_run(&self) -> Range<usize> {
        self.guest_run.clone()
    }

    /// The frame sizes that occur among the image's exit and builtin trampolines, in bytes; none if there are too many.
    pub fn trampoline_frame_sizes(&self) -> &[u32] {
        self.trampoline_frame_sizes.get(..self.trampoline_frame_size_count).unwrap_or(&[])
    }

    /// The function that `address` lies in.
    #[inline]
    pub fn find(&self, address: usize) -> Option<FoundFunction> {
        let offset = u32::try_from(address.checked_sub(self.text.start)?).ok()?;
        let after = self.functions.partition_point(|function| function.start <= offset);
        let function = *self.functions.get(after.checked_sub(1)?)?;
        if offset >= function.end() || !self.text.contains(&address) {
            return None;
        }
        Some(FoundFunction {
            start: self.text.start.saturating_add(function.start as usize),
            end: self.text.start.saturating_add(function.end() as usize).min(self.text.end),
            function,
        })
    }
}

/// Wasmtime puts all guest functions of an image before its trampolines, so that one run covers nearly all of
/// them; this relies on nothing but the table itself.
fn longest_guest_run(text: &Range<usize>, functions: &[Function]) -> Range<usize> {
    let mut longest = text.start..text.start;
    let mut current = longest.clone();
    for function in functions {
        let start = text.start.saturating_add(function.start as usize);
        let end = text.start.saturating_add(function.end() as usize).min(text.end);
        if function.kind != CodeKind::Guest || start >= end {
            current = end..end;
            continue;
        }
        if current.is_empty() {
            current = start..end;
        } else {
            current.end = end;
        }
        if current.len() > longest.len() {
            longest = current.clone();
        }
    }
    longest
}

/// Some images that follow each other, sorted by the start of their text and not overlapping.
#[derive(Clone, Copy, Debug)]
pub struct ImageGroup<'a> {
    /// Where the text of the first begins.
    start: usize,
    images: &'a [CodeImage<'a>],
}

impl<'a> ImageGroup<'a> {
    /// A group of `images`.
    pub fn new(images: &'a [CodeImage<'a>]) -> Self {
        Self { start: images.first().map_or(usize::MAX, |image| image.text.start), images }
    }
}

/// Where the last image was found, to look there first: most code that a thread runs in turn is in the same image,
/// however many there are.
///
/// A place in whatever table is current, and no address: out of date, it is of no use and does no harm.
#[derive(Debug, Default)]
pub struct Hint {
    /// The number of the group (bits 32..64) and that of the image in it (0..32). Used by one thread only.
    place: AtomicU64,
}

impl Hint {
    fn get(&self) -> (usize, usize) {
        let place = self.place.load(Ordering::Relaxed);
        ((place >> 32) as usize, (place & 0xffff_ffff) as usize)
    }

    fn set(&self, group: usize, image: usize) {
        self.place.store((group as u64) << 32 | image as u64 & 0xffff_ffff, Ordering::Relaxed);
    }
}

/// All code images of the process, sorted by address.
#[derive(Clone, Copy, Debug, Default)]
pub struct CodeTable<'a> {
    images: Images<'a>,
    generation: u64,
    hint: Option<&'a Hint>,
}

/// In groups, so that a table that differs from another in one image can share most of them with it.
#[derive(Clone, Copy, Debug)]
enum Images<'a> {
    OneGroup(&'a [CodeImage<'a>]),
    Groups(&'a [ImageGroup<'a>]),
}

impl Default for Images<'_> {
    fn default() -> Self {
        Self::OneGroup(&[])
    }
}

impl<'a> CodeTable<'a> {
    /// A table of `images`, sorted by the start of their text and not overlapping. `generation` increases each
    /// time that the set of images changes.
    pub const fn new(images: &'a [CodeImage<'a>], generation: u64) -> Self {
        Self { images: Images::OneGroup(images), generation, hint: None }
    }

    /// As [`CodeTable::new`], of groups that follow each other.
    pub const fn of_groups(groups: &'a [ImageGroup<'a>], generation: u64) -> Self {
        Self { images: Images::Groups(groups), generation, hint: None }
    }

    /// How often the set of images had changed when this table was made.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The same table, which begins where the last look-up with this hint has ended.
    pub const fn with_hint<'b>(self, hint: &'b Hint) -> CodeTable<'b>
    where
        'a: 'b,
    {
        CodeTable { images: self.images, generation: self.generation, hint: Some(hint) }
    }

    /// The image whose text holds `address`.
    #[inline]
    pub fn image(&self, address: usize) -> Option<&'a CodeImage<'a>> {
        if let Some(hint) = self.hint {
            let (group, index) = hint.get();
            let image = self.group(group).and_then(|images| images.get(index));
            if let Some(image) = image.filter(|image| image.text.contains(&address)) {
                return Some(image);
            }
        }
        self.search(address)
    }

    fn search(&self, address: usize) -> Option<&'a CodeImage<'a>> {
        let group = match self.images {
            Images::OneGroup(_) => 0,
            Images::Groups(groups) => {
                groups.partition_point(|group| group.start <= address).checked_sub(1)?
            }
        };
        let images = self.group(group)?;
        let index = images.partition_point(|image| image.text.start <= address).checked_sub(1)?;
        let image = images.get(index).filter(|image| image.text.contains(&address))?;
        if let Some(hint) = self.hint {
            hint.set(group, index);
        }
        Some(image)
    }

    #[inline]
    fn group(&self, group: usize) -> Option<&'a [CodeImage<'a>]> {
        match self.images {
            Images::OneGroup(images) => (group == 0).then_some(images),
            Images::Groups(groups) => Some(groups.get(group)?.images),
        }
    }

    /// The function that `address` lies in, and its image.
    #[inline]
    pub fn find(&self, address: usize) -> Option<(&'a CodeImage<'a>, FoundFunction)> {
        let image = self.image(address)?;
        Some((image, image.find(address)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn function(start: u32, length: u32, kind: CodeKind) -> Function {
        Function { start, length, kind, frame_size: 0 }
    }

    #[test]
    fn padding_between_functions_belongs_to_none() {
        let functions = [function(0, 3, CodeKind::Guest), function(16, 4, CodeKind::EntryTrampoline)];
        let image = CodeImage::new(0x1000..0x1014, &functions);
        assert_eq!(image.find(0x1002).map(|found| found.function.kind), Some(CodeKind::Guest));
        assert_eq!(image.find(0x1003), None);
        assert_eq!(image.find(0x1010).map(|found| found.function.kind), Some(CodeKind::EntryTrampoline));
        assert_eq!(image.find(0x1014), None);
        assert_eq!(image.find(0xfff), None);
    }

    proptest! {
        // Miri is a thousand times slower.
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 3 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// The naive reference is a scan of every function of every image.
        #[test]
        fn find_agrees_with_a_linear_scan(
            layout in prop::collection::vec((0u32..40, prop::collection::vec((0u32..9, 1u32..9, 0u8..4), 0..12)), 0..6),
            group_length in 1usize..4,
        ) {
            let mut tables: Vec<(usize, Vec<Function>)> = Vec::new();
            let mut base = 0x1000usize;
            for (gap, functions) in &layout {
                base += *gap as usize;
                let mut offset = 0;
                let mut table = Vec::new();
                for (padding, length, kind) in functions {
                    offset += padding;
                    let kind = [CodeKind::Guest, CodeKind::EntryTrampoline, CodeKind::ExitTrampoline, CodeKind::BuiltinTrampoline][*kind as usize];
                    table.push(function(offset, *length, kind));
                    offset += length;
                }
                tables.push((base, table));
                base += offset as usize;
            }
            let images: Vec<CodeImage<'_>> = tables
                .iter()
                .map(|(start, functions)| {
                    let length = functions.last().map_or(0, |last| last.end() as usize);
                    CodeImage::new(*start..*start + length, functions)
                })
                .filter(|image| !image.text().is_empty())
                .collect();
            let groups: Vec<ImageGroup<'_>> = images.chunks(group_length).map(ImageGroup::new).collect();
            // One that is kept from table to table, as a thread's is.
            let hint = Hint::default();
            let (one, grouped) = (CodeTable::new(&images, 0), CodeTable::of_groups(&groups, 0));
            for table in [one, grouped, one.with_hint(&hint), grouped.with_hint(&hint), one.with_hint(&hint)] {
            for address in 0xff0..base + 16 {
                let expected = tables.iter().find_map(|(start, functions)| {
                    functions.iter().copied().find(|function| {
                        (*start + function.start as usize..*start + function.end() as usize).contains(&address)
                    })
                });
                prop_assert_eq!(table.find(address).map(|(_, found)| found.function), expected);
                if let Some(image) = table.image(address) && image.is_surely_guest(address) {
                    let found = expected.map(|function| function.kind);
                    prop_assert!(found.is_none() || found == Some(CodeKind::Guest));
                }
            }
            }
        }
    }
}

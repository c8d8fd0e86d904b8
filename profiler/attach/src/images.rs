//! The images of the target's guests: found in its memory, copied once, published to the walker, and retired when they go.
//!
//! An image is an ELF file with an operating system of its own (Wasmtime's), whose text is executed in place. So each
//! executable mapping is asked whether such a header lies below it. Images that Wasmtime has compiled in the process and
//! those that it has mapped from a file look the same.
//!
//! An image is read some time after the kernel has told that it was mapped, and another one may be there by then. What was
//! read is believed only if no later mapping of the same addresses is on record when the reading is over
//! (`session/worker.rs`), and only for samples that are not older than the mapping.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use flamewalk_symbolizer::{CodeImage, GuestBinary, ImagePlace, Symbolizer, find_image_of_code};

use crate::host::page_size;
use crate::target::{Mapping, Target};

/// A larger image would take minutes to compile: what claims to be one is none.
const MAX_IMAGE: usize = 1 << 31;
/// Notices about images that are not understood; a target can load as many as it likes.
const MAX_NOTICES: usize = 16;

/// A binary with the symbols of some guest.
#[derive(Clone, Debug)]
pub(crate) struct SymbolSource {
    pub(crate) name: Arc<str>,
    pub(crate) binary: GuestBinary,
}

/// The images that are there now.
#[derive(Debug)]
pub(crate) struct Images {
    registry: Arc<CodeRegistry>,
    symbols: Vec<SymbolSource>,
    /// By the start of the text; none overlaps.
    live: BTreeMap<usize, LiveImage>,
    /// Executable mappings that were looked at and are no images.
    others: HashSet<Range<usize>>,
    found: u64,
    notices: Vec<String>,
}

#[derive(Debug)]
struct LiveImage {
    id: ImageId,
    text: Range<usize>,
    code: Box<[u8]>,
    /// Nanoseconds of `CLOCK_MONOTONIC`. What was at the addresses before is not known.
    since: u64,
    /// Whether it was not there when the mappings were last looked at.
    is_missing: bool,
}

/// An image as it was read.
pub(crate) struct ReadImage {
    place: ImagePlace,
    bytes: Vec<u8>,
    name: Option<String>,
}

impl Images {
    pub(crate) fn new(registry: Arc<CodeRegistry>, symbols: Vec<SymbolSource>) -> Self {
        Self {
            registry,
            symbols,
            live: BTreeMap::new(),
            others: HashSet::new(),
            found: 0,
            notices: Vec::new(),
        }
    }

    /// How many images there have been.
    pub(crate) fn found(&self) -> u64 {
        self.found
    }

    /// What to tell about images that cannot be used.
    pub(crate) fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The machine code at these addresses; empty if they are not those of one image.
    pub(crate) fn code(&self, addresses: Range<usize>) -> &[u8] {
        let Some((_, image)) = self.live.range(..=addresses.start).next_back() else { return &[] };
        let offset = |address: usize| address.checked_sub(image.text.start);
        let (Some(start), Some(end)) = (offset(addresses.start), offset(addresses.end)) else { return &[] };
        image.code.get(start..end).unwrap_or(&[])
    }

    /// Whether the code at this address was already there at that time.
    pub(crate) fn was_there(&self, address: usize, time: u64) -> bool {
        let image = self.live.range(..=address).next_back();
        image.is_none_or(|(_, image)| !image.text.contains(&address) || image.since <= time)
    }

    /// Reads the image whose text begins where an executable mapping does, if there is one.
    pub(crate) fn read(&self, target: &Target, mapping: &Mapping) -> Option<ReadImage> {
        let read = |address: usize, buffer: &mut [u8]| target.read(address, buffer).is_ok();
        let place = find_image_of_code(mapping.range.start, page_size(), read)?;
        if place.image.len() > MAX_IMAGE || place.text.end > mapping.range.end {
            return None;
        }
        let bytes = target.copy(place.image.clone()).ok()?;
        let stem = mapping.path.as_ref().and_then(|path| path.file_stem());
        Some(ReadImage { place, bytes, name: stem.map(|stem| stem.to_string_lossy().into_owned()) })
    }

    /// Puts an image in place of what was at its addresses. It is known to be there since `since`.
    pub(crate) fn publish(&mut self, read: ReadImage, since: u64) {
        let ReadImage { place, bytes, name } = read;
        self.retire(&place.text);
        let image = match CodeImage::parse(&bytes) {
            Ok(image) => Arc::new(image),
            Err(error) => return self.note(format!("code of a guest is not understood: {error}")),
        };
        // What was read is one image, or the place was used again meanwhile.
        let (offset, text) = (place.text.start - place.image.start, image.text());
        let Some(code) = bytes.get(text.clone()).filter(|_| text == (offset..offset + place.text.len()))
        else {
            return self.note("code of a guest was replaced while it was read".to_owned());
        };
        self.found += 1;
        let symbolizer = self.symbolizer(&image, name);
        match self.registry.register(place.text.start, &image, symbolizer) {
            Ok(id) => {
                let live =
                    LiveImage { id, text: place.text.clone(), code: code.into(), since, is_missing: false };
                self.live.insert(place.text.start, live);
            }
            Err(error) => self.note(format!("code of a guest cannot be registered: {error}")),
        }
    }

    fn symbolizer(&self, image: &Arc<CodeImage>, name: Option<String>) -> Symbolizer {
        let source = self.symbols.iter().find(|source| image.check_source(&source.binary).is_ok());
        let named = source.and_then(|source| {
            let (name, binary) = (Arc::clone(&source.name), source.binary.clone());
            Symbolizer::new(Arc::clone(image), name, Some(binary), None).ok()
        });
        named.unwrap_or_else(|| {
            let makeshift = name.unwrap_or_else(|| format!("guest {}", self.found));
            Symbolizer::of_unknown(Arc::clone(image), makeshift)
        })
    }

    /// Retires what is known at these addresses: something else was mapped there.
    pub(crate) fn retire(&mut self, addresses: &Range<usize>) {
        self.others.retain(|other| other.end <= addresses.start || addresses.end <= other.start);
        let overlapping: Vec<usize> = self
            .live
            .range(..addresses.end)
            .filter(|(_, image)| image.text.end > addresses.start)
            .map(|(start, _)| *start)
            .collect();
        for start in overlapping {
            if let Some(image) = self.live.remove(&start) {
                self.registry.retire(image.id);
            }
        }
    }

    /// Looks through all mappings: publishes images that are not known, and retires those that were not there the last
    /// time and are not there now.
    pub(crate) fn scan(&mut self, target: &Target, mappings: &[Mapping], now: u64) {
        let executable = || mappings.iter().filter(|mapping| mapping.is_executable);
        let starts: HashSet<usize> = executable().map(|mapping| mapping.range.start).collect();
        let mut gone = Vec::new();
        for (start, image) in &mut self.live {
            let is_missing = !starts.contains(start);
            if is_missing && image.is_missing {
                gone.push(image.text.clone());
            }
            image.is_missing = is_missing;
        }
        gone.iter().for_each(|text| self.retire(text));
        for mapping in executable() {
            if self.live.contains_key(&mapping.range.start) || self.others.contains(&mapping.range) {
                continue;
            }
            match self.read(target, mapping) {
                Some(read) => self.publish(read, now),
                None => {
                    if follows_image(target, mappings, mapping) {
                        self.note("code of a guest is damaged: its image does not speak of it".to_owned());
                    }
                    self.others.insert(mapping.range.clone());
                }
            }
        }
        let ranges: HashSet<&Range<usize>> = executable().map(|mapping| &mapping.range).collect();
        self.others.retain(|other| ranges.contains(other));
    }

    fn note(&mut self, notice: String) {
        if self.notices.len() < MAX_NOTICES && !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }
}

/// Whether what lies right below this code begins as an image does: if the code is not that image's, one of them is damaged.
fn follows_image(target: &Target, mappings: &[Mapping], code: &Mapping) -> bool {
    /// No image begins further below its code.
    const MOST_PAGES: usize = 256;
    let is_below = |mapping: &&Mapping| mapping.range.end == code.range.start && !mapping.is_executable;
    let Some(below) = mappings.iter().find(is_below) else { return false };
    let pages = below.range.clone().step_by(page_size()).rev().take(MOST_PAGES);
    let is_header = |page: usize| {
        let mut start = [0; 8];
        target.read(page, &mut start).is_ok()
            && start.starts_with(&object::elf::ELFMAG)
            && start[7] == CodeImage::OS_ABI
    };
    pages.into_iter().any(is_header)
}

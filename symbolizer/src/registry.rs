//! All code images that a profiler knows, and when each was where.
//!
//! Two sides use it. Signal handlers look up addresses without waiting, through [`CodeRegistry::handlers`]. A
//! [`SampleReader`] resolves what they recorded: an address together with the *generation* that the handler saw gives
//! the image that was there at that time, also after the code is gone or its address has been used again.
//!
//! ```text
//!   register ──▶ live ──▶ retire ──▶ retired ──▶ released by every reader ──▶ freed
//!                            └───── (no reader) ────────────────────────────────┘
//! ```
//!
//! What is kept of an image is a copy of its own: code that is retired can be unmapped at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_handler::registry::Registry;

use crate::{CodeImage, Symbolizer};

/// Identifies an image for as long as the registry lives; ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(u64);

impl ImageId {
    /// How many images were registered before.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Why code cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Other code, or the same, is registered at some of the addresses.
    #[error("code at {text:x?} is registered already, at {existing:x?}")]
    Overlap {
        /// The addresses of the new code.
        text: Range<usize>,
        /// The addresses of the code that is there.
        existing: Range<usize>,
    },
}

/// All code images, present and past.
#[derive(Debug, Default)]
pub struct CodeRegistry {
    handlers: Registry,
    images: Mutex<Images>,
}

#[derive(Debug, Default)]
struct Images {
    by_id: HashMap<ImageId, Image>,
    /// The code that is there now, by the start of its text; never empty, and none overlaps.
    live: BTreeMap<usize, Place>,
    retired: RetiredImages,
    /// The retired images that each reader has not let go of.
    readers: BTreeMap<u64, BTreeSet<ImageId>>,
    next_image: u64,
    next_reader: u64,
}

#[derive(Debug)]
struct Image {
    text: Range<usize>,
    /// The generation in which the code went.
    retired: Option<u64>,
    /// How many readers have not let go of it since.
    holders: usize,
    symbolizer: Arc<Mutex<Symbolizer>>,
    /// What its tables take, the handlers' included.
    table_bytes: usize,
}

/// What a look-up by address has to know.
#[derive(Clone, Copy, Debug)]
struct Place {
    end: usize,
    first_generation: u64,
    id: ImageId,
}

/// The code that is no longer there, by address and time.
#[derive(Debug, Default)]
struct RetiredImages {
    /// By the start of the text and the first generation without it.
    places: BTreeMap<(usize, u64), Place>,
    /// No text is longer, so that those that begin further below an address need not be looked at.
    longest: usize,
}

impl RetiredImages {
    fn insert(&mut self, start: usize, end_generation: u64, place: Place) {
        self.longest = self.longest.max(place.end - start);
        self.places.insert((start, end_generation), place);
    }

    fn remove(&mut self, start: usize, end_generation: u64) {
        self.places.remove(&(start, end_generation));
        if self.places.is_empty() {
            self.longest = 0;
        }
    }

    fn find(&self, address: usize, generation: u64) -> Option<(usize, ImageId)> {
        let lowest = address.saturating_sub(self.longest);
        let mut upper = (address, u64::MAX);
        // One step for each place where code has begun, however often.
        while let Some((&(start, _), _)) = self.places.range((lowest, 0)..=upper).next_back() {
            let later = (start, generation.saturating_add(1))..=(start, u64::MAX);
            // The first to end after the generation is the only one that can have been there.
            if let Some((_, place)) = self.places.range(later).next()
                && address < place.end
                && place.first_generation <= generation
            {
                return Some((start, place.id));
            }
            upper = (start.checked_sub(1)?, u64::MAX);
        }
        None
    }
}

impl CodeRegistry {
    /// What signal handlers look addresses up in.
    pub fn handlers(&self) -> &Registry {
        &self.handlers
    }

    /// Registers code whose `.text` is executed from address `text_address` on.
    ///
    /// `image` is the parsed image, and `symbolizer` is what names its code.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Overlap`] if code is registered there already.
    pub fn register(
        &self,
        text_address: usize,
        image: &CodeImage,
        symbolizer: Symbolizer,
    ) -> Result<ImageId, RegisterError> {
        let text = text_address..text_address.saturating_add(image.text().len());
        // The list is locked first, so that no handler's record of this generation is looked up before the
        // image is in it.
        let mut images = self.images();
        let first_generation = self
            .handlers
            .publish(text.clone(), image.functions().into())
            .map_err(|overlap| RegisterError::Overlap { text: text.clone(), existing: overlap.existing })?;
        let id = ImageId(images.next_image);
        images.next_image += 1;
        // A text without code is never found, and could begin where other code does.
        if !text.is_empty() {
            images.live.insert(text.start, Place { end: text.end, first_generation, id });
        }
        let symbolizer = Arc::new(Mutex::new(symbolizer));
        let table_bytes = image.bytes().saturating_add(size_of_val(image.functions()));
        images.by_id.insert(id, Image { text, retired: None, holders: 0, symbolizer, table_bytes });
        Ok(id)
    }

    /// Takes an image's code out of the handlers' table. Samples taken before still resolve for every
    /// [`SampleReader`] that there is, until it lets go of the image. When this returns, no handler looks at the code
    /// any more. Unknown and retired ids are ignored.
    pub fn retire(&self, id: ImageId) {
        let mut images = self.images();
        let Some(image) = images.by_id.get(&id).filter(|image| image.retired.is_none()) else { return };
        let text = image.text.clone();
        let start = text.start;
        let place = if text.is_empty() { None } else { images.live.remove(&start) };
        let end_generation = place.and_then(|_| self.handlers.retire(start));
        let (Some(place), Some(end_generation), false) = (place, end_generation, images.readers.is_empty())
        else {
            // Its memory is freed after the lock, which is the first to be let go of.
            let _freed = images.by_id.remove(&id);
            drop(images);
            return;
        };
        images.retired.insert(start, end_generation, place);
        let holders = images.readers.len();
        if let Some(image) = images.by_id.get_mut(&id) {
            image.retired = Some(end_generation);
            image.holders = holders;
        }
        images.readers.values_mut().for_each(|waiting| _ = waiting.insert(id));
    }

    /// For looking up the addresses of one sample. Holds up registering and retiring.
    pub fn locator(&self) -> Locator<'_> {
        Locator(self.images())
    }

    /// Runs `ask` with the image's symbolizer; `None` if there is no such image any more.
    pub fn with_symbolizer<R>(&self, id: ImageId, ask: impl FnOnce(&mut Symbolizer) -> R) -> Option<R> {
        let symbolizer = Arc::clone(&self.images().by_id.get(&id)?.symbolizer);
        // A panic in a look-up leaves at worst a cache entry out.
        let mut symbolizer = symbolizer.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ask(&mut symbolizer))
    }

    /// How many images are kept, retired ones included.
    pub fn image_count(&self) -> usize {
        self.images().by_id.len()
    }

    /// How many bytes the tables of all images take that are kept: functions, addresses, names. Not included are
    /// guests' binaries, and what was looked up in them.
    pub fn table_bytes(&self) -> usize {
        self.images().by_id.values().map(|image| image.table_bytes).sum()
    }

    fn images(&self) -> MutexGuard<'_, Images> {
        // No change is left half done by a panic: there is nothing in between that could.
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks up addresses that handlers have recorded.
#[derive(Debug)]
pub struct Locator<'a>(MutexGuard<'a, Images>);

impl Locator<'_> {
    /// The image that held `address` when the handlers' table had this generation, and the offset of the address
    /// in its text.
    pub fn locate(&self, address: usize, generation: u64) -> Option<(ImageId, u32)> {
        let live = self.0.live.range(..=address).next_back();
        let live = live.filter(|(_, place)| address < place.end && place.first_generation <= generation);
        let (start, id) = match live {
            Some((start, place)) => (*start, place.id),
            None => self.0.retired.find(address, generation)?,
        };
        Some((id, u32::try_from(address - start).ok()?))
    }
}

/// One that resolves samples. While it exists, code that is retired stays resolvable until it lets go of it: when no
/// sample that it has not seen yet can refer to the code.
#[derive(Debug)]
pub struct SampleReader {
    registry: Arc<CodeRegistry>,
    number: u64,
}

impl SampleReader {
    /// A reader of samples that are taken from now on.
    pub fn new(registry: Arc<CodeRegistry>) -> Self {
        let mut images = registry.images();
        let number = images.next_reader;
        images.next_reader += 1;
        images.readers.insert(number, BTreeSet::new());
        drop(images);
        Self { registry, number }
    }

    /// The registry that it reads.
    pub fn registry(&self) -> &CodeRegistry {
        &self.registry
    }

    /// The retired images that it has not let go of. Every sample with their code is in its thread's ring by now.
    pub fn retired(&self) -> Vec<ImageId> {
        let images = self.registry.images();
        images.readers.get(&self.number).map(|waiting| waiting.iter().copied().collect()).unwrap_or_default()
    }

    /// Lets go of retired images: they are not asked for any more.
    pub fn release(&self, ids: &[ImageId]) {
        let mut images = self.registry.images();
        let freed = images.release(self.number, ids);
        drop(images);
        drop(freed);
    }
}

impl Drop for SampleReader {
    fn drop(&mut self) {
        let all = self.retired();
        let mut images = self.registry.images();
        let freed = images.release(self.number, &all);
        images.readers.remove(&self.number);
        drop(images);
        drop(freed);
    }
}

impl Images {
    /// Returns what no reader holds any more, to be freed without the lock.
    fn release(&mut self, reader: u64, ids: &[ImageId]) -> Vec<Image> {
        let mut freed = Vec::new();
        for id in ids {
            let held = self.readers.get_mut(&reader).is_some_and(|waiting| waiting.remove(id));
            let Some(image) = self.by_id.get_mut(id).filter(|_| held) else { continue };
            image.holders -= 1;
            if let (0, Some(end_generation)) = (image.holders, image.retired) {
                self.retired.remove(image.text.start, end_generation);
                freed.extend(self.by_id.remove(id));
            }
        }
        freed
    }
}

//! All code images that a profiler knows, and when each was where.
//!
//! Two sides use it. Signal handlers look up addresses without waiting, through [`CodeRegistry::handlers`]. The
//! collector resolves what they recorded: an address together with the *generation* that the handler saw gives
//! the image that was there at that time, also after the code is gone or its address has been used again.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flamewalk_handler::registry::Registry;

use crate::{CodeImage, Symbolizer};

/// Identifies an image for as long as the registry lives; ids are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(u32);

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
    /// The registry has given out all ids that there are.
    #[error("no more than {} code images can be registered in one process", u32::MAX)]
    TooManyImages,
}

/// All code images, present and past.
#[derive(Debug, Default)]
pub struct CodeRegistry {
    handlers: Registry,
    images: Mutex<Vec<Image>>,
}

#[derive(Debug)]
struct Image {
    text: Range<usize>,
    /// The generations of the handlers' table in which the code is there.
    generations: Range<u64>,
    symbolizer: Arc<Mutex<Symbolizer>>,
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
        let id = ImageId(u32::try_from(images.len()).map_err(|_| RegisterError::TooManyImages)?);
        let generation = self
            .handlers
            .publish(text.clone(), image.functions().into())
            .map_err(|overlap| RegisterError::Overlap { text: text.clone(), existing: overlap.existing })?;
        let symbolizer = Arc::new(Mutex::new(symbolizer));
        images.push(Image { text, generations: generation..u64::MAX, symbolizer });
        Ok(id)
    }

    /// Takes an image's code out of the handlers' table. Samples taken before still resolve. When this returns,
    /// no handler looks at the code any more. Unknown and retired ids are ignored.
    pub fn retire(&self, id: ImageId) {
        let mut images = self.images();
        let Some(image) = images.get_mut(id.0 as usize).filter(|image| image.generations.end == u64::MAX)
        else {
            return;
        };
        if let Some(generation) = self.handlers.retire(image.text.start) {
            image.generations.end = generation;
        }
    }

    /// The image that held `address` when the handlers' table had this generation, and the offset of the address
    /// in its text.
    pub fn locate(&self, address: usize, generation: u64) -> Option<(ImageId, u32)> {
        let images = self.images();
        // The newest are the most likely.
        let (index, image) =
            images.iter().enumerate().rev().find(|(_, image)| {
                image.text.contains(&address) && image.generations.contains(&generation)
            })?;
        let offset = u32::try_from(address - image.text.start).ok()?;
        Some((ImageId(u32::try_from(index).ok()?), offset))
    }

    /// Runs `ask` with the image's symbolizer; `None` if there is no such image.
    pub fn with_symbolizer<R>(&self, id: ImageId, ask: impl FnOnce(&mut Symbolizer) -> R) -> Option<R> {
        let symbolizer = Arc::clone(&self.images().get(id.0 as usize)?.symbolizer);
        // A panic in a look-up leaves at worst a cache entry out.
        let mut symbolizer = symbolizer.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ask(&mut symbolizer))
    }

    /// What the symbolizers have to tell the user, one sentence each.
    pub fn notices(&self) -> Vec<String> {
        let symbolizers: Vec<_> = self.images().iter().map(|image| Arc::clone(&image.symbolizer)).collect();
        let notices = symbolizers.iter().flat_map(|symbolizer| {
            let symbolizer = symbolizer.lock().unwrap_or_else(PoisonError::into_inner);
            symbolizer.notices().iter().map(ToString::to_string).collect::<Vec<_>>()
        });
        notices.collect()
    }

    fn images(&self) -> MutexGuard<'_, Vec<Image>> {
        // Every change is a single push or store, so that a panic elsewhere does not matter.
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

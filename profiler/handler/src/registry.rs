//! The code table of the process: looked up by handlers without waiting, replaced by ordinary threads.
//!
//! A table is never changed. To publish or retire an image, a thread makes a new table, puts it in place of the
//! old one, and frees the old one once no handler can still be reading it. Each thread with a handler has a
//! [`Reader`], a counter that is odd while the handler reads:
//!
//! ```text
//!   handler                              publisher
//!   reader += 1   (odd)                  table = new
//!   fence                                fence
//!   use table                            wait for each reader: even, or changed since
//!   reader += 1   (even)                 free old
//! ```
//!
//! A table is an index of groups of images. A new one shares all groups with the old one but the one that has changed,
//! so that one image more among many is little work.
//!
//! By the two fences, either the publisher sees the reader odd and waits, or the handler sees the new table.
//! A handler never waits; a publisher waits for as long as a handler takes, well under a millisecond unless the
//! scheduler takes the thread away in between.

use crate::code::{CodeTable, Hint};
use crate::sync::{AtomicPtr, AtomicUsize, Lifetime, Ordering};

#[cfg(not(loom))]
use core::sync::atomic::fence;
#[cfg(loom)]
use loom::sync::atomic::fence;

/// One thread's part in the protocol.
#[derive(Debug)]
pub struct Reader {
    count: AtomicUsize,
    hint: Hint,
}

impl Default for Reader {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), hint: Hint::default() }
    }
}

#[cfg(feature = "owner")]
impl Reader {
    /// Waits until a handler that is running now has returned from [`Registry::read`].
    ///
    /// What the caller has unpublished before (with at least release ordering) is then out of use.
    pub fn wait_until_left(&self) {
        // Pair: the fence in `read`.
        fence(Ordering::SeqCst);
        // Pair: the release store at the end of `read`.
        let seen = self.count.load(Ordering::Acquire);
        while seen % 2 == 1 && self.count.load(Ordering::Acquire) == seen {
            #[cfg(loom)]
            loom::thread::yield_now();
            #[cfg(not(loom))]
            std::thread::yield_now();
        }
    }
}

/// A table with what it borrows from, as published.
#[derive(Debug)]
struct Published {
    table: CodeTable<'static>,
    lifetime: Lifetime,
    /// Owns what `table` borrows.
    #[cfg(feature = "owner")]
    _index: alloc::vec::Vec<crate::code::ImageGroup<'static>>,
    #[cfg(feature = "owner")]
    _groups: alloc::vec::Vec<alloc::sync::Arc<owner::Group>>,
}

/// The code table of the process.
#[derive(Debug)]
pub struct Registry {
    current: AtomicPtr<Published>,
    #[cfg(feature = "owner")]
    owner: owner::Owner,
}

impl Registry {
    /// Runs `read` with the current table.
    ///
    /// # Safety
    ///
    /// `reader` must be registered with this registry and used by one thread only, and either in its signal handler or
    /// outside of it; calls do not nest.
    pub unsafe fn read<R>(&self, reader: &Reader, read: impl FnOnce(CodeTable<'_>) -> R) -> R {
        // Only this thread writes its reader.
        let count = reader.count.load(Ordering::Relaxed);
        // Pair: the acquire loads in `wait_until_left`, which can see this in place of the release store below that
        // went before it.
        reader.count.store(count.wrapping_add(1), Ordering::Release);
        // Pair: the fence in `wait_until_left`.
        fence(Ordering::SeqCst);
        // Pair: the swap in `replace`, which releases the new table's contents.
        let published = self.current.load(Ordering::Acquire);
        // SAFETY: the pointer is null or from `replace`. A table is freed only after every reader was seen even,
        // or changed, since it was replaced; this one is odd until after `read` has returned.
        let result = match unsafe { published.as_ref() } {
            Some(published) => published.lifetime.used_by(|| read(published.table.with_hint(&reader.hint))),
            None => read(CodeTable::new(&[], 0)),
        };
        // Pair: the acquire loads in `wait_until_left`. What was read is read before the count is even again.
        reader.count.store(count.wrapping_add(2), Ordering::Release);
        result
    }
}

#[cfg(feature = "owner")]
mod owner {
    use super::{CodeTable, Published, Reader, Registry};
    use crate::code::{CodeImage, Function, ImageGroup};
    use crate::sync::{AtomicPtr, Lifetime, Ordering};
    use alloc::boxed::Box;
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::ops::Range;
    #[cfg(loom)]
    use loom::sync::Mutex;
    #[cfg(not(loom))]
    use std::sync::{Mutex, PoisonError};

    #[derive(Debug, Default)]
    pub(super) struct Owner {
        state: Mutex<State>,
    }

    #[derive(Debug, Default)]
    struct State {
        /// In the order of their addresses; none is empty.
        groups: Vec<Arc<Group>>,
        readers: Vec<Arc<Reader>>,
        generation: u64,
    }

    /// More images than this are split into two groups. A group is copied for each change of one of its images, and the
    /// list of all groups for each change of any: with 100,000 images, both are about as long.
    const MAX_GROUP: usize = if cfg!(loom) { 1 } else { 256 };

    /// Images that follow each other. Never changed.
    #[derive(Debug)]
    pub(super) struct Group {
        images: Vec<OwnedImage>,
        /// The same, as handlers see them.
        addresses: Vec<CodeImage<'static>>,
    }

    impl Group {
        fn new(images: Vec<OwnedImage>) -> Arc<Self> {
            let addresses = images.iter().map(|owned| owned.image.clone()).collect();
            Arc::new(Self { images, addresses })
        }

        /// `images` as groups, none empty and none too large.
        fn split(images: Vec<OwnedImage>) -> impl Iterator<Item = Arc<Self>> {
            let length = if images.len() > MAX_GROUP { images.len().div_ceil(2) } else { images.len() };
            let groups: Vec<_> = images.chunks(length.max(1)).map(|part| Self::new(part.to_vec())).collect();
            groups.into_iter()
        }

        fn start(&self) -> usize {
            self.addresses.first().map_or(usize::MAX, |image| image.text().start)
        }
    }

    #[derive(Clone, Debug)]
    struct OwnedImage {
        /// Borrows from `_functions`.
        image: CodeImage<'static>,
        _functions: Arc<[Function]>,
    }

    impl OwnedImage {
        fn new(text: Range<usize>, functions: Arc<[Function]>) -> Self {
            // SAFETY: the slice belongs to an `Arc` that goes wherever the borrowing image goes: here, and into the
            // `Group` of both. It does not move and is never changed.
            let borrowed: &'static [Function] = unsafe { &*core::ptr::from_ref(&*functions) };
            Self { image: CodeImage::new(text, borrowed), _functions: functions }
        }
    }

    /// The code overlaps code that is registered already.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Overlap {
        /// The addresses of the code that is there.
        pub existing: Range<usize>,
    }

    impl Default for Registry {
        fn default() -> Self {
            Self { current: AtomicPtr::new(core::ptr::null_mut()), owner: Owner::default() }
        }
    }

    impl Registry {
        /// Adds a thread's reader, before its first [`Registry::read`].
        pub fn add_reader(&self, reader: Arc<Reader>) {
            self.state(|state| state.readers.push(reader));
        }

        /// Removes a thread's reader, after its last [`Registry::read`].
        pub fn remove_reader(&self, reader: &Arc<Reader>) {
            self.state(|state| state.readers.retain(|known| !Arc::ptr_eq(known, reader)));
        }

        /// Publishes code at `text` and returns the first generation that has it. `functions` must be sorted by
        /// `start` and must not overlap. A text without code is not kept.
        ///
        /// # Errors
        ///
        /// [`Overlap`] if some of the addresses belong to code that is registered.
        pub fn publish(&self, text: Range<usize>, functions: Arc<[Function]>) -> Result<u64, Overlap> {
            self.state(|state| {
                if text.is_empty() {
                    // It may begin where other code does, and would then be retired in its place.
                    return Ok(state.generation);
                }
                // The last group with an image that begins before the end, and in it the place after the last such.
                let after = state.groups.partition_point(|group| group.start() < text.end);
                let group = after.saturating_sub(1);
                let mut images =
                    state.groups.get(group).map(|group| group.images.clone()).unwrap_or_default();
                let after = images.partition_point(|owned| owned.image.text().start < text.end);
                let before = after.checked_sub(1).and_then(|index| images.get(index));
                if let Some(owned) = before.filter(|owned| owned.image.text().end > text.start) {
                    return Err(Overlap { existing: owned.image.text() });
                }
                images.insert(after, OwnedImage::new(text, functions));
                let replaced = group..group.saturating_add(1).min(state.groups.len());
                state.groups.splice(replaced, Group::split(images));
                Ok(self.replace(state))
            })
        }

        /// Retires the code that starts at `text_start` and returns the first generation without it; `None` if
        /// there is no such code. When this returns, no handler looks at the code's table any more.
        pub fn retire(&self, text_start: usize) -> Option<u64> {
            self.state(|state| {
                let group =
                    state.groups.partition_point(|group| group.start() <= text_start).checked_sub(1)?;
                let mut images = state.groups.get(group)?.images.clone();
                let index =
                    images.binary_search_by_key(&text_start, |owned| owned.image.text().start).ok()?;
                images.remove(index);
                // Groups that have become small are put together again.
                let mut replaced = group..group.saturating_add(1);
                if let Some(next) = state.groups.get(replaced.end)
                    && images.len().saturating_add(next.images.len()) <= MAX_GROUP / 2
                {
                    images.extend(next.images.iter().cloned());
                    replaced.end = replaced.end.saturating_add(1);
                }
                state.groups.splice(replaced, Group::split(images));
                Some(self.replace(state))
            })
        }

        /// Waits until every handler that is running now has returned from [`Registry::read`].
        pub fn wait_for_handlers(&self) {
            self.state(|state| state.readers.iter().for_each(|reader| reader.wait_until_left()));
        }

        fn state<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
            #[cfg(loom)]
            let mut state = self.owner.state.lock().unwrap_or_else(|_| unreachable!("models do not panic"));
            // Every change leaves the state whole, so that a panic elsewhere does not matter.
            #[cfg(not(loom))]
            let mut state = self.owner.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state)
        }

        /// Puts a table of `state.groups` in place of the current one and frees that.
        fn replace(&self, state: &mut State) -> u64 {
            state.generation = state.generation.wrapping_add(1);
            let index: Vec<ImageGroup<'static>> = state
                .groups
                .iter()
                .map(|group| {
                    // SAFETY: `Published` keeps the group for as long as the index; it is never changed.
                    let addresses: &'static [CodeImage<'static>] =
                        unsafe { &*core::ptr::from_ref(group.addresses.as_slice()) };
                    ImageGroup::new(addresses)
                })
                .collect();
            // SAFETY: `Published` keeps the vector for as long as the table; its buffer does not move with it.
            let borrowed: &'static [ImageGroup<'static>] = unsafe { &*core::ptr::from_ref(index.as_slice()) };
            let table = CodeTable::of_groups(borrowed, state.generation);
            let new = Box::into_raw(Box::new(Published {
                table,
                lifetime: Lifetime::new(),
                _index: index,
                _groups: state.groups.clone(),
            }));
            // Pair: the load in `read`; releases the new table.
            let old = self.current.swap(new, Ordering::AcqRel);
            state.readers.iter().for_each(|reader| reader.wait_until_left());
            if !old.is_null() {
                // SAFETY: `old` came out of `Box::into_raw` above, was taken out of `current` by the swap, so
                // that this is the only one to free it, and no reader holds it any more.
                let old = unsafe { Box::from_raw(old) };
                // In a model it stays in memory, so that a reader that should not exist fails instead of crashing.
                #[cfg(loom)]
                Box::leak(old).lifetime.end();
                #[cfg(not(loom))]
                drop(old);
            }
            state.generation
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            // Nobody else can hold the registry, so that no handler reads it.
            let current = self.current.swap(core::ptr::null_mut(), Ordering::AcqRel);
            if !current.is_null() {
                // SAFETY: as in `replace`.
                drop(unsafe { Box::from_raw(current) });
            }
        }
    }
}

#[cfg(feature = "owner")]
pub use owner::Overlap;

//! A sample on its way into a ring: its frames as a walk finds them, then its header, when the rest is known.

use core::ops::{ControlFlow, Deref};

use crate::record::{Frame, HEADER_WORDS, Header};
use crate::ring::{Full, Ring, Word, Writer};

/// Takes the frames of a walk, youngest first. Every function of a [`Frame`] is one.
pub trait Visit {
    /// Takes a frame. Breaking off ends the walk as the frame limit does.
    fn frame(&mut self, frame: Frame) -> ControlFlow<()>;

    /// Takes frames that are all return addresses, of which most stacks consist.
    #[inline]
    fn return_addresses(&mut self, addresses: &[usize]) -> ControlFlow<()> {
        addresses.iter().try_for_each(|address| self.frame(Frame::ReturnAddress(*address)))
    }
}

impl<F: FnMut(Frame) -> ControlFlow<()>> Visit for F {
    #[inline]
    fn frame(&mut self, frame: Frame) -> ControlFlow<()> {
        self(frame)
    }
}

/// A sample that is being written. Dropping it without [`Recorder::commit`] writes nothing.
#[derive(Debug)]
pub struct Recorder<'a, S> {
    record: Writer<'a, S>,
    is_full: bool,
    has_guest: bool,
}

impl<'a, S: Deref<Target = [Word]>> Recorder<'a, S> {
    /// Begins a sample. Only one thread may produce.
    pub fn begin(ring: &'a Ring<S>) -> Self {
        let mut record = ring.begin();
        let is_full = record.reserve(HEADER_WORDS).is_err();
        Self { record, is_full, has_guest: false }
    }

    /// Whether the ring had no room for a frame.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether any frame is of a guest, and not of the host alone.
    pub fn has_guest(&self) -> bool {
        self.has_guest
    }

    /// Makes the sample visible to the ring's reader.
    ///
    /// # Errors
    ///
    /// [`Full`] if the ring had no room for all of it; nothing was written then.
    pub fn commit(mut self, header: &Header) -> Result<(), Full> {
        if self.is_full {
            return Err(Full);
        }
        let frames = self.record.length().saturating_sub(HEADER_WORDS);
        for (index, word) in header.encode(frames).into_iter().enumerate() {
            self.record.set(index, word);
        }
        self.record.commit();
        Ok(())
    }

    #[inline]
    fn unless_full(&mut self, pushed: Result<(), Full>) -> ControlFlow<()> {
        self.is_full |= pushed.is_err();
        if self.is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl<S: Deref<Target = [Word]>> Visit for Recorder<'_, S> {
    #[inline]
    fn frame(&mut self, frame: Frame) -> ControlFlow<()> {
        self.has_guest |= !frame.is_host();
        let pushed = self.record.push(frame.encode());
        self.unless_full(pushed)
    }

    #[inline]
    fn return_addresses(&mut self, addresses: &[usize]) -> ControlFlow<()> {
        self.has_guest |= !addresses.is_empty();
        let pushed = self.record.extend(addresses, |address| Frame::ReturnAddress(address).encode());
        self.unless_full(pushed)
    }
}

//! Windows: profiles beside the profiler's own, each from its opening to its end.

use std::sync::Arc;

use flamewalk_collector::Extent;
use flamewalk_profile::{Labels, Metadata, Profile, Statistics};

use crate::error::Error;
use crate::shared::{Shared, WindowId};

/// What is sampled from its opening on, with a profile of its own: made by [`Profiler::window`](crate::Profiler::window).
///
/// Each sample is in every window that was open when it was taken, and in the profiler's own profile if that is running.
/// A pause of the profiler is one of its windows as well, as their profiles tell; it ends when the profiler is stopped.
/// Dropping a window without finishing it leaves no trace.
#[derive(Debug)]
pub struct Window {
    shared: Arc<Shared>,
    id: WindowId,
}

impl Window {
    pub(crate) fn open(shared: Arc<Shared>, rate: Option<u32>) -> Result<Self, Error> {
        let id = shared.open_window(rate)?;
        Ok(Self { shared, id })
    }

    /// The profile so far, while sampling goes on; see [`Profiler::snapshot`](crate::Profiler::snapshot).
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] if the profiler was dropped; [`Error::Forked`].
    pub fn snapshot(&self, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.snapshot(Some(self.id), metadata, Extent::All)
    }

    /// What became of the ticks so far, and what the profiler takes.
    ///
    /// # Errors
    ///
    /// As for [`Window::snapshot`].
    pub fn statistics(&self) -> Result<Statistics, Error> {
        self.shared.statistics(Some(self.id))
    }

    /// Closes the window and returns its profile. Sampling ends if nothing else needs it.
    ///
    /// # Errors
    ///
    /// As for [`Window::snapshot`].
    pub fn finish(self, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.finish(Some(self.id), metadata, Extent::All)
    }

    /// As [`Window::finish`], of what was sampled in stores that had all of `labels` at the time, and of nothing else;
    /// see [`Profiler::snapshot_labelled`](crate::Profiler::snapshot_labelled).
    ///
    /// # Errors
    ///
    /// As for [`Window::snapshot`].
    pub fn finish_labelled(self, labels: Labels, metadata: Metadata) -> Result<Profile, Error> {
        self.shared.finish(Some(self.id), metadata, Extent::Labelled(labels))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // One that is finished is closed already, which is known by its number.
        self.shared.discard(self.id);
    }
}

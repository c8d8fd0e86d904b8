//! Where windows go.

use std::time::Duration;

use crate::window::Window;

/// What takes the windows of a [`Pusher`](crate::Pusher): on a thread of its own, one after the other.
pub trait Sink: Send {
    /// What statistics and messages call it; without secrets.
    fn name(&self) -> String;

    /// Sends a window, in bounded time: whoever stops the pusher waits for it. Windows without a sample are not sent.
    ///
    /// # Errors
    /// [`SendError::Temporary`] if the same window can be tried again; [`SendError::Refused`] if that would be no use.
    fn send(&mut self, window: &Window) -> Result<(), SendError>;
}

/// Why a window was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It may be taken later.
    #[error("{reason}")]
    Temporary {
        /// What was the matter.
        reason: String,
        /// How long the other side asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It will not be taken, however often it is sent.
    #[error("{reason}")]
    Refused {
        /// What was the matter.
        reason: String,
    },
}

impl SendError {
    pub(crate) fn temporary(reason: impl ToString) -> Self {
        Self::Temporary { reason: reason.to_string(), retry_after: None }
    }

    pub(crate) fn refused(reason: impl ToString) -> Self {
        Self::Refused { reason: reason.to_string() }
    }
}

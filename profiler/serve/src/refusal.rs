//! Why a request is not answered: one sentence, and the status that says the same to programs.

use std::time::Duration;

use flamewalk::Error;
use flamewalk_flamegraphs::FlamegraphError;
use flamewalk_profile::ProfileError;
use http::StatusCode;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is nothing here; {index} lists what there is")]
    NotFound { index: String },
    #[error("{method} is not possible here; use GET")]
    Method { method: String },
    #[error("requests that another site has a browser send are refused")]
    OtherSite,
    #[error("this server is not called that; use its address, or localhost")]
    OtherHost,
    #[error("this socket is for the user that the process runs as")]
    OtherUser,
    #[error("`{name}={value}` is not {expected}")]
    Parameter { name: String, value: String, expected: &'static str },
    #[error("there is no parameter `{name}`; use seconds, hz or label")]
    UnknownParameter { name: String },
    #[error("`{name}` is given twice")]
    Twice { name: String },
    #[error("{asked} seconds are too long; ask for {} or less", most.as_secs_f64())]
    TooLong { asked: String, most: Duration },
    #[error("{most} profiles are being taken already; try again later")]
    TooMany { most: usize, retry_after: Duration },
    #[error("the profiler is paused; try again when it goes on")]
    Paused,
    #[error(transparent)]
    Profiler(#[from] Error),
    #[error(transparent)]
    Format(#[from] ProfileError),
    #[error("{0}")]
    Draw(#[from] FlamegraphError),
    #[error("the profile was lost to a panic, which is a bug in flamewalk")]
    Panicked,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } | Self::Draw(FlamegraphError::NoSamples { .. }) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::OtherSite | Self::OtherUser => StatusCode::FORBIDDEN,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Parameter { .. }
            | Self::UnknownParameter { .. }
            | Self::Twice { .. }
            | Self::TooLong { .. }
            | Self::Profiler(Error::Rate { .. }) => StatusCode::BAD_REQUEST,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Paused | Self::Profiler(Error::OtherRate { .. }) => StatusCode::CONFLICT,
            Self::Profiler(
                Error::NoEvent { .. } | Error::EventRefused { .. } | Error::Forked | Error::NotRunning,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Profiler(_) | Self::Format(_) | Self::Draw(_) | Self::Panicked => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// When it may be different.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

//! Asks a process for a profile, at the socket where it offers them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flamewalk::profile::{Labels, Profile};
use form_urlencoded::Serializer;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::connection::TRANSFER_TIME;
use crate::error::FetchError;
use crate::on_demand::Options;
use crate::request::Kind;
use crate::socket::user_of;

/// How large a response may be, in bytes; profiles are far smaller.
const MAX_RESPONSE: usize = 1 << 30;
/// How much of a refusal is shown.
const MAX_MESSAGE: usize = 500;

/// What is asked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Ask {
    /// How long to sample; without it the other side decides.
    pub duration: Option<Duration>,
    /// At which rate, in Hz; without it the other side decides.
    pub rate: Option<u32>,
    /// Only what is sampled in stores that have all of these labels.
    pub labels: Labels,
    /// How long to wait at most beyond the time that is sampled; without it a minute.
    pub patience: Option<Duration>,
}

impl Ask {
    fn uri(&self) -> String {
        let mut query = Serializer::new(String::new());
        if let Some(duration) = self.duration {
            query.append_pair("seconds", &duration.as_secs_f64().to_string());
        }
        if let Some(rate) = self.rate {
            query.append_pair("hz", &rate.to_string());
        }
        for (key, value) in self.labels.iter() {
            query.append_pair("label", &format!("{key}={value}"));
        }
        format!("{}{}?{}", Options::default().index(), Kind::Native.name(), query.finish())
    }

    /// How long to wait: for the other side to sample, to make the profile and to send it.
    fn time_limit(&self) -> Duration {
        let limits = Options::default();
        let sampled = self.duration.unwrap_or(limits.max_duration);
        sampled.saturating_add(self.patience.unwrap_or(TRANSFER_TIME))
    }
}

/// Fetches a profile from the process with this number, which offers it at `path` below `/debug/pprof/`; see
/// [`offered_by`](crate::offered_by). Waits for as long as is sampled, and for [`Ask::patience`] more at most.
///
/// # Errors
/// [`FetchError::OtherProcess`] if `path` is the socket of another process, and [`FetchError::OtherUser`] if it was made by
/// a user that the process does not run as, nor root; they are then told nothing;
/// [`FetchError::Refused`] if the process does not want to; [`FetchError::NoAnswer`]; [`FetchError::NotProfile`];
/// [`FetchError::Connection`].
///
/// # Panics
/// Within a Tokio runtime.
pub fn fetch(path: &Path, process: u32, ask: &Ask) -> Result<Profile, FetchError> {
    let at = At { path: path.to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| at.failed(error))?;
    let limit = ask.time_limit();
    let content = runtime.block_on(async {
        let answer = timeout(limit, at.content(process, ask)).await;
        answer.unwrap_or(Err(FetchError::NoAnswer { path: at.path.clone(), seconds: limit.as_secs() }))
    })?;
    flamewalk_profile::native::read(&content)
        .map_err(|source| FetchError::NotProfile { path: path.to_owned(), source })
}

/// Where something went wrong, if it does.
struct At {
    path: PathBuf,
}

impl At {
    fn failed(&self, reason: impl ToString) -> FetchError {
        FetchError::Connection { path: self.path.clone(), reason: reason.to_string() }
    }

    async fn content(&self, process: u32, ask: &Ask) -> Result<Bytes, FetchError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.failed(error))?;
        let peer = stream.peer_cred().map_err(|error| self.failed(error))?;
        let found = peer.pid().unwrap_or_default();
        if u32::try_from(found) != Ok(process) {
            let path = self.path.clone();
            return Err(FetchError::OtherProcess { path, expected: process, found, user: peer.uid() });
        }
        // A number can be used again by a process that has the socket from the one that made it.
        let expected = user_of(process).ok_or_else(|| self.failed("the process has ended"))?;
        if ![expected, 0].contains(&peer.uid()) {
            return Err(FetchError::OtherUser { path: self.path.clone(), expected, found: peer.uid() });
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(error))?;
        let request = Request::get(ask.uri()).header(HOST, "localhost").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.failed(error))?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|error| self.failed(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
            Ok((status, body.map_err(|error| self.failed(error))?.to_bytes()))
        };
        // The connection is driven meanwhile, until the sender is gone; how it ends is in the answer.
        let (answer, _) = tokio::join!(answer, connection);
        let (status, body) = answer?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        let message = String::from_utf8_lossy(&body);
        let message = message.trim().chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
        Err(FetchError::Refused { status: status.as_u16(), message })
    }
}

//! One connection to the ready server: one request, in bounded time and memory.

use std::convert::Infallible;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Uid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::answer;
use crate::on_demand::OnDemand;
use crate::refusal::Refusal;

/// How long a client may take to send its request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a profile may take to be made and to be read by its client, after it was sampled.
pub(crate) const TRANSFER_TIME: Duration = Duration::from_secs(60);
/// How large a request may be, in bytes; further ones get status 431.
const MAX_REQUEST: usize = 16 << 10;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Whoever calls the server by an address, or localhost: a web page cannot, even if the name that it was loaded by has
    /// become ours meanwhile.
    Host,
    /// Everybody.
    None,
    /// Nobody.
    Closed,
}

impl Guard {
    /// That of a connection through a Unix socket: for the process's own user, and for root.
    pub(crate) fn of(stream: &UnixStream) -> Self {
        let own = Uid::effective().as_raw();
        match stream.peer_cred() {
            Ok(peer) if [own, 0].contains(&peer.uid()) => Self::None,
            _ => Self::Closed,
        }
    }

    fn check(self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::None => Ok(()),
            Self::Closed => Err(Refusal::OtherUser),
            Self::Host => match headers.get(http::header::HOST) {
                // Not from a browser.
                None => Ok(()),
                Some(host) => {
                    host.to_str().ok().filter(|host| is_address(host)).map(drop).ok_or(Refusal::OtherHost)
                }
            },
        }
    }
}

/// Whether a `Host` is an address, or localhost.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

/// Reads a request and answers it. A client that goes away ends the wait for its profile.
pub(crate) async fn serve<S>(stream: S, guard: Guard, on_demand: OnDemand)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let longest = HEAD_TIME + on_demand.options().max_duration + TRANSFER_TIME;
    let answer = service_fn(move |request: Request<Incoming>| {
        let on_demand = on_demand.clone();
        async move {
            let response = match guard.check(request.headers()) {
                Ok(()) => on_demand.respond(request).await,
                Err(refusal) => answer::refusal(&refusal),
            };
            Ok::<Response<Full<Bytes>>, Infallible>(response.map(Full::from))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(longest, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection has failed"),
        Err(_) => tracing::debug!("a client has not read its profile in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_hosts() {
        for host in ["localhost", "LOCALHOST:6060", "127.0.0.1", "127.0.0.1:6060", "[::1]:6060", "10.0.0.1"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com", "127.0.0.1.example.com:6060", "[::1", "a b"]
        {
            assert!(!is_address(host), "{host}");
        }
    }
}

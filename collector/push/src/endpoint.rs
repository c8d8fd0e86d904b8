//! A server that profiles are sent to over HTTP, and what its answers mean.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::error::PushError;
use crate::sink::SendError;

/// How much of an answer is read, in bytes. Those that mean something are short.
const MAX_ANSWER: u64 = 64 << 10;
/// How much of an answer is told.
const MAX_REASON: usize = 200;

/// The address of a server, and who we are there.
#[derive(Clone)]
pub struct Endpoint {
    /// Without a slash at its end.
    url: String,
    /// Marked as secret where they are.
    headers: HeaderMap,
    timeout: Duration,
}

/// What a server has answered, when it has taken what it was sent.
pub(crate) struct Answer {
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// What is sent, and how it is marked.
pub(crate) struct Message<'m> {
    /// From the root of the server on, with what is asked by it.
    pub(crate) path: &'m str,
    pub(crate) headers: &'m [(&'static str, &'static str)],
    pub(crate) body: &'m [u8],
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.shown())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An address without the user and the password that are in it, also if it is none.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    match rest.rsplit_once('@') {
        Some((_, rest)) if scheme.is_empty() => rest.to_owned(),
        Some((_, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

impl Endpoint {
    /// The server at an address such as `http://localhost:4040`, that may end in a path. An attempt to send to it takes
    /// 10 s at most.
    ///
    /// # Errors
    /// [`PushError::Url`] if it does not start with `http://` or `https://` and the name of a machine.
    pub fn new(url: &str) -> Result<Self, PushError> {
        let is_known = url.parse::<Uri>().is_ok_and(|uri| {
            let scheme = uri.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
            scheme && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none()
        });
        if !is_known {
            return Err(PushError::Url { url: without_password(url) });
        }
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { url, headers: HeaderMap::new(), timeout: Duration::from_secs(10) })
    }

    /// With a user and a password.
    ///
    /// # Errors
    /// Never for what can be typed: they are encoded.
    pub fn basic(self, user: &str, password: &str) -> Result<Self, PushError> {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.header("user or password", AUTHORIZATION.as_str(), &format!("Basic {encoded}"))
    }

    /// With a token.
    ///
    /// # Errors
    /// [`PushError::Header`] if it has characters that a header cannot hold.
    pub fn bearer(self, token: &str) -> Result<Self, PushError> {
        self.header("token", AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    /// On behalf of a tenant of the server's, as Grafana's servers have them (`X-Scope-OrgID`).
    ///
    /// # Errors
    /// [`PushError::Header`] if it has characters that a header cannot hold.
    pub fn tenant(self, tenant: &str) -> Result<Self, PushError> {
        self.header("tenant", "x-scope-orgid", tenant)
    }

    /// With another longest time for an attempt.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn header(mut self, what: &'static str, name: &'static str, value: &str) -> Result<Self, PushError> {
        let mut value = HeaderValue::from_str(value).map_err(|_| PushError::Header { what })?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// The address as it can be shown: without a password that is in it.
    pub(crate) fn shown(&self) -> String {
        without_password(&self.url)
    }

    /// Sends a message.
    pub(crate) fn post(&self, message: &Message<'_>) -> Result<Answer, SendError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            // A message that was sent elsewhere would arrive there without its body.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("flamewalk/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let mut request = agent.post(format!("{}{}", self.url, message.path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in message.headers {
            request = request.header(*name, *value);
        }
        let response = request.send(message.body).map_err(SendError::temporary)?;
        let status = response.status();
        let header =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (content_type, retry_after) = (header(CONTENT_TYPE).unwrap_or_default(), header(RETRY_AFTER));
        let body = response.into_body().into_with_config().limit(MAX_ANSWER).read_to_vec();
        let body = match body {
            Ok(body) => body,
            // The status says enough.
            Err(_) if !status.is_success() => Vec::new(),
            Err(error) => return Err(SendError::temporary(error)),
        };
        if status.is_success() {
            return Ok(Answer { content_type, body });
        }
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        Err(meaning(status, retry_after, &body))
    }
}

/// What a status that is not success means for the same message: whether it may be taken later.
fn meaning(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> SendError {
    let reason = match reason(body) {
        Some(said) => format!("{status}: {said}"),
        None => status.to_string(),
    };
    let is_temporary = match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        status => status.is_server_error(),
    };
    if is_temporary { SendError::Temporary { reason, retry_after } } else { SendError::Refused { reason } }
}

/// What an answer says, if it is text, or JSON with a message.
fn reason(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str()).unwrap_or(text);
    let message: Vec<&str> = message.split_whitespace().collect();
    let message: String = message.join(" ").chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    (!message.is_empty()).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_servers() {
        for url in ["http://localhost:4040", "https://example.com/pyroscope/", "http://[::1]:80"] {
            assert_eq!(Endpoint::new(url).unwrap().url, url.trim_end_matches('/'));
        }
        for url in ["", "localhost:4040", "ftp://a", "http://", "/path", "http://a b", "http://a/?b=c"] {
            assert!(matches!(Endpoint::new(url), Err(PushError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let endpoint = Endpoint::new("https://me:hunter2@example.com/a").unwrap();
        assert_eq!(endpoint.shown(), "https://example.com/a");
        assert!(!format!("{endpoint:?}").contains("hunter2"), "{endpoint:?}");
        // It once was that the password of an address without a scheme was shown.
        for url in ["https://me:hunter2@example.com/?a", "me:hunter2@example.com:4040"] {
            let refused = Endpoint::new(url).unwrap_err();
            let shown = format!("{refused} {refused:?}");
            assert!(!shown.contains("hunter2") && shown.contains("example.com"), "{shown}");
        }
        let endpoint = Endpoint::new("https://a").unwrap().basic("me", "hunter2").unwrap();
        assert!(!format!("{endpoint:?}").contains("Basic"), "{endpoint:?}");
        assert_eq!(endpoint.headers[AUTHORIZATION], "Basic bWU6aHVudGVyMg==");
        let refused = Endpoint::new("https://a").unwrap().bearer("a\nb: c").unwrap_err();
        assert_eq!(refused.to_string(), "the token holds characters that cannot be sent");
    }

    #[test]
    fn a_status_says_whether_to_come_back() {
        let is_temporary = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            matches!(meaning(status, None, b""), SendError::Temporary { .. })
        };
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(is_temporary(status), "{status}");
        }
        for status in [301, 307, 400, 401, 403, 404, 405, 413, 415, 422, 501, 505] {
            assert!(!is_temporary(status), "{status}");
        }
    }

    #[test]
    fn what_is_told_is_short_and_one_line() {
        let json = br#"{"code":"invalid_argument","message":"no\nservice\u0007 name"}"#;
        assert_eq!(reason(json).unwrap(), "no service name");
        assert_eq!(reason(&"x".repeat(10_000).into_bytes()).unwrap().len(), MAX_REASON);
        assert_eq!(reason(b" \n"), None);
        assert_eq!(reason(b"\xff\xfe"), None);
    }
}

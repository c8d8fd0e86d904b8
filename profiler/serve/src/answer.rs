//! Responses: what is in them and how they are marked.

use flamewalk::profile::Profile;
use flamewalk_profile::format::{Format, write};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderValue, Response};

use crate::refusal::Refusal;
use crate::request::Kind;

/// What a page of ours may do in a browser: show itself, and run the scripts that are in it.
const POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";

impl Kind {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Pprof | Self::Native => "application/octet-stream",
            Self::Flamegraph => "image/svg+xml",
            Self::Report => HTML,
            Self::Folded => TEXT,
        }
    }

    /// What a browser does with it, and how it names it when it is saved.
    fn disposition(self) -> &'static str {
        match self {
            Self::Pprof => "attachment; filename=\"profile.pb.gz\"",
            Self::Flamegraph => "inline; filename=\"profile.svg\"",
            Self::Report => "inline; filename=\"profile.html\"",
            Self::Folded => "inline; filename=\"profile.folded\"",
            Self::Native => "attachment; filename=\"profile.flamewalk\"",
        }
    }

    /// A profile in this form.
    pub(crate) fn render(self, profile: &Profile) -> Result<Vec<u8>, Refusal> {
        let mut content = Vec::new();
        match self {
            Self::Pprof => write(profile, Format::Pprof, &mut content)?,
            Self::Folded => write(profile, Format::Folded, &mut content)?,
            Self::Native => write(profile, Format::Native, &mut content)?,
            Self::Flamegraph => flamewalk_flamegraphs::svg(profile, &Default::default(), &mut content)?,
            Self::Report => flamewalk_flamegraphs::report::html(profile, &Default::default(), &mut content)?,
        }
        Ok(content)
    }
}

pub(crate) fn page(content_type: &'static str, content: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

pub(crate) fn profile(kind: Kind, content: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = page(kind.content_type(), content);
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(kind.disposition()));
    response
}

pub(crate) fn refusal(refusal: &Refusal) -> Response<Vec<u8>> {
    let mut response = page(TEXT, format!("{refusal}\n").into_bytes());
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    // By this `go tool pprof` knows that the text is for its user.
    headers.insert("x-go-pprof", HeaderValue::from_static("1"));
    if matches!(refusal, Refusal::Method { .. }) {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if let Some(after) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, (after.as_secs_f64().ceil() as u64).max(1).into());
    }
    response
}

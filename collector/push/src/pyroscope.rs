//! Grafana Pyroscope, by either of its two ways in.
//!
//! | | [`Api::Push`] | [`Api::Ingest`] |
//! |---|---|---|
//! | path | `/push.v1.PusherService/Push` | `/ingest` |
//! | body | `push.v1.PushRequest`, a unary call of the Connect protocol | the profile |
//! | series | labels, with `__name__` and `service_name` | `name=service{label=value,…}` |
//! | time | in the profile | in the profile, and `from` and `until` in seconds |
//!
//! The messages are those of `api/push/v1/push.proto` and `api/types/v1/types.proto` in github.com/grafana/pyroscope. The
//! profile is pprof's, compressed: its type there is `process_cpu:cpu:nanoseconds:cpu:nanoseconds` for CPU time, and
//! for other events it begins with the event's name. The server makes a series of each set of labels that samples have.

use flamewalk_profile::{Profile, format};
use prost::Message as _;

use crate::endpoint::{Endpoint, Message};
use crate::error::PushError;
use crate::series::Series;
use crate::sink::{SendError, Sink};
use crate::window::{Window, without_threads};

/// Which way a server is sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// That of Pyroscope since version 1.
    #[default]
    Push,
    /// The older one, that its agents use and other servers have too.
    Ingest,
}

/// A Pyroscope server, or what speaks like one.
#[derive(Clone, Debug)]
pub struct Pyroscope {
    endpoint: Endpoint,
    series: Series,
    api: Api,
    with_threads: bool,
}

impl Pyroscope {
    /// A server, and what its profiles are stored under.
    pub fn new(endpoint: Endpoint, series: Series) -> Self {
        Self { endpoint, series, api: Api::Push, with_threads: false }
    }

    /// By another way in.
    ///
    /// # Errors
    /// [`PushError::LabelValue`] for values that [`Api::Ingest`] cannot tell apart: with a comma or a brace.
    pub fn api(mut self, api: Api) -> Result<Self, PushError> {
        if api == Api::Ingest
            && let Some((name, value)) =
                self.series.labels.iter().find(|(_, value)| value.contains([',', '}', '{']))
        {
            let (name, value) = (name.clone(), value.clone());
            return Err(PushError::LabelValue { name, value, reason: "it has a comma or a brace" });
        }
        self.api = api;
        Ok(self)
    }

    /// With the samples' threads as labels. The server then keeps a series for each thread.
    pub fn with_threads(mut self) -> Self {
        self.with_threads = true;
        self
    }

    fn push(&self, window: &Window, content: Vec<u8>) -> Result<(), SendError> {
        let given = self.series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [("__name__", metric(&window.profile)), ("service_name", self.series.service.clone())];
        let mut labels: Vec<LabelPair> = own
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(given)
            .map(|(name, value)| LabelPair { name: name.to_owned(), value: value.to_owned() })
            .collect();
        labels.sort_by(|one, other| one.name.cmp(&other.name));
        let samples = vec![RawSample { raw_profile: content, id: window.uuid() }];
        let request = PushRequest { series: vec![RawProfileSeries { labels, samples }] };
        let answer = self.endpoint.post(&Message {
            path: "/push.v1.PusherService/Push",
            headers: &[("content-type", "application/proto"), ("connect-protocol-version", "1")],
            body: &request.encode_to_vec(),
        })?;
        // A page of somebody else's, who has taken nothing, is a success as well.
        if answer.content_type.split(';').next() != Some("application/proto") {
            let reason = format!("the answer is `{}` and not Pyroscope's", answer.content_type);
            return Err(SendError::temporary(reason));
        }
        PushResponse::decode(answer.body.as_slice()).map(drop).map_err(SendError::temporary)
    }

    fn ingest(&self, window: &Window, content: &[u8]) -> Result<(), SendError> {
        const PATH: &str = "/ingest?";
        let labels: Vec<String> =
            self.series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let seconds = |time: std::time::SystemTime| {
            time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string()
        };
        let mut query = form_urlencoded::Serializer::for_suffix(PATH.to_owned(), PATH.len());
        query
            .append_pair("name", &format!("{}{{{}}}", self.series.service, labels.join(",")))
            .append_pair("from", &seconds(window.begin))
            .append_pair("until", &seconds(window.end))
            .append_pair("format", "pprof")
            .append_pair("spyName", "flamewalk");
        if let Some(rate) = window.profile.metadata.asked_rate {
            query.append_pair("sampleRate", &rate.round().to_string());
        }
        let headers = &[("content-type", "application/octet-stream")];
        self.endpoint.post(&Message { path: &query.finish(), headers, body: content }).map(drop)
    }
}

impl Sink for Pyroscope {
    fn name(&self) -> String {
        format!("Pyroscope at {}", self.endpoint.shown())
    }

    fn send(&mut self, window: &Window) -> Result<(), SendError> {
        let merged = (!self.with_threads).then(|| without_threads(&window.profile));
        let profile = merged.as_ref().unwrap_or(&window.profile);
        let mut content = Vec::new();
        format::write(profile, format::Format::Pprof, &mut content).map_err(SendError::refused)?;
        match self.api {
            Api::Push => self.push(window, content),
            Api::Ingest => self.ingest(window, &content),
        }
    }
}

/// The first part of the type of a profile: `process_cpu`, as all agents call CPU time, or the event's name in characters
/// that a metric's name can have.
fn metric(profile: &Profile) -> String {
    let event = profile.metadata.event.name.as_str();
    if event == "cpu" || event == "cpu-timer" {
        return "process_cpu".to_owned();
    }
    event.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// `push.v1.PushRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<RawProfileSeries>,
}

/// `push.v1.PushResponse`, which says nothing.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PushResponse {}

/// `push.v1.RawProfileSeries`
#[derive(Clone, PartialEq, prost::Message)]
struct RawProfileSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<RawSample>,
}

/// `types.v1.LabelPair`
#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// `push.v1.RawSample`
#[derive(Clone, PartialEq, prost::Message)]
struct RawSample {
    #[prost(bytes = "vec", tag = "1")]
    raw_profile: Vec<u8>,
    #[prost(string, tag = "2")]
    id: String,
}

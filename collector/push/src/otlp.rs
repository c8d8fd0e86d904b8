//! OpenTelemetry's protocol over HTTP: `POST /v1development/profiles`, protobuf in gzip.
//!
//! The signal is in development, and its messages change in ways that servers of another version misread: these are those
//! of version [`OTLP_VERSION`]. `message.rs` says how a profile becomes one.

mod message;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use prost::Message as _;

use crate::endpoint::{Endpoint, Message};
use crate::series::Series;
use crate::sink::{SendError, Sink};
use crate::window::Window;

/// The version of OpenTelemetry's protocol whose messages are sent.
pub const OTLP_VERSION: &str = "1.10.0";

/// A server that takes OpenTelemetry's profiles, such as a collector.
#[derive(Clone, Debug)]
pub struct Otlp {
    endpoint: Endpoint,
    series: Series,
}

impl Otlp {
    /// A server, and the resource that its profiles are of: `service.name`, and labels as attributes.
    pub fn new(endpoint: Endpoint, series: Series) -> Self {
        Self { endpoint, series }
    }
}

impl Sink for Otlp {
    fn name(&self) -> String {
        format!("OTLP at {}", self.endpoint.shown())
    }

    fn send(&mut self, window: &Window) -> Result<(), SendError> {
        let request = message::request(window, &self.series).map_err(SendError::refused)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&request.encode_to_vec()).map_err(SendError::refused)?;
        let body = encoder.finish().map_err(SendError::refused)?;
        let answer = self.endpoint.post(&Message {
            path: "/v1development/profiles",
            headers: &[("content-type", "application/x-protobuf"), ("content-encoding", "gzip")],
            body: &body,
        })?;
        // A page of somebody else's, who has taken nothing, is a success as well.
        if answer.content_type.split(';').next() != Some("application/x-protobuf") {
            return Err(SendError::temporary(format!(
                "the answer is `{}` and not OTLP's",
                answer.content_type
            )));
        }
        let response =
            ExportProfilesServiceResponse::decode(answer.body.as_slice()).map_err(SendError::temporary)?;
        match response.partial_success {
            Some(partial) if partial.rejected_profiles > 0 => Err(SendError::refused(partial.error_message)),
            _ => Ok(()),
        }
    }
}

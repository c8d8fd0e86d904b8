//! Hands a stream of profiles to the systems that store them: Pyroscope, OTLP, folders of files.
//!
//! ```text
//!              each window               for each sink
//!   profiler ─────────────▶ Pusher ──▶ bounded queue ──▶ retries ──▶ Pyroscope
//!                                  ──▶ bounded queue ──▶ retries ──▶ Folder
//! ```
//!
//! A [`Pusher`] takes a profile at each multiple of its window's length on the wall clock, so that the windows of a fleet
//! of machines are the same, and gives it to each [`Sink`]. A sink that is slow, down or answers nonsense neither delays
//! the others nor the sampling, and takes bounded memory: what it cannot take is dropped and counted, by cause
//! ([`SinkStatistics`]). Profiles are stored, merged and queried where they are sent to.
//!
//! Where profiles come from is a function of the embedder's, such as the profiler's own `take`:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use flamewalk_profile::{Metadata, Profile};
//! # use flamewalk_push::{Endpoint, Folder, Options, PushError, Pusher, Pyroscope, Series, Sink};
//! # fn push(take: fn(Metadata) -> Result<Profile, std::io::Error>) -> Result<(), PushError> {
//! let endpoint = Endpoint::new("http://localhost:4040")?;
//! let series = Series::new("checkout")?.label("region", "eu")?;
//! let sinks: Vec<Box<dyn Sink>> = vec![
//!     Box::new(Pyroscope::new(endpoint, series)),
//!     Box::new(Folder::new("profiles")?.max_files(100)),
//! ];
//! let pusher = Pusher::start(Options::default(), sinks, move || Ok(take(Metadata::default())?))?;
//! // For as long as the process runs; then what is left is sent:
//! for (sink, statistics) in pusher.stop(Duration::from_secs(5)).sinks {
//!     println!("{sink}: {statistics:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! - `experimental-otlp`: a sink `Otlp`, for profiles as OpenTelemetry's protocol has them, whose authors still change it.

#![forbid(unsafe_code)]

mod backoff;
mod endpoint;
mod error;
mod folder;
mod lane;
#[cfg(feature = "experimental-otlp")]
mod otlp;
mod pusher;
mod pyroscope;
mod series;
mod sink;
mod statistics;
mod timestamp;
mod window;

pub use backoff::Retries;
pub use endpoint::Endpoint;
pub use error::PushError;
pub use folder::Folder;
#[cfg(feature = "experimental-otlp")]
pub use otlp::{OTLP_VERSION, Otlp};
pub use pusher::{Options, Pusher};
pub use pyroscope::{Api, Pyroscope};
pub use series::Series;
pub use sink::{SendError, Sink};
pub use statistics::{SinkStatistics, Statistics};
pub use window::Window;

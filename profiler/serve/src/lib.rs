//! Profiles on demand over HTTP, as a function that any server can mount and as a small server.
//!
//! Nothing is offered unless the embedder asks for it. [`OnDemand`] answers `GET` requests below `/debug/pprof/`, as Go's
//! `net/http/pprof` does, so that `go tool pprof`, scrapers and browsers know what to do with them:
//!
//! | path | answer |
//! |---|---|
//! | `/debug/pprof/` | a page that lists the others |
//! | `/debug/pprof/profile` | a profile for pprof, compressed |
//! | `/debug/pprof/flamegraph` | a flame graph in SVG |
//! | `/debug/pprof/report` | a report for the browser, one HTML file |
//! | `/debug/pprof/folded` | folded stacks |
//! | `/debug/pprof/flamewalk` | a profile in flamewalk's own format, which keeps everything |
//! | `/debug/pprof/stats` | what became of the ticks and what the profiler takes, as JSON |
//!
//! | parameter | meaning |
//! |---|---|
//! | `seconds=2.5` | how long to sample, up to [`Options::max_duration`]; without it [`Options::duration`] |
//! | `hz=499` | at which rate; without it the profiler's |
//! | `label=tenant=a` | only what was sampled in stores with this label; may be repeated, and then all of them |
//!
//! # Several at once
//! Each request has a [`Window`](flamewalk::Window) of its own. Requests share the ticks and nothing else: each gets what
//! was sampled while it waited, and neither another request nor a profiler that is running already is disturbed. If
//! nothing else samples, sampling ends with the last request. There can be [`Options::max_requests`] at once, and further
//! ones are refused with status 429. A rate that is not the one that others are being served at is refused with status
//! 409, and so is everything while the profiler is paused. When a client goes away, its window is closed at once.
//!
//! # Security
//! There is no authentication: whoever can send a request sees the names of all guests' functions, threads and labels.
//! [`Server`] therefore listens on a Unix socket for its own user, or on a loopback address; behind a server of the
//! embedder's own, [`OnDemand`] is to be mounted where only operators get to. A request for labels shows nothing of
//! others than those, but nothing keeps its sender from asking for other labels. Requests that another web site has a
//! browser send are refused.
//!
//! ```no_run
//! # fn offer(profiler: flamewalk::Profiler) -> Result<(), flamewalk_serve::ServeError> {
//! use std::sync::Arc;
//! use flamewalk_serve::{OnDemand, Options, Server};
//!
//! let on_demand = OnDemand::new(Arc::new(profiler), Options::default());
//! // For as long as they live: for `go tool pprof http://127.0.0.1:6060`, and for tools of the same user.
//! let loopback = Server::tcp(on_demand.clone(), ([127, 0, 0, 1], 6060).into())?;
//! let socket = Server::offer(on_demand)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod answer;
mod client;
mod connection;
mod error;
mod index;
mod on_demand;
mod refusal;
mod request;
mod server;
mod socket;
mod stats;

pub use client::{Ask, fetch};
pub use error::{FetchError, ServeError};
pub use on_demand::{OnDemand, Options};
pub use server::Server;
pub use socket::{offered_by, path};

//! From a request to a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flamewalk::Profiler;
use flamewalk::profile::Metadata;
use http::request::Parts;
use http::{Method, Request, Response};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::refusal::Refusal;
use crate::request::{Kind, Page, Wanted};
use crate::{answer, index, request, stats};

/// What is offered. Start from [`Options::default`] and change what is to be different.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Below which path the requests are. Default: `/debug/pprof/`.
    pub prefix: String,
    /// How long is sampled if the request does not say. Default: 30 s, as Go has it.
    pub duration: Duration,
    /// How long is sampled at most; longer requests are refused. Default: 5 min.
    pub max_duration: Duration,
    /// How many profiles are taken at once; further requests are refused. Default: 4.
    pub max_requests: usize,
    /// What the profiles call the guests: [`Metadata::guest`].
    pub guest: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "/debug/pprof/".to_owned(),
            duration: Duration::from_secs(30),
            max_duration: Duration::from_secs(300),
            max_requests: 4,
            guest: None,
        }
    }
}

impl Options {
    /// The path of the page that lists the others.
    pub(crate) fn index(&self) -> String {
        format!("{}/", self.prefix.trim_end_matches('/'))
    }
}

/// Answers requests for profiles. Clones share what they offer and its limits.
#[derive(Clone, Debug)]
pub struct OnDemand {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    profiler: Arc<Profiler>,
    options: Options,
    /// As many as profiles can be taken at once.
    permits: Arc<Semaphore>,
    /// Requests that were answered with what they asked for.
    answered: AtomicU64,
    refused: AtomicU64,
}

impl OnDemand {
    /// Offers the profiles of `profiler`, to whoever is let through to [`OnDemand::respond`].
    pub fn new(profiler: Arc<Profiler>, options: Options) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_requests.min(Semaphore::MAX_PERMITS)));
        let (answered, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { profiler, options, permits, answered, refused }) }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The response to a request; to one for anything else, a response that says so. The request's body is not read.
    ///
    /// Dropping the future ends the wait and the sampling for it. What cannot be done is in the response: status 400 for
    /// parameters that make no sense, 403, 404, 405, 409 and 429 as described for [this crate](crate), 500 and 503 if
    /// the profiler fails.
    ///
    /// # Panics
    /// When it is polled outside of a Tokio runtime whose timer is enabled.
    pub fn respond<B>(&self, request: Request<B>) -> impl Future<Output = Response<Vec<u8>>> + Send + use<B> {
        let (head, _body) = request.into_parts();
        let shared = Arc::clone(&self.shared);
        async move {
            let result = shared.answer(&head).await;
            // Read by nobody but for their values.
            let count = if result.is_ok() { &shared.answered } else { &shared.refused };
            count.fetch_add(1, Ordering::Relaxed);
            let mut response = result.unwrap_or_else(|refusal| {
                tracing::info!(path = head.uri.path(), %refusal, "request for a profile refused");
                answer::refusal(&refusal)
            });
            if head.method == Method::HEAD {
                response.body_mut().clear();
            }
            response
        }
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, head: &Parts) -> Result<Response<Vec<u8>>, Refusal> {
        match request::page(head, &self.options)? {
            Page::Index => Ok(answer::page(answer::HTML, index::html(&self.options).into_bytes())),
            Page::Stats => {
                let shared = Arc::clone(self);
                // May wait for the collector.
                let stats = blocking(move || Ok(stats::json(&shared.profiler, shared.requests())?)).await?;
                Ok(answer::page(answer::JSON, format!("{stats:#}\n").into_bytes()))
            }
            Page::Profile(kind) => {
                let wanted = request::wanted(head, &self.options)?;
                // What is asked for is that, and not to take a profile for nobody.
                if head.method == Method::HEAD {
                    return Ok(answer::profile(kind, Vec::new()));
                }
                let content = self.profile(kind, wanted).await?;
                Ok(answer::profile(kind, content))
            }
        }
    }

    async fn profile(self: &Arc<Self>, kind: Kind, wanted: Wanted) -> Result<Vec<u8>, Refusal> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Refusal::TooMany {
            most: self.options.max_requests,
            retry_after: wanted.duration,
        })?;
        if self.profiler.is_paused() {
            return Err(Refusal::Paused);
        }
        let Wanted { duration, rate, labels } = wanted;
        let shared = Arc::clone(self);
        // Opening and finishing may wait for the collector.
        let (window, permit) = blocking(move || Ok((shared.profiler.window(rate)?, permit))).await?;
        tokio::time::sleep(duration).await;
        let mut metadata = Metadata::default();
        metadata.guest = self.options.guest.clone();
        blocking(move || {
            // One that nobody waits for any more counts for as long as it takes.
            let _permit: OwnedSemaphorePermit = permit;
            let profile = match labels {
                Some(labels) => window.finish_labelled(labels, metadata)?,
                None => window.finish(metadata)?,
            };
            kind.render(&profile)
        })
        .await
    }

    fn requests(&self) -> serde_json::Value {
        let under_way = self.options.max_requests.saturating_sub(self.permits.available_permits());
        json!({
            "answered": self.answered.load(Ordering::Relaxed),
            "refused": self.refused.load(Ordering::Relaxed),
            "under_way": under_way,
        })
    }
}

/// Does work that takes its time elsewhere.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(work).await.unwrap_or(Err(Refusal::Panicked))
}

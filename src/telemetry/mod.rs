//! Traces of paid requests for a collector of the operator's, as OpenTelemetry has them: one span for the request,
//! one for each thing that it waited for. Where no collector is named there is nothing: no span, no clock, no queue.
//!
//! A span says what the code here puts into it, name by name, and never what a log line says: times, counts, amounts,
//! outcomes, and names that the operator gave. Nothing of a client is among them, and no address.
//!
//! The messages are those of the crate `opentelemetry-proto`. Its SDK is not used: that has a thread, a clock, an
//! HTTP client and readers of the environment of its own. Here finished spans wait in a queue of fixed size, and a
//! job posts them.

mod trace;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::sync::Notify;
use url::Url;

use crate::clock::SharedClock;
use crate::config;
use crate::net::NetError;
use crate::net::post::{PostError, Poster};
use crate::net::way::Way;

pub use trace::{Link, Step, Trace, Value};

use trace::pair;

const MEDIA: &str = "application/x-protobuf";
/// Most spans that wait; those beyond it are dropped, and counted.
const MOST_WAITING: usize = 8_192;
/// Spans that are posted at a time.
const BATCH: usize = 512;

/// Collects spans, and brings them to the collector. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Collector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    poster: Poster,
    url: Url,
    headers: Vec<(String, config::Secret)>,
    resource: Resource,
    clock: SharedClock,
    waiting: Mutex<VecDeque<Span>>,
    sent: AtomicU64,
    dropped: AtomicU64,
    is_full: Notify,
}

impl Collector {
    /// The collector that the configuration names, if it names one. `node`: the process, as the database knows it.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn from_config(
        config: &config::Traces,
        way: &Way,
        node: &str,
        version: &str,
        clock: &SharedClock,
    ) -> Result<Option<Self>, NetError> {
        let Some(url) = config.url.clone() else { return Ok(None) };
        let attributes =
            [("service.name", &*config.service), ("service.version", version), ("service.instance.id", node)];
        let attributes = attributes.map(|(name, text)| pair(name, &Value::from(text))).to_vec();
        let inner = Inner {
            poster: Poster::new(way)?,
            url,
            headers: config.headers.clone(),
            resource: Resource { attributes, ..Resource::default() },
            clock: Arc::clone(clock),
            waiting: Mutex::default(),
            sent: AtomicU64::default(),
            dropped: AtomicU64::default(),
            is_full: Notify::new(),
        };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// Begins the trace of a request.
    #[must_use]
    pub fn begin(&self, link: Option<Link>) -> Trace {
        Trace::begin(self.clone(), self.inner.clock.now_ms(), link)
    }

    fn take(&self, spans: Vec<Span>) {
        let mut waiting = self.waiting();
        let room = MOST_WAITING.saturating_sub(waiting.len());
        if spans.len() > room {
            self.count_dropped(spans.len());
            return;
        }
        waiting.extend(spans);
        if waiting.len() >= BATCH {
            self.inner.is_full.notify_one();
        }
    }

    /// Waits until there is a batch.
    pub async fn filled(&self) {
        self.inner.is_full.notified().await;
    }

    /// Posts what waits. What the collector does not take for now waits on.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub async fn export(&self) -> Result<(), PostError> {
        loop {
            let batch: Vec<Span> = {
                let mut waiting = self.waiting();
                let most = BATCH.min(waiting.len());
                waiting.drain(..most).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            let count = batch.len();
            match self.post(batch.clone()).await {
                Ok(()) => self.inner.sent.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed),
                // It will not take these later, either.
                Err(error @ PostError::Status(status)) if matches!(status, 400..=499) && status != 429 => {
                    self.count_dropped(count);
                    return Err(error);
                }
                Err(error) => {
                    let mut waiting = self.waiting();
                    if waiting.len().saturating_add(count) > MOST_WAITING {
                        self.count_dropped(count);
                    } else {
                        batch.into_iter().rev().for_each(|span| waiting.push_front(span));
                    }
                    return Err(error);
                }
            };
        }
    }

    async fn post(&self, spans: Vec<Span>) -> Result<(), PostError> {
        let Inner { poster, url, headers, resource, .. } = &*self.inner;
        let scope = InstrumentationScope { name: "coinslot".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
        let resource = Some(resource.clone());
        let message = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: String::new() }],
        };
        let headers: Vec<(&str, String)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned())).collect();
        poster.post(url, MEDIA, &headers, Bytes::from(message.encode_to_vec())).await
    }

    /// Spans that were sent, and that were dropped.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.inner.sent.load(Ordering::Relaxed), self.inner.dropped.load(Ordering::Relaxed))
    }

    fn count_dropped(&self, count: usize) {
        self.inner.dropped.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

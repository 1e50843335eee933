//! One attempt at one upstream: nothing of the client but its body.
//!
//! Requests are built from nothing: method, path, body, content type, the few headers that the dialect's
//! protocol is made of, and the operator's own key and headers. No other header of the client is copied,
//! so its credentials, cookies, address and tracing stay here.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request};
use tokio::time::Instant;

use super::provider::Upstream;
use super::sending;
use crate::config::Timeouts;
use crate::dialect::Ask;
use crate::net::alarm::Alarm;
use crate::net::{self, NetError};

/// Longest whole answer that is read.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest error body that is looked at.
const MAX_ERROR: usize = 64 * 1024;
/// How often its times to begin and to pause may pass before the first content comes. Comments and whitespace say that
/// an upstream lives: it may think for longer then, as some models do for many minutes, but not for ever, since a place
/// and the client's money are held meanwhile.
const THINKING_TIMES: u32 = 4;

/// Why an attempt gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// No connection came about, and nothing was sent.
    #[error("the upstream cannot be reached")]
    Unreachable,
    #[error("the upstream did not answer in time")]
    TimedOut,
    #[error("the exchange with the upstream broke off")]
    Broken,
    #[error("the upstream's answer is too large")]
    TooLarge,
    /// It answered with an error status, or began with success and said one inside its answer.
    #[error("the upstream answered {}", .0.status)]
    Refused(Refused),
}

/// An upstream's error answer, scrubbed of the node's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    /// Seconds, when it said.
    pub retry_after: Option<u64>,
    pub message: Option<String>,
    pub kind: Option<String>,
    pub code: Option<String>,
    pub param: Option<String>,
}

/// An answer with a success status, whose body has not been read.
#[derive(Debug)]
pub struct Answer {
    response: reqwest::Response,
    idle_timeout: Duration,
    /// When all of it must have come.
    end: Option<Instant>,
    /// When its first content must have come; `None` once it has.
    content_by: Option<Instant>,
    /// Goes off when the next piece is late. There is none before one was waited for.
    alarm: Option<Alarm>,
}

/// What a body claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    EventStream,
    Other,
}

impl Upstream {
    /// Sends one request and waits for the head of the answer. `model`: what this upstream calls it;
    /// some have it in the address.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn forward(&self, ask: Ask, model: &str) -> Result<Answer, ForwardError> {
        let headers = self.headers(&ask)?;
        let began = Instant::now();
        let end = self.timeouts.total.and_then(|total| began.checked_add(total));
        // Put together as it is sent: a builder would hang every header up once more.
        let mut request = Request::new(Method::POST, self.url(&ask, model));
        *request.headers_mut() = headers;
        *request.body_mut() = Some(sending::body(ask.body));
        let first_byte = self.timeouts.first_byte;
        let patience = self.timeouts.total.map_or(first_byte, |total| total.min(first_byte));
        let response = match tokio::time::timeout(patience, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            // Also of a connection: whoever waited that long does not want to wait once more.
            Ok(Err(error)) if error.is_timeout() => return Err(ForwardError::TimedOut),
            Ok(Err(error)) => return Err(failed(NetError::from(&error))),
            Err(_) => return Err(ForwardError::TimedOut),
        };
        if response.status().is_success() {
            let content_by = began.checked_add(thinking_time(&self.timeouts));
            return Ok(Answer { response, idle_timeout: self.timeouts.idle, end, content_by, alarm: None });
        }
        Err(ForwardError::Refused(self.read_refusal(response).await))
    }

    /// What the wire format wants, the key, and over them what the operator wants.
    fn headers(&self, ask: &Ask) -> Result<HeaderMap, ForwardError> {
        let mut headers = HeaderMap::with_capacity(8);
        let media = match &ask.media {
            Cow::Borrowed(media) => HeaderValue::from_static(media),
            Cow::Owned(media) => HeaderValue::from_str(media).map_err(|_| ForwardError::Broken)?,
        };
        headers.insert(CONTENT_TYPE, media);
        headers.insert(ACCEPT, HeaderValue::from_static(ask.accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in &ask.headers {
            let value = HeaderValue::from_str(value).map_err(|_| ForwardError::Broken)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some((name, value)) = self.credential(ask.format).map_err(failed)? {
            headers.insert(name, value);
        }
        self.override_headers(&mut headers);
        Ok(headers)
    }

    async fn read_refusal(&self, response: reqwest::Response) -> Refused {
        let status = response.status().as_u16();
        let retry_after = net::retry_after(&response);
        let body = tokio::time::timeout(self.timeouts.idle, net::read_limited(response, MAX_ERROR)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        // Some vendors send an array, some put text where an object should be.
        let value = value.get(0).unwrap_or(&value);
        let error = value.get("error").unwrap_or(value);
        let text =
            |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_str).map(|text| self.scrub(text));
        Refused {
            status,
            retry_after,
            message: text(error.get("message")).or_else(|| text(Some(error))).or_else(|| text(value.get("detail"))),
            kind: text(error.get("type").or_else(|| error.get("status"))),
            code: text(error.get("code")),
            param: text(error.get("param")),
        }
    }
}

impl Answer {
    /// `Content-Type` of the body, in lower case.
    #[must_use]
    pub fn content_type(&self) -> String {
        let media = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        media.unwrap_or_default().to_ascii_lowercase()
    }

    /// What the body claims to be.
    #[must_use]
    pub fn media(&self) -> Media {
        let media = self.content_type();
        if media.starts_with("text/event-stream") {
            Media::EventStream
        } else if media.starts_with("application/json") || media.contains("+json") {
            Media::Json
        } else {
            Media::Other
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it is too large, stalls, or breaks off.
    pub async fn whole(mut self) -> Result<Bytes, ForwardError> {
        let mut body = match self.piece().await? {
            Some(first) => first,
            None => return Ok(Bytes::new()),
        };
        let mut more = Vec::new();
        while let Some(chunk) = self.piece().await? {
            if more.is_empty() {
                more.extend_from_slice(&body);
            }
            more.extend_from_slice(&chunk);
            if more.len() > MAX_ANSWER {
                return Err(ForwardError::TooLarge);
            }
        }
        if !more.is_empty() {
            body = Bytes::from(more);
        }
        Ok(body)
    }

    /// The next piece of a whole body. Some upstreams send whitespace before it while they work.
    async fn piece(&mut self) -> Result<Option<Bytes>, ForwardError> {
        let piece = self.chunk().await?;
        if piece.as_ref().is_some_and(|piece| !piece.trim_ascii().is_empty()) {
            self.note_content();
        }
        Ok(piece)
    }

    /// Notes that its first content has come, as whoever reads it can tell: from here on it may take its time.
    pub fn note_content(&mut self) {
        self.content_by = None;
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it stalls, breaks off, or its time is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ForwardError> {
        // Never, if it is beyond what the clock can tell.
        let silent = Instant::now().checked_add(self.idle_timeout);
        let due = [silent, self.end, self.content_by].into_iter().flatten().min();
        let alarm = &mut self.alarm;
        if let (Some(alarm), Some(due)) = (alarm.as_mut(), due) {
            alarm.set(due);
        }
        let mut chunk = pin!(self.response.chunk());
        let chunk = poll_fn(|cx| {
            if let Poll::Ready(chunk) = chunk.as_mut().poll(cx) {
                return Poll::Ready(Some(chunk));
            }
            let Some(due) = due else { return Poll::Pending };
            alarm.get_or_insert_with(|| Alarm::new(due)).poll(cx).map(|()| None)
        });
        match chunk.await {
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(failed(NetError::from(&error))),
            None => Err(ForwardError::TimedOut),
        }
    }
}

/// From the request to the first content.
fn thinking_time(timeouts: &Timeouts) -> Duration {
    timeouts.first_byte.saturating_add(timeouts.idle).saturating_mul(THINKING_TIMES)
}

fn failed(error: NetError) -> ForwardError {
    match error {
        NetError::Connect => ForwardError::Unreachable,
        NetError::Timeout => ForwardError::TimedOut,
        NetError::TooLarge(_) => ForwardError::TooLarge,
        NetError::Address(_) | NetError::Other(_) => ForwardError::Broken,
    }
}

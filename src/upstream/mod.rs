//! The API behind the node: one attempt at a time, nothing of the client but its body.
//!
//! Requests are built from nothing: method, path, body, content type, the node's own key, and the
//! few headers that the dialect's protocol is made of. No other header of the client is copied, so
//! its credentials, cookies, address and tracing stay here.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use url::Url;

use crate::config;
use crate::dialect::{Ask, Protocol};
use crate::net::{self, ClientOptions, NetError};

/// Longest whole answer that is read.
pub const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest error body that is looked at.
const MAX_ERROR: usize = 64 * 1024;

/// An upstream.
#[derive(Debug)]
pub struct Upstream {
    base: Url,
    authorization: Option<HeaderValue>,
    /// The bare key, to be found and removed should the upstream echo it.
    key: Option<config::Secret>,
    client: reqwest::Client,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
}

/// Why an attempt gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Nothing was sent.
    #[error("the upstream cannot be reached")]
    Unreachable,
    #[error("the upstream did not answer in time")]
    TimedOut,
    #[error("the exchange with the upstream broke off")]
    Broken,
    #[error("the upstream's answer is too large")]
    TooLarge,
    /// It answered with an error status.
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
}

/// What a body claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    EventStream,
    Other,
}

impl Upstream {
    /// # Errors
    /// When the HTTP client cannot be built, or the key cannot be a header.
    pub fn new(config: &config::Upstream) -> Result<Self, NetError> {
        let client =
            net::client(&ClientOptions { connect_timeout: config.connect_timeout, ..ClientOptions::default() })?;
        let authorization = match &config.api_key {
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
                    .map_err(|_| NetError::Other("UPSTREAM_API_KEY cannot be sent in a header"))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            base: config.base_url.clone(),
            authorization,
            key: config.api_key.clone(),
            client,
            first_byte_timeout: config.first_byte_timeout,
            idle_timeout: config.idle_timeout,
        })
    }

    /// What clients are told about who served them. Never the address.
    #[must_use]
    pub fn label(&self) -> &'static str {
        "generic"
    }

    /// Sends one request and waits for the head of the answer.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn forward(&self, ask: Ask) -> Result<Answer, ForwardError> {
        let media = HeaderValue::from_str(&ask.media).map_err(|_| ForwardError::Broken)?;
        let mut request = self
            .client
            .post(self.url(&ask))
            .header(CONTENT_TYPE, media)
            .header(ACCEPT, HeaderValue::from_static(ask.accept))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .body(ask.body);
        for (name, value) in &ask.headers {
            request = request.header(*name, value.as_str());
        }
        if let Some((name, value)) = self.credential(ask.protocol) {
            request = request.header(name, value);
        }
        let response = match tokio::time::timeout(self.first_byte_timeout, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failed(NetError::from(&error))),
            Err(_) => return Err(ForwardError::TimedOut),
        };
        if response.status().is_success() {
            return Ok(Answer { response, idle_timeout: self.idle_timeout });
        }
        Err(ForwardError::Refused(self.read_refusal(response).await))
    }

    /// The node's key, in the header where the protocol has it.
    fn credential(&self, protocol: Protocol) -> Option<(HeaderName, HeaderValue)> {
        let name = match protocol {
            Protocol::OpenAi => return self.authorization.clone().map(|value| (AUTHORIZATION, value)),
            Protocol::Anthropic => HeaderName::from_static("x-api-key"),
            Protocol::Gemini => HeaderName::from_static("x-goog-api-key"),
        };
        let mut value = HeaderValue::from_str(self.key.as_ref()?.expose()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }

    fn url(&self, ask: &Ask) -> Url {
        let mut url = self.base.clone();
        let mut base = self.base.path().trim_end_matches('/').to_owned();
        // Google's own routes have another version, beside that of all others.
        if ask.protocol == Protocol::Gemini
            && let Some(root) = base.strip_suffix("/v1")
        {
            base = format!("{root}/v1beta");
        }
        url.set_path(&format!("{base}/{}", ask.path));
        url.set_query(ask.query);
        url
    }

    async fn read_refusal(&self, response: reqwest::Response) -> Refused {
        let status = response.status().as_u16();
        let retry_after = net::retry_after(&response);
        let body = tokio::time::timeout(self.idle_timeout, net::read_limited(response, MAX_ERROR)).await;
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

    /// Foreign text as it may be shown: bounded, printable, without the node's key or any part of
    /// the upstream's address.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
        if let Some(key) = &self.key
            && !key.expose().is_empty()
        {
            text = text.replace(key.expose(), "[removed]");
        }
        if let Some(host) = self.base.host_str() {
            text = text.replace(host, "[removed]");
        }
        // Last: a cut through the key would leave a part of it that is not found.
        text.chars().take(500).collect()
    }

    /// Whether foreign bytes contain the node's key.
    #[must_use]
    pub fn leaks(&self, bytes: &[u8]) -> bool {
        match &self.key {
            // Keys of a few characters are placeholders; they would be found everywhere.
            Some(key) if key.expose().len() >= 8 => memchr::memmem::find(bytes, key.expose().as_bytes()).is_some(),
            _ => false,
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
        let mut body = match self.chunk().await? {
            Some(first) => first,
            None => return Ok(Bytes::new()),
        };
        let mut more = Vec::new();
        while let Some(chunk) = self.chunk().await? {
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

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it stalls or breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ForwardError> {
        match tokio::time::timeout(self.idle_timeout, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(failed(NetError::from(&error))),
            Err(_) => Err(ForwardError::TimedOut),
        }
    }
}

fn failed(error: NetError) -> ForwardError {
    match error {
        NetError::Connect => ForwardError::Unreachable,
        NetError::Timeout => ForwardError::TimedOut,
        NetError::TooLarge(_) => ForwardError::TooLarge,
        NetError::Address(_) | NetError::Other(_) => ForwardError::Broken,
    }
}

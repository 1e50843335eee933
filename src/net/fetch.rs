//! Documents that change seldom: fetched whole, within limits, and only if they are new
//! (`If-None-Match`, RFC 9110 §13.1.2).

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, StatusCode};
use url::Url;

use super::way::Way;
use super::{ClientOptions, NetError, check_url, client, read_limited};

/// Longest tag that is kept.
const MAX_TAG: usize = 200;

/// How much of a server's time and words is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: usize,
    /// From the first byte sent to the last byte read.
    pub timeout: Duration,
}

/// What a server had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// What it had before.
    Unchanged,
    New {
        body: Bytes,
        /// By which it is recognised the next time.
        etag: Option<String>,
    },
}

/// Why there is no document. Holds no address and no foreign text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the server answered with status {0}")]
    Status(u16),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Net(error.into())
    }
}

/// Fetches what the operator named.
#[derive(Clone, Debug)]
pub struct Fetcher(Client);

impl Fetcher {
    /// # Errors
    /// When the TLS backend does not start.
    pub fn new(way: &Way) -> Result<Self, NetError> {
        client(&ClientOptions { idle_per_host: 1, way: way.clone(), ..ClientOptions::default() }).map(Self)
    }

    /// The document at `url`, unless it is still the one with this tag.
    ///
    /// # Errors
    /// When the address is not one that this node talks to, or the server does not answer as it should.
    pub async fn get(&self, url: &Url, tag: Option<&str>, limits: Limits) -> Result<Fetched, FetchError> {
        check_url(url)?;
        get(&self.0, url, HeaderMap::new(), tag, limits).await
    }
}

/// The document at `url`, unless it is still the one with this tag, asked for with these headers.
///
/// # Errors
/// When the server does not answer as it should, or in time.
pub async fn get(
    client: &Client,
    url: &Url,
    mut headers: HeaderMap,
    tag: Option<&str>,
    limits: Limits,
) -> Result<Fetched, FetchError> {
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    let tag = tag.and_then(|tag| HeaderValue::from_str(tag).ok());
    if let Some(tag) = &tag {
        headers.insert(IF_NONE_MATCH, tag.clone());
    }
    let asked = async {
        let response = client.get(url.clone()).headers(headers).send().await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if tag.is_some() => return Ok(Fetched::Unchanged),
            StatusCode::OK => {}
            other => return Err(FetchError::Status(other.as_u16())),
        }
        let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let etag = etag.filter(|tag| !tag.is_empty() && tag.len() <= MAX_TAG);
        Ok(Fetched::New { body: read_limited(response, limits.max_bytes).await?, etag })
    };
    tokio::time::timeout(limits.timeout, asked).await.unwrap_or(Err(FetchError::Net(NetError::Timeout)))
}

//! Asking a source of prices what it lists.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use url::Url;

use super::listed::List;
use super::litellm;
use super::repo::Source;
use crate::config::{PriceSource, PriceSourceKind};
use crate::net::fetch::{FetchError, Fetched, Fetcher, Limits};
use crate::upstream::{Pool, Upstream};
use crate::vault::hex;

/// LiteLLM's table has 3.5 MB, OpenRouter's list less than one.
const LIMITS: Limits = Limits { max_bytes: 16 * 1024 * 1024, timeout: Duration::from_secs(30) };

const OPENROUTER: &str = "https://openrouter.ai/api/v1/models";
const LITELLM: &str = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json";

/// Whose list it is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    OpenRouter(Url),
    LiteLlm(Url),
    Own(Arc<Upstream>),
}

impl Place {
    /// The places of all sources, in their order. `upstreams` are as many as there are.
    pub fn all(sources: &[PriceSource], pool: &Pool) -> Vec<Self> {
        let mut places = Vec::new();
        for source in sources {
            let url = |own: &str| source.url.clone().or_else(|| own.parse().ok());
            match source.kind {
                PriceSourceKind::OpenRouter => places.extend(url(OPENROUTER).map(Self::OpenRouter)),
                PriceSourceKind::LiteLlm => places.extend(url(LITELLM).map(Self::LiteLlm)),
                PriceSourceKind::Upstreams => {
                    places.extend(pool.upstreams().into_iter().filter(|upstream| upstream.has_list()).map(Self::Own));
                }
            }
        }
        places
    }

    /// The name under which what it says is kept.
    pub fn name(&self) -> String {
        match self {
            Self::OpenRouter(_) => "openrouter".to_owned(),
            Self::LiteLlm(_) => "litellm".to_owned(),
            Self::Own(upstream) => own_name(upstream.name()),
        }
    }

    /// A digest, because an address may carry a key.
    fn address(&self) -> String {
        let url = match self {
            Self::OpenRouter(url) | Self::LiteLlm(url) => url.clone(),
            Self::Own(upstream) => upstream.list_url(),
        };
        digest(url.as_str().as_bytes())
    }

    /// Asks what it lists, unless that is what it said before; whether it said something new.
    pub async fn ask(&self, fetcher: &Fetcher, before: Option<&Source>, now_ms: i64) -> (Source, bool) {
        let (name, address) = (self.name(), self.address());
        // What cannot be read is fetched anew, be it the same.
        let before = before.filter(|source| source.address == address && List::stored(&source.list).is_ok());
        let tag = before.map(|source| source.etag.as_str()).filter(|tag| !tag.is_empty());
        let fetched = match self {
            Self::OpenRouter(url) | Self::LiteLlm(url) => fetcher.get(url, tag, LIMITS).await,
            Self::Own(upstream) => upstream.fetch_list(tag, LIMITS).await,
        };
        let mut source = Source { name, address, checked_ms: now_ms, ..before.cloned().unwrap_or_default() };
        source.trouble.clear();
        match self.read(fetched, before).await {
            Ok(None) => (source, false),
            Ok(Some((list, etag, digest))) => {
                source.list = list.to_json();
                source.notes = list.notes.join("\n");
                source.etag = etag;
                source.digest = digest;
                source.changed_ms = Some(now_ms);
                (source, true)
            }
            Err(trouble) => {
                source.trouble = trouble;
                (source, false)
            }
        }
    }

    async fn read(
        &self,
        fetched: Result<Fetched, FetchError>,
        before: Option<&Source>,
    ) -> Result<Option<(List, String, String)>, String> {
        let (body, etag) = match fetched.map_err(|error| error.to_string())? {
            Fetched::Unchanged => return Ok(None),
            Fetched::New { body, etag } => (body, etag.unwrap_or_default()),
        };
        let digest = digest(&body);
        if before.is_some_and(|source| source.digest == digest) {
            return Ok(None);
        }
        let is_table = matches!(self, Self::LiteLlm(_));
        let parse = move |body: Bytes| if is_table { litellm::read(&body) } else { List::read(&body) };
        let read = tokio::task::spawn_blocking(move || parse(body)).await;
        let list = read.map_err(|_| "reading it failed".to_owned())??;
        Ok(Some((list, etag, digest)))
    }
}

/// What the name of an upstream's own list begins with.
pub(super) const OWN: &str = "upstream ";

/// The name of an upstream's own list.
pub(super) fn own_name(upstream: &str) -> String {
    format!("{OWN}{upstream}")
}

fn digest(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).get(..16).unwrap_or_default())
}

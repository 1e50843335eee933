//! An upstream's own list of models (`GET …/models`): which it has, and what they cost there.

use reqwest::header::HeaderMap;
use url::Url;

use super::Upstream;
use super::provider::join;
use crate::config::UpstreamKind;
use crate::dialect::WireFormat;
use crate::net::NetError;
use crate::net::fetch::{self, FetchError, Fetched, Limits};

impl Upstream {
    /// Whether it has such a list in the common format, by itself or by its kind.
    #[must_use]
    pub fn has_list(&self) -> bool {
        use UpstreamKind::{Anthropic, Azure, Gemini, Perplexity};
        !matches!(self.kind(), Anthropic | Azure | Gemini | Perplexity)
    }

    /// Where its list is.
    #[must_use]
    pub fn list_url(&self) -> Url {
        let mut url = self.base.clone();
        url.set_path(&join(self.base.path(), &format!("{}/models", self.root())));
        url
    }

    /// Fetches its list, unless that is still the one with this tag.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub async fn fetch_list(&self, tag: Option<&str>, limits: Limits) -> Result<Fetched, FetchError> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = self.credential(WireFormat::ChatCompletions)? {
            headers.insert(name, value);
        }
        self.override_headers(&mut headers);
        let limits = Limits { timeout: self.timeouts.total.unwrap_or(limits.timeout).min(limits.timeout), ..limits };
        match fetch::get(&self.client, &self.list_url(), headers, tag, limits).await? {
            Fetched::New { body, .. } if self.leaks(&body) => {
                Err(NetError::Other("the answer holds a key of this upstream").into())
            }
            fetched => Ok(fetched),
        }
    }
}

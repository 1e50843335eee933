//! Something is posted to a server of the operator's choice, and only how that went matters.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::way::Way;
use super::{ClientOptions, NetError, check_url, client, read_limited};

/// For everything: name, connection, answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read, so that the connection can be used again. Nobody looks at it.
const MAX_ANSWER: usize = 64 * 1024;

/// Why it is not there. Holds no address and no foreign text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the server answered with status {0}")]
    Status(u16),
}

/// Posts for one purpose.
#[derive(Clone, Debug)]
pub struct Poster {
    client: reqwest::Client,
    way: Way,
}

impl Poster {
    /// # Errors
    /// When the TLS backend does not start.
    pub fn new(way: &Way) -> Result<Self, NetError> {
        let options = ClientOptions { idle_per_host: 1, way: way.clone(), ..ClientOptions::default() };
        Ok(Self { client: client(&options)?, way: way.clone() })
    }

    /// Posts `body`. Done when the server says that it was a success.
    ///
    /// # Errors
    /// When the address or a header is not one that may be, or the server does not say so, or not in time.
    pub async fn post(
        &self,
        url: &Url,
        media: &'static str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<(), PostError> {
        check_url(url)?;
        self.way.check(url)?;
        let mut all = HeaderMap::new();
        let bad = |_| NetError::Other("a header cannot be sent");
        for (name, value) in headers {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| NetError::Other("a header cannot be sent"))?;
            let mut value = HeaderValue::from_str(value).map_err(bad)?;
            value.set_sensitive(true);
            all.insert(name, value);
        }
        all.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        let asked = async {
            let response =
                self.client.post(url.clone()).headers(all).body(body).send().await.map_err(NetError::from)?;
            let status = response.status();
            if !status.is_success() {
                return Err(PostError::Status(status.as_u16()));
            }
            // It has it; what it says about that is its own business.
            let _said = read_limited(response, MAX_ANSWER).await;
            Ok(())
        };
        tokio::time::timeout(self.way.patience(TIMEOUT, url), asked)
            .await
            .unwrap_or(Err(PostError::Net(NetError::Timeout)))
    }
}

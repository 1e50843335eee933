//! The mint over HTTP: the handful of calls a node makes (NUT-01, 02, 03, 07, 09), each with a
//! time limit, a size limit, no redirects, and an answer that says whether the mint acted.

use std::time::Duration;

use cdk::nuts::{
    BlindedMessage, CheckStateRequest, CheckStateResponse, Id, KeySet, KeysResponse, KeysetResponse,
    MeltQuoteBolt11Request, MeltQuoteBolt11Response, MeltRequest, MintQuoteBolt11Request, MintQuoteBolt11Response,
    MintRequest, MintResponse, PublicKey, RestoreRequest, RestoreResponse, State, SwapRequest, SwapResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::refusal::{MintError, read_refusal};
use crate::net;

/// Largest answer that is read. 500 signatures with proofs are about 200 KiB.
const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// Most keysets and keys that are believed.
const MAX_KEYSETS: usize = 256;
const MAX_KEYS: usize = 256;

/// One mint.
#[derive(Debug)]
pub struct HttpMint {
    url: String,
    client: reqwest::Client,
    timeout: Duration,
    permits: Semaphore,
    max_answer: usize,
}

impl HttpMint {
    /// A mint at a canonical URL, with at most `concurrency` calls at a time.
    #[must_use]
    pub fn new(url: String, client: reqwest::Client, timeout: Duration, concurrency: usize) -> Self {
        Self { url, client, timeout, permits: Semaphore::new(concurrency.max(1)), max_answer: MAX_ANSWER }
    }

    /// The same, reading answers up to so many bytes only.
    #[must_use]
    pub fn bounded(self, max_answer: usize) -> Self {
        Self { max_answer, ..self }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// NUT-03: exchanges the inputs for signatures on the outputs, all or nothing.
    ///
    /// # Errors
    /// [`MintError::Unknown`] when the mint may have done it.
    pub async fn swap(&self, request: &SwapRequest) -> Result<SwapResponse, MintError> {
        self.call("v1/swap", Some(request)).await
    }

    /// NUT-09: the signatures that the mint has made on any of these outputs.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn restore(&self, outputs: Vec<BlindedMessage>) -> Result<RestoreResponse, MintError> {
        self.call("v1/restore", Some(&RestoreRequest { outputs })).await
    }

    /// NUT-07: the states of proofs, in the order of `ys`.
    ///
    /// # Errors
    /// When the mint does not answer, or not about all of them.
    pub async fn states(&self, ys: Vec<PublicKey>) -> Result<Vec<State>, MintError> {
        if ys.is_empty() {
            return Ok(Vec::new());
        }
        let asked = CheckStateRequest { ys };
        let answer: CheckStateResponse = self.call("v1/checkstate", Some(&asked)).await?;
        asked
            .ys
            .iter()
            .map(|y| {
                let found = answer.states.iter().find(|state| state.y == *y);
                found.map(|state| state.state).ok_or_else(|| MintError::Unknown("a proof's state is missing".into()))
            })
            .collect()
    }

    /// NUT-07: those of these proofs that are spent.
    ///
    /// # Errors
    /// See [`HttpMint::states`].
    pub async fn spent(&self, ys: Vec<PublicKey>) -> Result<Vec<PublicKey>, MintError> {
        let states = self.states(ys.clone()).await?;
        Ok(ys.into_iter().zip(states).filter(|(_, state)| *state == State::Spent).map(|(y, _)| y).collect())
    }

    /// NUT-04: an invoice whose payment lets ecash be minted. It has a name that can be asked for.
    ///
    /// # Errors
    /// When the mint does not answer. A quote that nobody has seen is worth nothing.
    pub async fn quote_mint(
        &self,
        request: &MintQuoteBolt11Request,
    ) -> Result<MintQuoteBolt11Response<String>, MintError> {
        let quote: MintQuoteBolt11Response<String> = self.call("v1/mint/quote/bolt11", Some(request)).await?;
        path_part(&quote.quote)?;
        Ok(quote)
    }

    /// NUT-04: how far such an invoice is.
    ///
    /// # Errors
    /// When the mint does not answer, or does not know it.
    pub async fn mint_quote(&self, id: &str) -> Result<MintQuoteBolt11Response<String>, MintError> {
        self.call(&format!("v1/mint/quote/bolt11/{}", path_part(id)?), None::<&()>).await
    }

    /// NUT-04: signatures for a quote that is paid, once.
    ///
    /// # Errors
    /// [`MintError::Unknown`] when the mint may have made them.
    pub async fn mint(&self, request: &MintRequest<String>) -> Result<MintResponse, MintError> {
        self.call("v1/mint/bolt11", Some(request)).await
    }

    /// NUT-05: what it takes to pay an invoice. The quote has a name that can be asked for.
    ///
    /// # Errors
    /// When the mint does not answer, or cannot pay it.
    pub async fn quote_melt(
        &self,
        request: &MeltQuoteBolt11Request,
    ) -> Result<MeltQuoteBolt11Response<String>, MintError> {
        let quote: MeltQuoteBolt11Response<String> = self.call("v1/melt/quote/bolt11", Some(request)).await?;
        path_part(&quote.quote)?;
        Ok(quote)
    }

    /// NUT-05: how far a payment is.
    ///
    /// # Errors
    /// When the mint does not answer, or does not know it.
    pub async fn melt_quote_state(&self, id: &str) -> Result<MeltQuoteBolt11Response<String>, MintError> {
        self.call(&format!("v1/melt/quote/bolt11/{}", path_part(id)?), None::<&()>).await
    }

    /// NUT-05: pays a quote with ecash, once.
    ///
    /// # Errors
    /// [`MintError::Unknown`] when the mint may have paid it.
    pub async fn melt(&self, request: &MeltRequest<String>) -> Result<MeltQuoteBolt11Response<String>, MintError> {
        self.call("v1/melt/bolt11", Some(request)).await
    }

    /// NUT-02: all keysets, active or not.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn keysets(&self) -> Result<KeysetResponse, MintError> {
        let mut answer: KeysetResponse = self.call("v1/keysets", None::<&()>).await?;
        answer.keysets.truncate(MAX_KEYSETS);
        Ok(answer)
    }

    /// NUT-01: the keys of one keyset. Its id is verified to be that of the keys.
    ///
    /// # Errors
    /// When the mint does not answer, or with other keys.
    pub async fn keys(&self, id: Id) -> Result<KeySet, MintError> {
        let answer: KeysResponse = self.call(&format!("v1/keys/{id}"), None::<&()>).await?;
        let keyset = answer
            .keysets
            .into_iter()
            .find(|keyset| keyset.id == id)
            .ok_or_else(|| MintError::Unknown("the keyset is missing from the answer".into()))?;
        if keyset.keys.len() > MAX_KEYS || keyset.verify_id().is_err() {
            return Err(MintError::Unknown("the keyset's keys do not match its id".into()));
        }
        Ok(keyset)
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(&self, path: &str, body: Option<&Q>) -> Result<A, MintError> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(MintError::NotSent);
        };
        let url = format!("{}/{path}", self.url);
        let request = match body {
            Some(body) => self.client.post(url).json(body),
            None => self.client.get(url),
        };
        match tokio::time::timeout(self.timeout, exchange(request, self.max_answer)).await {
            Ok(Ok(bytes)) => serde_json::from_slice(&bytes)
                .map_err(|_| MintError::Unknown("the answer is not what the call returns".into())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(MintError::Unknown("no answer in time".into())),
        }
    }
}

/// A mint's own name for something, as a part of a path: nothing that could lead elsewhere.
fn path_part(id: &str) -> Result<&str, MintError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    if !id.is_empty() && id.len() <= 256 && id.bytes().all(plain) {
        Ok(id)
    } else {
        Err(MintError::Refused(super::refusal::Refusal::Other("the quote has no usable id".into())))
    }
}

async fn exchange(request: reqwest::RequestBuilder, max_answer: usize) -> Result<bytes::Bytes, MintError> {
    let response = request.send().await.map_err(|error| {
        // Only a failed connection attempt is sure not to have delivered anything.
        if error.is_connect() || error.is_builder() {
            MintError::NotSent
        } else {
            MintError::Unknown("the connection broke".into())
        }
    })?;
    let status = response.status().as_u16();
    let retry_after = net::retry_after(&response);
    let body = net::read_limited(response, max_answer).await;
    match status {
        200..=299 => body.map_err(|error| MintError::Unknown(error.to_string())),
        400..=499 => Err(read_refusal(status, retry_after, &body.unwrap_or_default())),
        _ => Err(MintError::Unknown(format!("status {status}"))),
    }
}

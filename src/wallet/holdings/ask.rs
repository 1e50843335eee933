//! Asking mints whether ecash is unspent (NUT-07), in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdk::nuts::State;

use super::super::Wallet;
use super::super::mint::HttpMint;
use super::{ProofId, canonical};

/// Proofs in one question.
const AT_A_TIME: usize = 200;

/// What a mint said about some of the proofs that it was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How many it was asked about, and answered.
    pub asked: usize,
    pub spent: Vec<ProofId>,
    pub pending: Vec<ProofId>,
    /// Why it was not asked about the others.
    pub silence: Option<String>,
}

/// Puts questions to mints, and nothing else.
#[derive(Clone, Debug)]
pub struct Inspector {
    mints: BTreeMap<String, Arc<HttpMint>>,
}

impl Inspector {
    /// Asks the mints at these URLs; see [`Options`](super::super::Options) for the limits.
    #[must_use]
    pub fn new(urls: &[String], timeout: Duration, concurrency: usize, client: &reqwest::Client) -> Self {
        let mint = |url: &String| {
            let mint = HttpMint::new(url.clone(), client.clone(), timeout, concurrency);
            (canonical(url), Arc::new(mint))
        };
        Self { mints: urls.iter().map(mint).collect() }
    }

    /// Asks the mints of this wallet, within its limits.
    #[must_use]
    pub fn of(wallet: &Wallet) -> Self {
        let mints = wallet.inner.mints.iter();
        Self { mints: mints.map(|(url, mint)| (canonical(url), Arc::clone(&mint.http))).collect() }
    }

    /// Asks a mint about proofs, until it does not answer.
    pub async fn ask(&self, mint: &str, proofs: &[ProofId]) -> Answer {
        let mut answer = Answer::default();
        let Some(http) = self.mints.get(mint) else {
            answer.silence = Some("it is not configured".to_owned());
            return answer;
        };
        for batch in proofs.chunks(AT_A_TIME) {
            let states = match http.states(batch.iter().map(|id| id.0).collect()).await {
                Ok(states) => states,
                Err(error) => {
                    answer.silence = Some(error.to_string());
                    break;
                }
            };
            answer.asked = answer.asked.saturating_add(batch.len());
            for (id, state) in batch.iter().zip(states) {
                match state {
                    State::Spent => answer.spent.push(*id),
                    State::Unspent => {}
                    _ => answer.pending.push(*id),
                }
            }
        }
        answer
    }
}

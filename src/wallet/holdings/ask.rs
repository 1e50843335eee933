//! Asking mints whether ecash is unspent (NUT-07), in batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdk::nuts::State;

use super::super::Wallet;
use super::super::health::Priority;
use super::super::mint::{HttpMint, Limits};
use super::{ProofId, canonical};
use crate::clock::SharedClock;

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
    mints: BTreeMap<String, HttpMint>,
}

impl Inspector {
    /// Asks the mints at these URLs; see [`Options`](super::super::Options) for the limits.
    #[must_use]
    pub fn new(mints: Vec<(String, Limits)>, client: &reqwest::Client, clock: &SharedClock) -> Self {
        let mint = |(url, limits): (String, Limits)| {
            let name = canonical(&url);
            (name, HttpMint::new(url, client.clone(), limits, Arc::clone(clock)))
        };
        Self { mints: mints.into_iter().map(mint).collect() }
    }

    /// Asks the mints of this wallet, within its limits.
    #[must_use]
    pub fn of(wallet: &Wallet) -> Self {
        let mints = wallet.inner.mints.iter();
        Self { mints: mints.map(|(url, mint)| (canonical(url), mint.http.at(Priority::Background))).collect() }
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

//! Change and refunds that nobody claimed at their mint.
//!
//! A token that was made stays claimable for a long time. After it, the mint is asked whether it was
//! spent (NUT-07). If so, that is noted. If not, it is redeemed like a client's token, over the same
//! journal, to the node's income: from the transaction that plans the swap on nobody is given the
//! token any more, and in the one that books it its text is forgotten. Should its owner spend it at the
//! very moment, the mint decides.

use std::time::Duration;

use cdk::nuts::{PublicKey, State as ProofState};

use super::journal::{self, Fate, Operation};
use super::redeem::RedeemError;
use super::token::{self, Token};
use super::{Trusted, Wallet, WalletError, swap};
use crate::store::Durability;

/// Tokens of one mint that are looked at in one go.
const AT_A_TIME: i64 = 16;
/// Most proofs that the mint is asked about at once, unless one token has more.
const MAX_PROOFS: usize = 100;

/// What came of looking for unclaimed tokens: how many were found spent, and how many were taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenBack {
    pub collected: usize,
    pub reclaimed: usize,
}

/// A token that is still the node's to look for.
struct Unclaimed {
    operation: Operation,
    token: Token,
    ys: Vec<PublicKey>,
}

impl Wallet {
    /// Looks for tokens that were made `claim_time` ago or before and not claimed, and takes them
    /// back. A few of each mint at a time; a mint that does not answer is asked the next time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take_back_unclaimed(&self, claim_time: Duration) -> Result<TakenBack, WalletError> {
        let mut done = TakenBack::default();
        let time_ms = i64::try_from(claim_time.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.clock().now_ms().saturating_sub(time_ms);
        for (mint, trusted) in &self.inner.mints {
            let mut reader = self.store().read().acquire().await?;
            let old = journal::unclaimed(&mut reader, mint, before_ms, AT_A_TIME).await?;
            drop(reader);
            let batch = self.open_unclaimed(trusted, old).await?;
            if batch.is_empty() {
                continue;
            }
            let ys = batch.iter().flat_map(|unclaimed| unclaimed.ys.iter().copied()).collect();
            let states = match trusted.http.states(ys).await {
                Ok(states) => states,
                Err(error) => {
                    tracing::warn!(mint, %error, "the mint does not say whether change was claimed");
                    continue;
                }
            };
            let mut states = states.into_iter();
            for unclaimed in batch {
                let own: Vec<ProofState> = states.by_ref().take(unclaimed.ys.len()).collect();
                self.decide(unclaimed, &own, &mut done).await?;
            }
        }
        Ok(done)
    }

    /// Their proofs, as many as the mint is asked about at once. What is not worth its fee is left.
    async fn open_unclaimed(&self, trusted: &Trusted, old: Vec<Operation>) -> Result<Vec<Unclaimed>, WalletError> {
        let mut batch: Vec<Unclaimed> = Vec::new();
        let mut proofs_so_far = 0_usize;
        for operation in old {
            let opened = match token::read(&operation.result) {
                Ok(token) => self.open_token(trusted, &token).await.map(|(proofs, fee)| (token, proofs, fee)),
                Err(fault) => Err(fault.into()),
            };
            let (token, proofs, fee) = match opened {
                Ok(opened) => opened,
                Err(RedeemError::Unreachable(_) | RedeemError::RateLimited(_)) => break,
                Err(RedeemError::Wallet(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(operation = %operation.id, %error, "a token that was made cannot be read");
                    self.note_fate(&operation, Fate::Left).await?;
                    continue;
                }
            };
            if token.unit.floor(token.face) <= fee {
                self.note_fate(&operation, Fate::Left).await?;
                continue;
            }
            proofs_so_far = proofs_so_far.saturating_add(proofs.len());
            if !batch.is_empty() && proofs_so_far > MAX_PROOFS {
                break;
            }
            batch.push(Unclaimed { ys: swap::ys(&proofs)?, operation, token });
        }
        Ok(batch)
    }

    async fn decide(
        &self,
        unclaimed: Unclaimed,
        states: &[ProofState],
        done: &mut TakenBack,
    ) -> Result<(), WalletError> {
        let Unclaimed { operation, token, ys } = unclaimed;
        if states.contains(&ProofState::Spent) {
            self.note_collected(&operation, ys).await?;
            done.collected = done.collected.saturating_add(1);
            return Ok(());
        }
        if states.iter().any(|state| *state != ProofState::Unspent) {
            // Somebody is spending it.
            return Ok(());
        }
        match self.take_back(&token, &operation.id).await {
            Ok(()) => {
                done.reclaimed = done.reclaimed.saturating_add(1);
                tracing::info!(
                    operation = %operation.id, mint = %operation.mint, msat = token.face.get(),
                    "change that nobody claimed was taken back"
                );
            }
            // Claimed at the last moment: noted with the outcome.
            Err(RedeemError::Spent) => done.collected = done.collected.saturating_add(1),
            // Its secrets were taken here before: somebody paid with it.
            Err(RedeemError::Overlap | RedeemError::Known(_) | RedeemError::ToppedUp(_)) => {
                self.note_fate(&operation, Fate::Collected).await?;
            }
            Err(RedeemError::Wallet(WalletError::Store(error))) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "unclaimed change could not be taken back yet");
            }
        }
        Ok(())
    }

    /// Notes that a token was spent by whom it was for.
    pub(super) async fn note_collected(&self, operation: &Operation, ys: Vec<PublicKey>) -> Result<(), WalletError> {
        self.inner.ecash.update_proofs_state(ys, ProofState::Spent).await?;
        self.note_fate(operation, Fate::Collected).await
    }

    async fn note_fate(&self, operation: &Operation, fate: Fate) -> Result<(), WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        journal::note_fate(&mut tx, &operation.id, Fate::Open, fate).await?;
        Ok(tx.commit().await?)
    }
}

//! What a crash, or a mint that did not answer, left unfinished is finished here, from evidence.
//!
//! One process works on an operation at a time: the one that wrote it, or after its death the one
//! that adopts it.

use futures_util::StreamExt as _;

use super::change::{Change, RefundError};
use super::journal::{self, Kind, Operation};
use super::plan::Plan;
use super::redeem::RedeemError;
use super::steps::Attempt;
use super::{Wallet, WalletError, swap};
use crate::clock::DAY_MS;

/// What came of carrying one operation on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is over: now, or it was before.
    Ended,
    /// Still nobody knows; or another process works on it.
    Open,
    /// There is none of that id.
    Unknown,
    /// Its mint is not configured any more.
    MintGone,
    /// Its mint is left alone for a while.
    MintRests,
    /// No money moves now, for this reason.
    Halted(String),
}

/// Operations that are carried on at the same time.
const AT_A_TIME: usize = 8;

impl Wallet {
    /// Finishes what an earlier process, or an unreachable mint, left open and is due; what was not
    /// touched since this process began, at `started_ms`, is due at once. Returns how many
    /// operations are still open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume(&self, started_ms: i64) -> Result<usize, WalletError> {
        if self.halted().is_some() {
            return Ok(0);
        }
        let now_ms = self.clock().now_ms();
        let before_ms = now_ms.saturating_sub(journal::LEASE_MS).max(started_ms);
        let mut reader = self.store().read().acquire().await?;
        let (owner, dead_before_ms) = (self.inner.ledger.owner(), self.dead_before_ms());
        let due = journal::Due { owner, now_ms, started_ms, dead_before_ms };
        // What waits at a mint that is left alone must not keep back what waits at the others.
        let (asked, resting): (Vec<&str>, Vec<&str>) =
            self.mints().iter().map(String::as_str).partition(|mint| self.may_be_asked(mint));
        let waiting = if resting.is_empty() { 0 } else { due.count(&mut reader, &resting).await? };
        let due = due.list(&mut reader, &asked).await?;
        // A mint's fee, say, takes all of what is left for change: that does not change from one look to the next.
        let failed_since_ms = now_ms.saturating_sub(DAY_MS);
        let stranded =
            journal::stranded(&mut reader, self.mints(), owner, before_ms, dead_before_ms, failed_since_ms).await?;
        drop(reader);
        self.free_leftovers().await?;
        // Side by side: a silent mint must not keep the others' operations waiting.
        let ended = futures_util::stream::iter(due)
            .map(|operation| async move { self.may_be_asked(&operation.mint) && self.resume_one(&operation).await })
            .buffer_unordered(AT_A_TIME)
            .filter(|ended| std::future::ready(!ended))
            .count();
        let mut open = ended.await.saturating_add(waiting);
        for account in stranded {
            match self.give_change(account).await {
                Ok(Change::Owed) => open = open.saturating_add(1),
                Ok(_) | Err(RefundError::Ongoing) => {}
                Err(error) => {
                    tracing::warn!(account = account.get(), %error, "stranded money could not be turned into change")
                }
            }
        }
        Ok(open)
    }

    /// Carries one operation on now, before its time. It is what the journal does by itself later: it looks for
    /// evidence first, and nothing is done twice.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retry(&self, id: &str) -> Result<Retried, WalletError> {
        if let Some(why) = self.halted() {
            return Ok(Retried::Halted(why));
        }
        let Some(operation) = self.find_operation(id).await? else { return Ok(Retried::Unknown) };
        if !operation.state.is_open() {
            return Ok(Retried::Ended);
        }
        if self.trusted(&operation.mint).is_none() {
            return Ok(Retried::MintGone);
        }
        if !self.may_be_asked(&operation.mint) {
            return Ok(Retried::MintRests);
        }
        Ok(if self.resume_one(&operation).await { Retried::Ended } else { Retried::Open })
    }

    /// How many operations are open at mints that are not configured (any more), by mint: they wait
    /// until the mint is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn astray(&self) -> Result<Vec<(String, i64)>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        let open = journal::open_by_mint(&mut reader).await?;
        Ok(open.into_iter().filter(|(mint, _)| self.trusted(mint).is_none()).collect())
    }

    /// Carries one operation on. Returns whether it has ended.
    async fn resume_one(&self, operation: &Operation) -> bool {
        match operation.kind {
            Kind::Redeem | Kind::Reclaim => self.resume_redemption(operation).await,
            Kind::TopUp => self.resume_topup(operation).await,
            Kind::Change | Kind::Refund | Kind::Expiry | Kind::Payout => self.perform(operation).await != Change::Owed,
            Kind::Consolidate => self.resume_consolidation(operation).await,
        }
    }

    /// Gives free the proofs of operations that failed: a crash can come between the two.
    pub(super) async fn free_leftovers(&self) -> Result<(), WalletError> {
        let mut reader = self.store().read().acquire().await?;
        let failed = journal::failed_with_proofs(&mut reader).await?;
        drop(reader);
        for operation in failed {
            if let Some(trusted) = self.trusted(&operation.mint) {
                self.set_free(trusted, &operation).await?;
            }
        }
        Ok(())
    }

    /// Finds out how a redemption stands, and books it. Returns whether it is decided.
    pub(super) async fn resume_redemption(&self, operation: &Operation) -> bool {
        let Some(trusted) = self.trusted(&operation.mint) else { return false };
        let lane = self.inner.redeeming.lane(&operation.id);
        let _turn = lane.lock().await;
        if !self.may_be_asked(&operation.mint) {
            return false;
        }
        let resumed = async {
            let Some(operation) = self.reopen(operation).await? else { return Ok(None) };
            let plan = match Plan::of(&operation) {
                Plan::Import(import) => {
                    return Ok(Some(self.carry_import(&operation, import, Attempt::Later).await));
                }
                Plan::Swap(plan) => plan,
                _ => return Err(operation.unreadable()),
            };
            let standing = swap::resolve(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
            let outcome = self.finish_redemption(trusted, &operation, &plan, standing, Attempt::Later).await;
            Ok::<_, WalletError>(Some(outcome))
        };
        match resumed.await {
            Ok(None) => true,
            Ok(Some(Err(RedeemError::Wallet(error)))) | Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "a redemption could not be resumed yet");
                self.put_off(operation).await;
                false
            }
            Ok(Some(outcome)) => {
                if outcome.is_ok() {
                    self.counts().redemptions.note("resumed");
                }
                !matches!(outcome, Err(RedeemError::Pending(_)))
            }
        }
    }
}

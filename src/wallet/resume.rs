//! What a crash, or a mint that did not answer, left unfinished is finished here, from evidence.
//!
//! One process works on an operation at a time: the one that wrote it, or after its death the one
//! that adopts it.

use super::change::{Change, RefundError, read_plan};
use super::journal::{self, Kind, Operation};
use super::{Wallet, WalletError, redeem, swap};
use crate::ledger::repo as books;
use crate::store::Durability;

impl Wallet {
    /// Finishes what an earlier process, or an unreachable mint, left open and is due; what was not
    /// touched since this process began, at `started_ms`, is due at once. Returns how many
    /// operations are still open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume(&self, started_ms: i64) -> Result<usize, WalletError> {
        let now_ms = self.clock().now_ms();
        let before_ms = now_ms.saturating_sub(journal::LEASE_MS).max(started_ms);
        let mut reader = self.store().read().acquire().await?;
        let due = journal::due(&mut reader, now_ms, started_ms).await?;
        let owner = self.inner.ledger.owner();
        let stranded = journal::stranded(&mut reader, owner, before_ms, self.dead_before_ms()).await?;
        drop(reader);
        let mut open: usize = 0;
        for operation in due {
            let done = match operation.kind {
                Kind::Redeem => self.resume_redemption(&operation).await,
                Kind::Change | Kind::Refund => self.perform(&operation).await != Change::Owed,
                Kind::TopUp | Kind::Expiry | Kind::Payout | Kind::Sweep => false,
            };
            open = open.saturating_add(usize::from(!done));
        }
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

    /// Finds out how a redemption stands, and books it. Returns whether it is decided.
    pub(super) async fn resume_redemption(&self, operation: &Operation) -> bool {
        let Some(trusted) = self.trusted(&operation.mint) else { return false };
        let lane = self.inner.redeeming.lane(&operation.id);
        let _turn = lane.lock().await;
        let resumed = async {
            let mut reader = self.store().read().acquire().await?;
            let now = journal::find(&mut reader, &operation.id).await?;
            drop(reader);
            if now.is_none_or(|now| !now.state.is_open()) {
                return Ok(None);
            }
            if !self.adopt(operation).await? {
                return Err(WalletError::Ecash("another process is working on it".into()));
            }
            let plan = read_plan(operation)?;
            let standing = swap::resolve(&trusted.http, &trusted.keysets, &self.inner.seed, &plan).await?;
            Ok::<_, WalletError>(Some((plan, standing)))
        };
        match resumed.await {
            Ok(None) => true,
            Ok(Some((plan, standing))) => {
                let outcome = self.finish_redemption(trusted, operation, &plan, standing, false).await;
                !matches!(outcome, Err(redeem::RedeemError::Pending(_) | redeem::RedeemError::Wallet(_)))
            }
            Err(error) => {
                tracing::warn!(operation = %operation.id, %error, "a redemption could not be resumed yet");
                false
            }
        }
    }

    /// Whether this process may work on an operation; see [`journal::adopt`].
    pub(super) async fn adopt(&self, operation: &Operation) -> Result<bool, WalletError> {
        let mut tx = self.store().begin(Durability::Full).await?;
        let ours = journal::adopt(&mut tx, &operation.id, self.inner.ledger.owner(), self.dead_before_ms()).await?;
        tx.commit().await?;
        Ok(ours)
    }

    fn dead_before_ms(&self) -> i64 {
        self.clock().now_ms().saturating_sub(books::DEAD_AFTER_MS)
    }
}

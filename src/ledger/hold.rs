//! Money set aside for one request, as a value with one owner.
//!
//! ```text
//!            ┌── capture(cost) ──► captured   charged ≤ held, the rest available again
//!   open ────┼── release() ──────► released   all available again
//!            └── drop ───────────► released   by the writer, behind everything queued before
//! ```
//!
//! Both ends consume the hold, so a second one does not compile:
//!
//! ```compile_fail
//! # async fn twice(hold: coinslot::ledger::Hold, cost: coinslot::money::Cost) {
//! let _ = hold.capture(cost).await;
//! let _ = hold.release().await; // use of moved value
//! # }
//! ```
//!
//! and the database refuses to end a hold that is not open. A hold whose process died is released
//! when a process starts (its own) or finds it dead (another's).

use std::sync::Arc;
use std::time::Duration;

use super::account::AccountId;
use super::sheets::Sheet;
use super::writer::End;
use super::{Inner, SettleError};
use crate::money::{Cost, Msat};

/// How long an answer waits for the ledger to confirm. The entry stays queued beyond it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// An open hold.
#[must_use = "a hold must be captured or released"]
#[derive(Debug)]
pub struct Hold {
    id: i64,
    account: AccountId,
    amount: Msat,
    /// What its row will say of the request once it has ended.
    record: String,
    /// What that names.
    sheets: Vec<Arc<Sheet>>,
    ledger: Option<Arc<Inner>>,
}

/// How a hold ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What was charged, never more than was held.
    pub charged: Cost,
    /// What the request cost beyond the hold: the operator's loss.
    pub shortfall: Msat,
    /// What the key can spend afterwards: what is available on the account, and to a child key no
    /// more than its cap leaves.
    pub remaining: Msat,
}

impl Hold {
    pub(super) fn new(id: i64, account: AccountId, amount: Msat, ledger: Arc<Inner>) -> Self {
        Self { id, account, amount, record: String::new(), sheets: Vec::new(), ledger: Some(ledger) }
    }

    /// What its row is found by. It sorts by time: see [`crate::store::ids`].
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// What is set aside.
    #[must_use]
    pub fn amount(&self) -> Msat {
        self.amount
    }

    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Keeps this text with the end of the hold, written by the same statement; and before it the sheets
    /// that it names, where they are not stored yet.
    pub fn noting(mut self, record: String, sheets: Vec<Arc<Sheet>>) -> Self {
        self.record = record;
        self.sheets = sheets;
        self
    }

    /// Charges what the request cost, as far as the hold covers it, and frees the rest.
    ///
    /// # Errors
    /// When the ledger has not confirmed in time; it goes on trying.
    pub async fn capture(mut self, cost: Cost) -> Result<Settlement, SettleError> {
        let (charged, shortfall) = cost.bounded_by(self.amount);
        let remaining = self.end(charged.total).await?;
        Ok(Settlement { charged, shortfall, remaining })
    }

    /// Frees all of it.
    ///
    /// # Errors
    /// When the ledger has not confirmed in time; it goes on trying.
    pub async fn release(mut self) -> Result<Msat, SettleError> {
        self.end(Msat::ZERO).await
    }

    /// For a hold that was never placed.
    pub(super) fn forget(mut self) {
        self.ledger = None;
    }

    async fn end(&mut self, charge: Msat) -> Result<Msat, SettleError> {
        match self.ledger.take() {
            Some(ledger) => ledger.end(self.ended(charge)).await,
            None => Err(SettleError::AlreadyEnded),
        }
    }

    fn ended(&mut self, charge: Msat) -> End {
        let (record, sheets) = (std::mem::take(&mut self.record), std::mem::take(&mut self.sheets));
        End { id: self.id, account: self.account, held: self.amount, charge, record, sheets }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.abandon(self.ended(Msat::ZERO));
        }
    }
}

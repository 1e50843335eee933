//! Earnings go to the operator, over Lightning: all of them by themselves, or what the operator asks for
//! ([`super::withdraw`]).
//!
//! What may leave a mint is bounded twice: by what was earned, less the fees that mints took, and by
//! the ecash held there, less what is owed to clients of that mint and what is already on its way
//! out. Both are read in the transaction that takes the money, so a payout can never reach into
//! what belongs to somebody else.

use super::change::{Change, Destination, RefundError};
use super::journal::{self, Kind};
use super::{Wallet, WalletError};
use crate::ledger::repo as books;
use crate::money::{MintUnit, Msat};
use crate::store::{Hand, StoreError, Tx};

/// What of a mint's ecash is the operator's to take: earned, and owed to nobody.
pub(super) async fn free_at(hand: &mut Hand<'_>, mint: &str, unit: MintUnit) -> Result<Msat, StoreError> {
    let at_mint = books::surplus_at(hand.again(), mint, unit.as_str()).await?;
    let owed = journal::owed_at(hand.again(), mint, unit).await?;
    let earned = books::earnings(hand.again()).await?;
    let free = at_mint.saturating_sub(owed).min(earned);
    Msat::from_db(free.max(0))
        .ok_or_else(|| StoreError::Inconsistent { table: "accounts", what: format!("earnings of {free}") })
}

impl Wallet {
    /// Pays out what each mint's ecash was earned, where it is at least `minimum`. Returns what came
    /// of each payout. One that is under way is finished first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pay_out(&self, recipient: &str, minimum: Msat) -> Result<Vec<Change>, WalletError> {
        let mut outcomes = Vec::new();
        if self.halted().is_some() {
            return Ok(outcomes);
        }
        for (mint, unit) in self.ecash().await?.into_keys() {
            // Where there is too little, the books are not locked to find it out.
            let mut reader = self.store().read().acquire().await?;
            if free_at(&mut Hand::Pooled(&mut reader), &mint, unit).await? < minimum {
                continue;
            }
            drop(reader);
            let to = Destination { mint, recipient: recipient.to_owned() };
            match self.begin_payout(&to, unit, minimum).await {
                Ok(change) => outcomes.push(change),
                Err(RefundError::Nothing | RefundError::TooSmall | RefundError::Ongoing) => {}
                Err(RefundError::Wallet(error)) => return Err(error),
                Err(error) => return Err(WalletError::Ecash(error.to_string())),
            }
        }
        Ok(outcomes)
    }

    /// What may be paid out of a mint's ecash now.
    ///
    /// # Errors
    /// [`RefundError::Ongoing`] while a payout of this mint is under way.
    pub(super) async fn payable(&self, tx: &mut Tx, mint: &str, unit: MintUnit) -> Result<Msat, RefundError> {
        // Two processes would both find the same earnings: the lock makes the second see less.
        books::find_locked(tx, self.inner.ledger.house().income).await?;
        if journal::payout_under_way(tx.hand(), mint, unit).await? {
            return Err(RefundError::Ongoing);
        }
        Ok(free_at(&mut tx.hand(), mint, unit).await?)
    }

    async fn begin_payout(&self, to: &Destination, unit: MintUnit, minimum: Msat) -> Result<Change, RefundError> {
        let income = self.inner.ledger.house().income;
        self.begin(income, Kind::Payout, to, super::change::Source::Earnings { unit, minimum }).await
    }
}

//! What an operator should look at: operations that do not come to an end, payouts that failed, change that is
//! not ready. Nobody is asked for it.

use super::ladder::{is_worth_it, worth};
use super::payout::free_at;
use super::{Wallet, WalletError, journal};
use crate::money::{MintUnit, Msat};
use crate::store::Hand;

/// Operations of one mint that have not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub mint: String,
    pub count: i64,
    /// When the oldest was begun, in ms.
    pub oldest_ms: i64,
}

/// A payout after which none was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPayout {
    pub mint: String,
    pub unit: MintUnit,
    pub amount: Msat,
}

impl Wallet {
    /// What was begun before then and has not ended. An invoice that nobody pays is not waited for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unfinished(&self, before_ms: i64) -> Result<Vec<Unfinished>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        Ok(journal::unfinished(&mut reader, before_ms).await?)
    }

    /// The last payout of each mint and unit to this recipient, where it failed and is going to be tried again: as long
    /// as there are at least `minimum` to be sent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn failed_payouts(&self, recipient: &str, minimum: Msat) -> Result<Vec<FailedPayout>, WalletError> {
        let mut reader = self.store().read().acquire().await?;
        let mut failed = Vec::new();
        for mint in self.mints() {
            for unit in [MintUnit::Sat, MintUnit::Msat] {
                let amount = journal::failed_payout(&mut reader, mint, unit, recipient).await?;
                let Some(amount) = amount else { continue };
                // What is being sent is not there to be sent.
                if free_at(&mut Hand::Pooled(&mut reader), mint, unit).await? < minimum
                    && !journal::payout_under_way(&mut *reader, mint, unit).await?
                {
                    continue;
                }
                failed.push(FailedPayout { mint: mint.clone(), unit, amount });
            }
        }
        Ok(failed)
    }

    /// Where less than half of the coins of some amount is there, though there is enough to exchange for them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn short_of_change(&self) -> Result<Vec<(String, MintUnit)>, WalletError> {
        let mut short = Vec::new();
        for trusted in self.inner.order.iter().filter_map(|url| self.trusted(url)) {
            for unit in [MintUnit::Sat, MintUnit::Msat] {
                let held = self.in_stock(trusted, unit).await?;
                let Some(active) = trusted.keysets.known(unit).await.filter(|_| !held.is_empty()) else { continue };
                let ladder = self.inner.ladder.get();
                if !ladder.is_short(&held, &active.amounts) {
                    continue;
                }
                let Some(coins) = ladder.exchange(&held, &active.amounts) else { continue };
                let fee =
                    trusted.keysets.input_fee(coins.values().flat_map(|n| std::iter::repeat_n(active.id, *n))).await;
                if is_worth_it(worth(&coins), fee) {
                    short.push((trusted.http.url().to_owned(), unit));
                }
            }
        }
        Ok(short)
    }
}

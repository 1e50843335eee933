//! Sends the balance of keys whose time is over (`Key-Expiry-Time`) to their owners (`Refund-LNURL`).

use std::time::Duration;

use async_trait::async_trait;

use super::Job;
use crate::money::{Msat, Sat};
use crate::wallet::{Change, RefundError, Wallet};

/// Keys looked at in one activation.
const AT_A_TIME: i64 = 500;
/// Less than this is not worth a payment, in sat: fees would eat it, and what a payment leaves over
/// would be sent again and again.
const LEAST: u64 = 10;

/// Pays out expired keys.
pub struct RefundExpired {
    pub wallet: Wallet,
    pub period: Duration,
}

#[async_trait]
impl Job for RefundExpired {
    fn name(&self) -> &'static str {
        "refund_expired"
    }

    fn period(&self) -> Duration {
        self.period
    }

    async fn activate(&self) -> Result<(), String> {
        refund_expired(&self.wallet).await.map(drop)
    }
}

/// Begins a payment for every key whose time is over. Returns how many were paid. A key whose payment
/// failed keeps its money, and is tried again the next time.
///
/// # Errors
/// When the database does not answer.
pub async fn refund_expired(wallet: &Wallet) -> Result<usize, String> {
    let expired = wallet.ledger().expired_keys(AT_A_TIME).await.map_err(|error| error.to_string())?;
    let least: Msat = Sat::new(LEAST).unwrap_or_default().to_msat();
    let mut paid: usize = 0;
    for key in expired.into_iter().filter(|key| key.balance >= least) {
        match wallet.expire(key.account, &key.expiry.address).await {
            Ok(Change::Sent { .. }) => paid = paid.saturating_add(1),
            Ok(Change::Failed(why)) => {
                tracing::warn!(account = key.account.get(), why, "an expired key could not be paid out");
            }
            Ok(_) | Err(RefundError::Ongoing | RefundError::Nothing | RefundError::TooSmall) => {}
            Err(error) => {
                tracing::warn!(account = key.account.get(), %error, "an expired key could not be paid out");
            }
        }
    }
    Ok(paid)
}

//! Sends the balance of keys whose time is over (`Key-Expiry-Time`) to their owners (`Refund-LNURL`).

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::sync::Mutex;

use super::Job;
use crate::ledger::AccountId;
use crate::ledger::terms::{ExpiredKey, ExpiredPage};
use crate::money::{Msat, Sat};
use crate::wallet::{Change, RefundError, Wallet};

/// Keys read at a time.
const PAGE: i64 = 100;
/// Keys looked at in one activation, about.
const MOST: usize = 500;
/// Keys paid at a time: a recipient's server may take long.
const AT_ONCE: usize = 4;
/// Less than this is not worth a payment, in sat: fees would eat it, and what a payment leaves over
/// would be sent again and again.
const LEAST: u64 = 10;

/// Pays out expired keys.
pub struct RefundExpired {
    wallet: Wallet,
    period: Duration,
    round: Mutex<RefundRound>,
}

impl RefundExpired {
    #[must_use]
    pub fn new(wallet: Wallet, period: Duration) -> Self {
        Self { wallet, period, round: Mutex::default() }
    }
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
        self.round.lock().await.go_on(&self.wallet).await.map(drop)
    }
}

/// How far expired keys have been gone through. Those that cannot be paid are due again after a day, for ever: each is
/// passed once in a round, so that however many they are, all others have their turn.
#[derive(Debug)]
pub struct RefundRound {
    page: i64,
    most: usize,
    /// The last key that was looked at; none before the first.
    after: Option<(i64, AccountId)>,
}

impl Default for RefundRound {
    fn default() -> Self {
        Self::new(PAGE, MOST)
    }
}

impl RefundRound {
    /// Reads `page` keys at a time, and stops when it has looked at `most` or more.
    #[must_use]
    pub const fn new(page: i64, most: usize) -> Self {
        Self { page, most, after: None }
    }

    /// Begins a payment for the keys that are next, and stops after the last: the next time it is the first
    /// one's turn again. Returns how many were paid. A key whose payment failed keeps its money.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn go_on(&mut self, wallet: &Wallet) -> Result<usize, String> {
        let (mut paid, mut looked): (usize, usize) = (0, 0);
        while looked < self.most {
            let keys = self.next_page(wallet).await?;
            // Whatever becomes of them, they do not stand in the way of the next ones.
            self.after = keys.last().map(ExpiredKey::place);
            if keys.is_empty() {
                break;
            }
            looked = looked.saturating_add(keys.len());
            let paying = keys.into_iter().map(|key| async move { pay(wallet, &key).await });
            let paying = futures_util::stream::iter(paying).buffer_unordered(AT_ONCE);
            paid = paid.saturating_add(paying.filter(|is_paid| std::future::ready(*is_paid)).count().await);
        }
        Ok(paid)
    }

    async fn next_page(&self, wallet: &Wallet) -> Result<Vec<ExpiredKey>, String> {
        let least: Msat = Sat::new(LEAST).unwrap_or_default().to_msat();
        let page = ExpiredPage { least, after: self.after, limit: self.page };
        wallet.ledger().expired_keys(page).await.map_err(|error| error.to_string())
    }
}

/// One activation's worth of payments from the first key on. Returns how many were paid.
///
/// # Errors
/// When the database does not answer.
pub async fn refund_expired(wallet: &Wallet) -> Result<usize, String> {
    RefundRound::default().go_on(wallet).await
}

/// Begins the payment of one key; whether it was paid.
async fn pay(wallet: &Wallet, key: &ExpiredKey) -> bool {
    match wallet.expire(key.account, &key.expiry.address).await {
        Ok(Change::Sent { .. }) => return true,
        Ok(Change::Failed(why)) => {
            tracing::warn!(account = key.account.get(), why, "an expired key could not be paid out");
        }
        Ok(_) | Err(RefundError::Ongoing | RefundError::Nothing | RefundError::TooSmall) => {}
        Err(error) => {
            tracing::warn!(account = key.account.get(), %error, "an expired key could not be paid out");
        }
    }
    false
}

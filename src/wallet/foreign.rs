//! Mints that are not on the node's list, where the operator allows their ecash to be swapped.
//!
//! Anybody can name such a mint, so it is a stranger's server: it is asked under the rules of
//! [`crate::net::public`], at addresses that were looked at, and what it says is bounded. Nothing of
//! it enters the store of the trusted mints: its keysets are held in memory, for a while.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Semaphore;
use url::Url;

use super::keysets::Keysets;
use super::mint::{HttpMint, Limits};
use super::refusal::{MintError, Refusal};
use super::{Wallet, WalletError};
use crate::money::{Msat, Sat};
use crate::net::NetError;
use crate::net::public::{self, Reach};
use crate::net::way::Way;

/// Mints that are remembered, and for how long: then names are resolved again.
const REMEMBERED: u64 = 32;
const MEMORY: Duration = Duration::from_secs(300);
/// For one call, and for the size of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 256 * 1024;
/// More keysets than this no honest mint has.
const MAX_KEYSETS: usize = 64;
/// Calls to one of them at a time, and swaps from all of them.
const CONCURRENCY: usize = 2;
/// What public mints allow.
const CALLS_PER_MINUTE: u32 = 20;
const AT_A_TIME: usize = 4;
/// The least that a payment's cost is bounded by, in sat.
const LEAST_FEE_BOUND: u64 = 2;

/// A mint of a stranger's choice.
#[derive(Debug)]
pub(super) struct Foreign {
    pub http: HttpMint,
    pub keysets: Keysets,
}

/// What is kept of them, where they are allowed.
#[derive(Debug)]
pub(super) struct Foreigners {
    mints: Cache<String, Arc<Foreign>>,
    pub permits: Semaphore,
    max_fee_percent: u8,
}

impl Foreigners {
    pub(super) fn new(max_fee_percent: u8) -> Self {
        Self {
            mints: Cache::builder().max_capacity(REMEMBERED).time_to_live(MEMORY).build(),
            permits: Semaphore::new(AT_A_TIME),
            max_fee_percent,
        }
    }

    /// Looks at a mint anew the next time.
    pub(super) fn forget(&self, url: &str) {
        self.mints.invalidate(url);
    }

    /// The most that swapping ecash of this worth may cost.
    pub(super) fn most_fee(&self, face: Msat) -> Msat {
        fee_bound(face, self.max_fee_percent)
    }
}

/// The most that a Lightning payment of this amount may cost: a share of it, but not less than a few sats.
pub(super) fn fee_bound(amount: Msat, percent: u8) -> Msat {
    let share = amount.get().saturating_mul(u64::from(percent)) / 100;
    let least = Sat::new(LEAST_FEE_BOUND).unwrap_or_default().to_msat();
    Msat::new(share).unwrap_or_default().max(least)
}

impl Wallet {
    /// Whether ecash of this mint is taken: because it is trusted, or because it is swapped.
    #[must_use]
    pub fn takes(&self, url: &str) -> bool {
        self.trusted(url).is_some() || (self.inner.foreigners.is_some() && !self.inner.order.is_empty())
    }

    /// The most that swapping foreign ecash may cost, in percent of it; `None` where it is refused.
    #[must_use]
    pub fn swaps_foreign(&self) -> Option<u8> {
        self.inner.foreigners.as_ref().map(|foreigners| foreigners.max_fee_percent)
    }

    /// A foreign mint, with its keysets.
    ///
    /// # Errors
    /// [`WalletError::Address`] for one that is not to be asked; otherwise when it does not answer.
    pub(super) async fn foreign(&self, url: &str) -> Result<Arc<Foreign>, WalletError> {
        let foreigners = self.inner.foreigners.as_ref().ok_or(WalletError::Address)?;
        if let Some(known) = foreigners.mints.get(url) {
            return Ok(known);
        }
        let client = dial(url, self.inner.strangers, &self.inner.to_strangers).await?;
        let calls = if self.inner.strangers == Reach::Public { Some(CALLS_PER_MINUTE) } else { None };
        let limits = Limits { timeout: TIMEOUT, concurrency: CONCURRENCY, per_minute: calls };
        let http = HttpMint::new(url.to_owned(), client, limits, Arc::clone(self.clock())).bounded(MAX_ANSWER);
        let keysets = Keysets::in_memory(http.clone(), Arc::clone(self.clock()));
        keysets.refresh_unless_changed(keysets.version()).await?;
        let infos = keysets.infos().await;
        if infos.len() > MAX_KEYSETS {
            return Err(MintError::Unknown("the mint has too many keysets".into()).into());
        }
        // Its outputs would be the trusted mint's, by the same counters.
        if infos.iter().any(|keyset| self.inner.listed.has(keyset.id)) {
            return Err(
                MintError::Refused(Refusal::Other("it lists a keyset like one of a trusted mint".into())).into()
            );
        }
        let foreign = Arc::new(Foreign { http, keysets });
        foreigners.mints.insert(url.to_owned(), Arc::clone(&foreign));
        Ok(foreign)
    }
}

async fn dial(url: &str, reach: Reach, way: &Way) -> Result<reqwest::Client, WalletError> {
    let parsed = Url::parse(url).map_err(|_| WalletError::Address)?;
    let client = tokio::time::timeout(TIMEOUT, public::client_for(&parsed, reach, way)).await;
    client.unwrap_or(Err(NetError::Timeout)).map_err(|error| match error {
        NetError::Address(_) => WalletError::Address,
        // No name, no connection: nothing was sent.
        _ => MintError::NotSent.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_is_bounded_by_a_share_and_a_minimum() {
        for (sats, percent, bound) in [(1000, 5, 50_000), (10, 5, 2_000), (0, 5, 2_000), (1000, 0, 2_000)] {
            let face = Sat::new(sats).unwrap().to_msat();
            assert_eq!(fee_bound(face, percent).get(), bound, "{sats} {percent}");
        }
    }

    /// The rules of addresses are tested where they are; here, that they are asked.
    #[tokio::test]
    async fn a_mint_on_a_private_address_is_not_dialled() {
        for url in ["https://127.0.0.1", "https://[::ffff:10.0.0.1]", "https://169.254.169.254", "http://1.1.1.1", "x"]
        {
            assert!(matches!(dial(url, Reach::Public, &Way::default()).await, Err(WalletError::Address)), "{url}");
        }
        assert!(dial("http://127.0.0.1:1", Reach::Anywhere, &Way::default()).await.is_ok());
    }
}

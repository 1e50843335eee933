//! Keysets and keys of one mint, cached in memory and in the ecash store.
//!
//! A request never waits for them in the normal case. An unknown keyset causes one refresh, at
//! most once in [`COOLDOWN_MS`], shared by everybody who wants it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use cdk::Amount;
use cdk::mint_url::MintUrl;
use cdk::nuts::nut02::KeySetVersion;
use cdk::nuts::{Id, KeySetInfo, Keys, Proof};
use std::str::FromStr;
use tokio::sync::{Mutex, RwLock};

use super::health::Priority;
use super::mint::HttpMint;
use super::refusal::MintError;
use super::{EcashStore, WalletError};
use crate::clock::SharedClock;
use crate::money::MintUnit;

/// Shortest time between two refreshes that clients can cause.
const COOLDOWN_MS: i64 = 10_000;
/// Coins of a keyset that ends are exchanged so long before.
const BEFORE_END_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Fee rates above this are not believed: 10 % of a 1-sat proof is 100 ppk; this is 10 sat.
const MAX_FEE_PPK: u64 = 10_000;

/// Which trusted mint has listed a keyset first. The ecash store files each under one mint: another that lists it too
/// must not take it over.
#[derive(Debug, Default)]
pub struct Listed(std::sync::Mutex<HashMap<Id, String>>);

impl Listed {
    /// Whether a keyset is this mint's: from now on, if it was nobody's.
    fn claim(&self, id: Id, mint: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert_with(|| mint.to_owned()) == mint
    }

    /// Whether outputs of this keyset would be those of some trusted mint's.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().any(|known| derive_alike(*known, id))
    }
}

/// What is known of a mint's keysets.
#[derive(Debug)]
pub struct Keysets {
    mint: HttpMint,
    /// Shared by the mints that are trusted.
    listed: Arc<Listed>,
    /// Where they are remembered; nowhere for mints that are not trusted.
    ecash: Option<EcashStore>,
    clock: SharedClock,
    infos: RwLock<Vec<KeySetInfo>>,
    keys: RwLock<HashMap<Id, Arc<Keys>>>,
    fetching: Mutex<()>,
    version: AtomicU64,
    /// The lock makes a refresh single-flight.
    refreshed: Mutex<Refreshed>,
}

/// When the mint was last asked for its keysets, and when it last told them, in ms.
#[derive(Clone, Copy, Debug)]
struct Refreshed {
    tried_ms: i64,
    done_ms: i64,
}

/// A keyset that signs.
#[derive(Clone, Debug)]
pub struct ActiveKeyset {
    pub id: Id,
    /// Amounts that it has keys for, ascending.
    pub amounts: Vec<u64>,
}

impl Keysets {
    /// Starts with what the ecash store remembers.
    pub async fn load(
        mint: HttpMint,
        ecash: EcashStore,
        clock: SharedClock,
        listed: Arc<Listed>,
    ) -> Result<Self, WalletError> {
        let url = MintUrl::from_str(mint.url()).map_err(|error| WalletError::Ecash(error.to_string()))?;
        let infos = ecash.get_mint_keysets(url).await?.unwrap_or_default();
        for keyset in &infos {
            listed.claim(keyset.id, mint.url());
        }
        Ok(Self { ecash: Some(ecash), infos: RwLock::new(infos), listed, ..Self::in_memory(mint, clock) })
    }

    /// Starts with nothing, and remembers nothing beyond this process.
    #[must_use]
    pub fn in_memory(mint: HttpMint, clock: SharedClock) -> Self {
        Self {
            mint,
            listed: Arc::default(),
            ecash: None,
            clock,
            infos: RwLock::default(),
            keys: RwLock::default(),
            fetching: Mutex::default(),
            version: AtomicU64::new(0),
            refreshed: Mutex::new(Refreshed { tried_ms: i64::MIN, done_ms: i64::MIN }),
        }
    }

    /// Everything known, active or not.
    pub async fn infos(&self) -> Vec<KeySetInfo> {
        self.infos.read().await.clone()
    }

    /// Whether the mint's keysets have ever been seen.
    pub async fn is_warm(&self) -> bool {
        !self.infos.read().await.is_empty()
    }

    /// Asks the mint for its keysets now, unless somebody did within the cool-down. Anybody can cause
    /// it, with a token that names a keyset nobody knows: it takes no call from who pays.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn refresh_if_due(&self) -> Result<(), WalletError> {
        let mut refreshed = self.refreshed.lock().await;
        if self.is_recent(refreshed.tried_ms, COOLDOWN_MS) {
            return Ok(());
        }
        self.fetch(&mut refreshed, Priority::Background).await
    }

    /// Changes whenever what is known of the keysets does.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Asks the mint for its keysets, unless what is known has changed since this version: for clients
    /// whose swap it refused because of them. Returns whether it has changed by now.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn refresh_unless_changed(&self, version: u64) -> Result<bool, WalletError> {
        let mut refreshed = self.refreshed.lock().await;
        if self.version() == version {
            self.fetch(&mut refreshed, Priority::Client).await?;
        }
        Ok(self.version() != version)
    }

    /// Asks the mint for its keysets, unless it told them within the last `max_age_ms`.
    ///
    /// # Errors
    /// When the mint does not answer.
    pub async fn refresh_if_older(&self, max_age_ms: i64) -> Result<(), WalletError> {
        let mut refreshed = self.refreshed.lock().await;
        if self.is_recent(refreshed.done_ms, max_age_ms) {
            return Ok(());
        }
        self.fetch(&mut refreshed, Priority::Background).await
    }

    /// Whether that is less than so long ago; or ahead, where the clock was set back since.
    fn is_recent(&self, at_ms: i64, within_ms: i64) -> bool {
        self.clock.now_ms().abs_diff(at_ms) < within_ms.unsigned_abs()
    }

    async fn fetch(&self, refreshed: &mut Refreshed, priority: Priority) -> Result<(), WalletError> {
        let now_ms = self.clock.now_ms();
        refreshed.tried_ms = now_ms;
        let answer = self.mint.at(priority).keysets().await?;
        let believed: Vec<KeySetInfo> = answer
            .keysets
            .into_iter()
            .filter(|keyset| keyset.input_fee_ppk <= MAX_FEE_PPK)
            .filter(|keyset| MintUnit::parse(&keyset.unit.to_string()).is_some())
            .filter(|keyset| self.is_own(keyset.id))
            .collect();
        if let Some(ecash) = &self.ecash {
            let url = MintUrl::from_str(self.mint.url()).map_err(|error| WalletError::Ecash(error.to_string()))?;
            ecash.add_mint(url.clone(), None).await?;
            ecash.add_mint_keysets(url, believed.clone()).await?;
        }
        let mut infos = self.infos.write().await;
        // A keyset that the mint stopped listing stays known: its proofs may still be spendable.
        let gone: Vec<KeySetInfo> =
            infos.iter().filter(|old| believed.iter().all(|new| new.id != old.id)).cloned().collect();
        let before = std::mem::replace(&mut *infos, believed);
        infos.extend(gone.into_iter().map(|old| KeySetInfo { active: false, ..old }));
        let same =
            infos.len() == before.len() && infos.iter().all(|new| before.iter().any(|old| terms(old) == terms(new)));
        if !same {
            self.version.fetch_add(1, Ordering::Relaxed);
        }
        refreshed.done_ms = now_ms;
        Ok(())
    }

    fn is_own(&self, id: Id) -> bool {
        let is_own = self.listed.claim(id, self.mint.url());
        if !is_own {
            tracing::error!(mint = self.mint.url(), keyset = %id, "a keyset is left out: another mint listed it first");
        }
        is_own
    }

    /// The active keyset of a unit with the lowest fee, with its keys.
    ///
    /// # Errors
    /// When none is known and the mint does not answer.
    pub async fn active(&self, unit: MintUnit) -> Result<ActiveKeyset, WalletError> {
        if !self.is_warm().await {
            self.refresh_if_due().await?;
        }
        let id = self
            .cheapest(unit)
            .await
            .ok_or(WalletError::Mint(MintError::Unknown("the mint has no active keyset of this unit".into())))?;
        let keys = self.keys(id).await?;
        let amounts = keys.iter().map(|(amount, _)| amount.to_u64()).collect();
        Ok(ActiveKeyset { id, amounts })
    }

    /// The keyset of a unit that [`Self::active`] finds, with its amounts, if it and its keys are known. Asks nobody.
    pub(super) async fn known(&self, unit: MintUnit) -> Option<ActiveKeyset> {
        let id = self.cheapest(unit).await?;
        let keys = self.keys.read().await.get(&id).cloned()?;
        let amounts = keys.iter().map(|(amount, _)| amount.to_u64()).collect();
        Some(ActiveKeyset { id, amounts })
    }

    /// The amounts of the active keyset of a unit, ascending, where they are known. Asks nobody.
    pub async fn known_amounts(&self, unit: MintUnit) -> Option<Vec<u64>> {
        Some(self.known(unit).await?.amounts)
    }

    async fn cheapest(&self, unit: MintUnit) -> Option<Id> {
        let infos = self.infos.read().await;
        let of_unit = infos.iter().filter(|keyset| keyset.active && is_of(keyset, unit));
        let now_ms = self.clock.now_ms();
        of_unit.min_by_key(|keyset| (ends_soon(keyset, now_ms), keyset.input_fee_ppk)).map(|keyset| keyset.id)
    }

    /// Keysets of a unit that end soon: the mint takes no coins of them any more then (NUT-02, `final_expiry`).
    pub async fn ending(&self, unit: MintUnit) -> Vec<Id> {
        let now_ms = self.clock.now_ms();
        let infos = self.infos.read().await;
        infos.iter().filter(|keyset| is_of(keyset, unit) && ends_soon(keyset, now_ms)).map(|keyset| keyset.id).collect()
    }

    /// Whether outputs of this keyset would be signed, and inputs of these would cost this fee, as far
    /// as is known.
    pub async fn still_holds(&self, keyset: &str, inputs: Vec<Id>, fee: u64) -> bool {
        let signs = self.infos.read().await.iter().any(|info| info.active && info.id.to_string() == keyset);
        signs && self.input_fee(inputs).await == fee
    }

    /// The keys of a keyset: from memory, the store, or the mint.
    ///
    /// # Errors
    /// When they are nowhere and the mint does not answer.
    pub async fn keys(&self, id: Id) -> Result<Arc<Keys>, WalletError> {
        if let Some(keys) = self.keys.read().await.get(&id) {
            return Ok(Arc::clone(keys));
        }
        // Whoever wants them at the same time shares one call.
        let _fetching = self.fetching.lock().await;
        if let Some(keys) = self.keys.read().await.get(&id) {
            return Ok(Arc::clone(keys));
        }
        let remembered = match &self.ecash {
            Some(ecash) => ecash.get_keys(&id).await?,
            None => None,
        };
        let keys = match remembered {
            Some(keys) => keys,
            None => self.ask_for_keys(id).await?,
        };
        let keys = Arc::new(keys);
        self.keys.write().await.insert(id, Arc::clone(&keys));
        Ok(keys)
    }

    async fn ask_for_keys(&self, id: Id) -> Result<Keys, WalletError> {
        let keyset = self.mint.keys(id).await?;
        let Some(ecash) = &self.ecash else { return Ok(keyset.keys) };
        match ecash.add_keys(keyset.clone()).await {
            // Whoever asked at the same time got the same keys: the id is their hash.
            Ok(()) | Err(cdk_common::database::Error::Duplicate) => Ok(keyset.keys),
            Err(error) => Err(error.into()),
        }
    }

    /// NUT-02 input fee of spending proofs of these keysets in one transaction, in units.
    pub async fn input_fee(&self, ids: impl IntoIterator<Item = Id>) -> u64 {
        let infos = self.infos.read().await;
        let ppk: u64 = ids
            .into_iter()
            .map(|id| infos.iter().find(|keyset| keyset.id == id).map_or(0, |keyset| keyset.input_fee_ppk))
            .fold(0, u64::saturating_add);
        ppk.div_ceil(1000)
    }
}

/// Whether NUT-13 makes the same outputs for both: of an old id it takes no more than 31 bits, and whoever makes keysets
/// long enough has one with the same.
fn derive_alike(one: Id, other: Id) -> bool {
    let is_old = |id: Id| id.get_version() == KeySetVersion::Version00;
    one == other || (is_old(one) && is_old(other) && u32::from(one) == u32::from(other))
}

fn is_of(keyset: &KeySetInfo, unit: MintUnit) -> bool {
    MintUnit::parse(&keyset.unit.to_string()) == Some(unit)
}

/// Whether a keyset ends within [`BEFORE_END_MS`], and has not ended yet.
fn ends_soon(keyset: &KeySetInfo, now_ms: i64) -> bool {
    let end_ms = keyset.final_expiry.and_then(|secs| i64::try_from(secs).ok()).map(|secs| secs.saturating_mul(1_000));
    end_ms.is_some_and(|end_ms| end_ms > now_ms && end_ms <= now_ms.saturating_add(BEFORE_END_MS))
}

/// What a swap depends on.
fn terms(keyset: &KeySetInfo) -> (Id, bool, u64) {
    (keyset.id, keyset.active, keyset.input_fee_ppk)
}

/// `total` in as few of the keyset's amounts as possible, ascending.
#[must_use]
pub fn split_few(total: u64, amounts: &[u64]) -> Vec<u64> {
    let mut left = total;
    let mut parts = Vec::new();
    for amount in amounts.iter().rev().filter(|amount| **amount > 0) {
        while left >= *amount && parts.len() < super::token::MAX_PROOFS {
            parts.push(*amount);
            left = left.saturating_sub(*amount);
        }
    }
    parts.reverse();
    parts
}

/// `total` so that *any* smaller amount can be paid out of the parts without another swap: the
/// powers of two as far as they go, then the rest in as few parts as possible.
#[must_use]
pub fn split_ladder(total: u64, amounts: &[u64]) -> Vec<u64> {
    let mut left = total;
    let mut parts = Vec::new();
    for amount in amounts {
        if left < *amount {
            break;
        }
        parts.push(*amount);
        left = left.saturating_sub(*amount);
    }
    parts.extend(split_few(left, amounts));
    parts.sort_unstable();
    parts
}

/// Sum of parts; the splits above must come out at their total.
#[must_use]
pub fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part))
}

/// What proofs are worth.
#[must_use]
pub fn sum_proofs(proofs: &[Proof]) -> u64 {
    proofs.iter().fold(0, |sum: u64, proof| sum.saturating_add(proof.amount.to_u64()))
}

/// As cdk's amount.
#[must_use]
pub fn amount(units: u64) -> Amount {
    Amount::from(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_pays_any_smaller_amount() {
        let amounts: Vec<u64> = (0..32).map(|bit| 1_u64 << bit).collect();
        for total in [1, 2, 3, 10, 100, 255, 256, 1000] {
            let parts = split_ladder(total, &amounts);
            assert_eq!(sum(&parts), total);
            assert_eq!(sum(&split_few(total, &amounts)), total);
            let mut reachable = std::collections::HashSet::from([0]);
            for part in &parts {
                let more: Vec<u64> = reachable.iter().map(|sum| sum + part).collect();
                reachable.extend(more);
            }
            assert!((0..=total).all(|wanted| reachable.contains(&wanted)), "{total}");
        }
    }
}

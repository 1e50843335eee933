//! Profiles and windows: made, changed, removed, and given to keys.

use rust_decimal::Decimal;
use serde_json::json;

use super::Desk;
use super::entry::{ProfileEntry, WindowEntry};
use crate::config::Pricing;
use crate::ledger::tariffs::RemoveError;
use crate::ledger::{AccountId, Ledger};
use crate::money::tariff::{Profile, Window, break_even};
use crate::store::StoreError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    BelowCost(String),
    #[error("there is no such profile")]
    NoSuchProfile,
    #[error("there is no such window")]
    NoSuchWindow,
    /// Keys, or vouchers that wait, have the profile.
    #[error("{0} keys or vouchers have it")]
    InUse(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a factor is held against.
#[derive(Clone, Copy)]
pub struct Floor<'a> {
    pub pricing: &'a Pricing,
    /// The highest fee of an upstream.
    pub dearest: Option<Decimal>,
}

impl Floor<'_> {
    /// Refuses a factor below break-even, unless the operator allows it.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn check(self, name: &str, (multiplier, below_cost): (Decimal, bool)) -> Result<(), String> {
        if below_cost || multiplier >= Decimal::ONE {
            return Ok(());
        }
        let pricing = self.pricing;
        // What the operator's own prices in sats cost nobody knows.
        let margins =
            pricing.exchange_fee.checked_mul(pricing.provider_fee).filter(|_| pricing.model_based != Some(false));
        let least = margins.and_then(|margins| break_even(self.dearest.unwrap_or(Decimal::ONE), margins));
        let least = least.unwrap_or(Decimal::ONE);
        if multiplier >= least {
            return Ok(());
        }
        Err(format!("{name} would sell below cost: the node breaks even at {least}"))
    }
}

/// Makes a profile, or changes the one of that name for all keys that have it.
pub async fn set_profile(desk: Desk<'_>, ledger: &Ledger, profile: &Profile, floor: Floor<'_>) -> Result<(), ActError> {
    profile.check().map_err(ActError::Invalid)?;
    floor.check(&profile.name, (profile.multiplier, profile.below_cost)).map_err(ActError::BelowCost)?;
    Ok(write_profile(desk, ledger, profile).await?)
}

/// Stores a profile that was checked.
pub(super) async fn write_profile(desk: Desk<'_>, ledger: &Ledger, profile: &Profile) -> Result<(), StoreError> {
    ledger.put_profile(profile).await?;
    desk.note("profiles.set", &profile.name, &json!(ProfileEntry::of(profile))).await
}

/// Removes a profile that nobody has.
pub async fn remove_profile(desk: Desk<'_>, ledger: &Ledger, name: &str) -> Result<(), ActError> {
    match ledger.remove_profile(name).await {
        Ok(true) => {}
        Ok(false) => return Err(ActError::NoSuchProfile),
        Err(RemoveError::InUse(keys)) => return Err(ActError::InUse(keys)),
        Err(RemoveError::Store(error)) => return Err(error.into()),
    }
    Ok(desk.note("profiles.remove", name, &json!({})).await?)
}

/// Gives keys a profile, or with none the prices of the list. `subject` names them in the trail.
pub async fn attach(
    desk: Desk<'_>,
    ledger: &Ledger,
    subject: &str,
    keys: &[AccountId],
    profile: Option<&str>,
) -> Result<(), ActError> {
    if let Some(name) = profile {
        ledger.tariffs().await?.profile(name).ok_or(ActError::NoSuchProfile)?;
    }
    ledger.set_profile(keys, profile).await?;
    let action = if profile.is_some() { "profiles.attach" } else { "profiles.detach" };
    let detail = json!({ "profile": profile, "keys": keys.len() });
    Ok(desk.note(action, subject, &detail).await?)
}

/// Makes a window, or changes the one of that name.
pub async fn set_window(desk: Desk<'_>, ledger: &Ledger, window: &Window, floor: Floor<'_>) -> Result<(), ActError> {
    window.check().map_err(ActError::Invalid)?;
    floor.check(&window.name, (window.multiplier, window.below_cost)).map_err(ActError::BelowCost)?;
    Ok(write_window(desk, ledger, window).await?)
}

/// Stores a window that was checked.
pub(super) async fn write_window(desk: Desk<'_>, ledger: &Ledger, window: &Window) -> Result<(), StoreError> {
    ledger.put_window(window).await?;
    desk.note("windows.set", &window.name, &json!(WindowEntry::of(window))).await
}

/// Removes a window.
pub async fn remove_window(desk: Desk<'_>, ledger: &Ledger, name: &str) -> Result<(), ActError> {
    if !ledger.remove_window(name).await? {
        return Err(ActError::NoSuchWindow);
    }
    Ok(desk.note("windows.remove", name, &json!({})).await?)
}

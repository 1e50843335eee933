//! What the operator can do with profiles and windows, one function a verb. Page, call and command do it by these, and
//! the trail has it in the same words.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{ProfileEntry, WindowEntry, check_cost};
use crate::admin::trail::{self, Act};
use crate::config::Pricing;
use crate::ledger::tariffs::RemoveError;
use crate::ledger::{AccountId, Ledger};
use crate::money::tariff::{Profile, Window};
use crate::store::StoreError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
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

/// What a factor is held against: see [`check_cost`].
#[derive(Clone, Copy)]
pub(crate) struct Floor<'a> {
    pub pricing: &'a Pricing,
    /// The highest fee of an upstream.
    pub dearest: Option<Decimal>,
}

impl Floor<'_> {
    fn check(self, name: &str, terms: (Decimal, bool)) -> Result<(), ActError> {
        check_cost(self.pricing, self.dearest, name, terms).map_err(ActError::BelowCost)
    }
}

async fn note(ledger: &Ledger, actor: &str, act: Act<'_>, detail: &Value) -> Result<(), StoreError> {
    trail::record(ledger.store(), actor, act, detail, ledger.clock().now_ms()).await
}

/// Makes a profile, or changes the one of that name for all keys that have it.
pub(crate) async fn set_profile(
    ledger: &Ledger,
    actor: &str,
    profile: &Profile,
    floor: Floor<'_>,
) -> Result<(), ActError> {
    profile.check().map_err(ActError::Invalid)?;
    floor.check(&profile.name, (profile.multiplier, profile.below_cost))?;
    Ok(write_profile(ledger, actor, profile).await?)
}

/// The same with one that was checked.
pub(crate) async fn write_profile(ledger: &Ledger, actor: &str, profile: &Profile) -> Result<(), StoreError> {
    ledger.put_profile(profile).await?;
    let act = Act { action: "profiles.set", subject: &profile.name };
    note(ledger, actor, act, &json!(ProfileEntry::of(profile))).await
}

/// Removes a profile that nobody has.
pub(crate) async fn remove_profile(ledger: &Ledger, actor: &str, name: &str) -> Result<(), ActError> {
    match ledger.remove_profile(name).await {
        Ok(true) => {}
        Ok(false) => return Err(ActError::NoSuchProfile),
        Err(RemoveError::InUse(keys)) => return Err(ActError::InUse(keys)),
        Err(RemoveError::Store(error)) => return Err(error.into()),
    }
    Ok(note(ledger, actor, Act { action: "profiles.remove", subject: name }, &json!({})).await?)
}

/// Gives keys a profile, or with none the prices of the list. `subject` names them in the trail.
pub(crate) async fn attach(
    ledger: &Ledger,
    actor: &str,
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
    Ok(note(ledger, actor, Act { action, subject }, &detail).await?)
}

/// Makes a window, or changes the one of that name.
pub(crate) async fn set_window(
    ledger: &Ledger,
    actor: &str,
    window: &Window,
    floor: Floor<'_>,
) -> Result<(), ActError> {
    window.check().map_err(ActError::Invalid)?;
    floor.check(&window.name, (window.multiplier, window.below_cost))?;
    Ok(write_window(ledger, actor, window).await?)
}

/// The same with one that was checked.
pub(crate) async fn write_window(ledger: &Ledger, actor: &str, window: &Window) -> Result<(), StoreError> {
    ledger.put_window(window).await?;
    let act = Act { action: "windows.set", subject: &window.name };
    note(ledger, actor, act, &json!(WindowEntry::of(window))).await
}

pub(crate) async fn remove_window(ledger: &Ledger, actor: &str, name: &str) -> Result<(), ActError> {
    if !ledger.remove_window(name).await? {
        return Err(ActError::NoSuchWindow);
    }
    Ok(note(ledger, actor, Act { action: "windows.remove", subject: name }, &json!({})).await?)
}

//! Profiles and windows: factors on the prices of some keys, and of some hours.

mod calls;
mod page;
mod repo;

use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;

use super::operator::Actor;
use super::{AdminError, AdminState};
use crate::operator::entry::{ProfileEntry, WindowEntry};
use crate::operator::tariffs::{self as acts, ActError, Floor};

pub(super) use calls::api;
pub(super) use page::pages;

/// Profiles and windows.
#[derive(Serialize, ToSchema)]
struct View {
    profiles: Vec<ProfileView>,
    windows: Vec<WindowView>,
}

#[derive(Serialize, ToSchema)]
struct ProfileView {
    #[serde(flatten)]
    entry: ProfileEntry,
    /// Keys that have it, and vouchers that wait.
    keys: i64,
}

#[derive(Serialize, ToSchema)]
struct WindowView {
    #[serde(flatten)]
    entry: WindowEntry,
    is_open: bool,
}

async fn view(state: &AdminState) -> Result<View, AdminError> {
    let (tariffs, now_ms) = (state.ledger.tariffs().await?, state.now_ms());
    let mut profiles = Vec::new();
    for profile in &tariffs.profiles {
        let keys = state.ledger.profile_users(&profile.name).await?;
        profiles.push(ProfileView { entry: ProfileEntry::of(profile), keys });
    }
    let window = |window: &std::sync::Arc<crate::money::tariff::Window>| WindowView {
        entry: WindowEntry::of(window),
        is_open: window.is_open(now_ms),
    };
    Ok(View { profiles, windows: tariffs.windows.iter().map(window).collect() })
}

/// The highest fee of an upstream.
pub(super) fn dearest(state: &AdminState) -> Option<Decimal> {
    state.pool.upstreams().iter().map(|upstream| upstream.fee()).max()
}

fn refused(error: ActError) -> AdminError {
    match error {
        ActError::Invalid(problem) => invalid(problem),
        ActError::BelowCost(problem) => {
            AdminError::conflict(format!("Not done: {problem}. Allow it below cost if you want that."))
        }
        ActError::NoSuchProfile => AdminError::not_found("There is no such profile."),
        ActError::NoSuchWindow => AdminError::not_found("There is no such window."),
        ActError::InUse(_) => AdminError::conflict(format!("It stays: {error}.")),
        ActError::Store(error) => error.into(),
    }
}

fn invalid(problem: String) -> AdminError {
    AdminError::invalid(format!("Not done: {problem}."))
}

/// Makes a profile, or changes the one of that name for all keys that have it.
async fn set_profile(state: &AdminState, actor: &Actor, entry: &ProfileEntry) -> Result<(), AdminError> {
    let (profile, pricing) = (entry.read().map_err(invalid)?, state.exchange.market.pricing());
    let floor = Floor { pricing: &pricing, dearest: dearest(state) };
    acts::set_profile(state.desk(actor), &state.ledger, &profile, floor).await.map_err(refused)?;
    Ok(state.exchange.learn_tariffs().await?)
}

async fn remove_profile(state: &AdminState, actor: &Actor, name: &str) -> Result<(), AdminError> {
    acts::remove_profile(state.desk(actor), &state.ledger, name).await.map_err(refused)?;
    Ok(state.exchange.learn_tariffs().await?)
}

async fn set_window(state: &AdminState, actor: &Actor, entry: &WindowEntry) -> Result<(), AdminError> {
    let (window, pricing) = (entry.read().map_err(invalid)?, state.exchange.market.pricing());
    let floor = Floor { pricing: &pricing, dearest: dearest(state) };
    acts::set_window(state.desk(actor), &state.ledger, &window, floor).await.map_err(refused)?;
    Ok(state.exchange.learn_tariffs().await?)
}

async fn remove_window(state: &AdminState, actor: &Actor, name: &str) -> Result<(), AdminError> {
    acts::remove_window(state.desk(actor), &state.ledger, name).await.map_err(refused)?;
    Ok(state.exchange.learn_tariffs().await?)
}

/// Fewest digits of a hash that a key is named by.
const LEAST_DIGITS: usize = 6;

/// Who gets a profile, or loses it.
enum Holder<'a> {
    /// The key whose hash begins so.
    Key(&'a str),
    /// The key that this open voucher will make.
    Voucher(&'a str),
}

/// Gives a key a profile, or with none the prices of the list. Child keys have their parent's.
async fn attach(
    state: &AdminState,
    actor: &Actor,
    holder: Holder<'_>,
    profile: Option<&str>,
) -> Result<(), AdminError> {
    let store = state.ledger.store();
    let (subject, hash) = match holder {
        Holder::Key(prefix) => (prefix, find(store, prefix).await?),
        Holder::Voucher(id) => {
            let number = id.parse().map_err(|_| AdminError::not_found("There is no such voucher."))?;
            let found = repo::of_voucher(store, number).await?;
            (id, found.ok_or_else(|| AdminError::not_found("There is no such voucher, or it is not open."))?)
        }
    };
    let found = state.ledger.key(&hash).await?.ok_or_else(|| AdminError::not_found("There is no such key."))?;
    acts::attach(state.desk(actor), &state.ledger, subject, &[found.id], profile).await.map_err(refused)?;
    Ok(state.exchange.learn_tariffs().await?)
}

async fn find(store: &crate::store::Store, prefix: &str) -> Result<String, AdminError> {
    let is_hash = prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash || !(LEAST_DIGITS..=64).contains(&prefix.len()) {
        let message = format!("A key is named by the first {LEAST_DIGITS} or more digits of its hash.");
        return Err(AdminError::invalid(message));
    }
    let mut found = repo::keys(store, prefix).await?;
    match (found.pop(), found.is_empty()) {
        (Some(hash), true) => Ok(hash),
        (Some(_), false) => Err(AdminError::conflict("More than one key begins so: name more digits.")),
        (None, _) => Err(AdminError::not_found("There is no such key.")),
    }
}

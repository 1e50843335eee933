//! A key: blocked, given other terms, and its balance adjusted.

use serde_json::{Value, json};

use super::Desk;
use super::proof::{self, Unproven};
use crate::audit::Latest;
use crate::ledger::keys::{AdjustError, Adjustment, Edit, EditError, Key, Way};
use crate::ledger::terms::Reset;
use crate::ledger::{AccountId, Ledger};
use crate::money::Msat;
use crate::store::StoreError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("there is no such key")]
    NoSuchKey,
    #[error("the id of an adjustment is a UUID")]
    BadId,
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Adjust(#[from] AdjustError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Money to be moved, as it was asked for.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// Names the act: a UUID.
    pub id: &'a str,
    pub way: Way,
    pub amount: Msat,
    pub reason: &'a str,
}

async fn find(ledger: &Ledger, id: AccountId) -> Result<Key, ActError> {
    ledger.one_key(id).await?.ok_or(ActError::NoSuchKey)
}

/// Lets a key spend nothing, or spend again.
pub async fn block(desk: Desk<'_>, ledger: &Ledger, id: AccountId, block: bool) -> Result<(), ActError> {
    let key = find(ledger, id).await?;
    if !ledger.block_key(key.id, block).await? {
        return Err(ActError::NoSuchKey);
    }
    let action = if block { "keys.block" } else { "keys.unblock" };
    let was = json!({ "id": id.get().to_string(), "was": key.state(desk.now_ms()) });
    Ok(desk.note(action, &key.short(), &was).await?)
}

/// Changes the terms of a key.
pub async fn edit(desk: Desk<'_>, ledger: &Ledger, id: AccountId, wanted: &Edit) -> Result<(), ActError> {
    let key = find(ledger, id).await?;
    ledger.edit_key(key.id, wanted).await?;
    let now = find(ledger, id).await?;
    let detail = json!({ "id": id.get().to_string(), "before": terms_of(&key), "after": terms_of(&now) });
    Ok(desk.note("keys.edit", &key.short(), &detail).await?)
}

/// What an edit may change, for the trail.
fn terms_of(key: &Key) -> Value {
    json!({
        "label": key.label, "profile": key.own_profile, "limit_msat": key.limits.cap.map(Msat::to_db),
        "limit_reset": key.limits.reset.map(Reset::as_str), "valid_until": key.limits.valid_until,
        "refund_at": key.expiry.as_ref().map(|expiry| expiry.at),
    })
}

/// Moves money between the income and a key. Noted before it is done, once for each act. Nothing is given while the
/// books are not right; see [`proof::prove`] for `last`.
pub async fn adjust(
    desk: Desk<'_>,
    ledger: &Ledger,
    last: Option<&Latest>,
    id: AccountId,
    wish: Wish<'_>,
) -> Result<(), ActError> {
    let key = find(ledger, id).await?;
    let act = uuid::Uuid::try_parse(wish.id).map_err(|_| ActError::BadId)?.to_string();
    let (Wish { way, amount, .. }, reason) = (wish, wish.reason.trim());
    if ledger.adjustment(&act).await?.is_none() {
        let msat = match way {
            Way::Credit => amount.to_db(),
            Way::WriteOff => amount.to_db().saturating_neg(),
        };
        if way == Way::Credit {
            proof::prove(ledger, last).await?;
        }
        let detail = json!({
            "id": id.get().to_string(), "act": act, "msat": msat, "reason": reason,
            "balance_msat": key.balance.posted.to_db(),
        });
        desk.note("keys.adjust", &key.short(), &detail).await?;
    }
    ledger.adjust_key(Adjustment { id: &act, key: key.id, way, amount, reason, actor: desk.actor }).await?;
    Ok(())
}

//! Vouchers: issued, and revoked.

use serde_json::json;

use super::Desk;
use super::proof::{self, Unproven};
use crate::audit::Latest;
use crate::ledger::Ledger;
use crate::ledger::vouchers::Funds;
use crate::ledger::vouchers::repo::Which;
use crate::payment::vouchers::{BatchOrder, IssueError, Issued};
use crate::store::StoreError;

const REVOKE: &str = "vouchers.revoke";

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("there is no such voucher")]
    Unknown,
    #[error("that voucher has ended already")]
    Ended,
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Issues a batch by `issuing`, which does nothing before it is noted and while the books are not right; see
/// [`proof::prove`] for `last`. The codes are in the answer, and nowhere else.
pub async fn issue(
    desk: Desk<'_>,
    ledger: &Ledger,
    last: Option<&Latest>,
    wanted: &BatchOrder,
    issuing: impl Future<Output = Result<Vec<Issued>, IssueError>>,
) -> Result<Vec<Issued>, ActError> {
    proof::prove(ledger, last).await?;
    let detail = json!({
        "count": wanted.count, "msat_each": wanted.amount.get(), "note": wanted.note,
        "expires_ms": wanted.expires_ms, "profile": wanted.profile, "found": wanted.funds == Funds::Found,
    });
    desk.note("vouchers.issue", &wanted.batch, &detail).await?;
    Ok(issuing.await?)
}

/// Takes one back that is open.
pub async fn revoke(desk: Desk<'_>, ledger: &Ledger, id: i64) -> Result<(), ActError> {
    let latest = ledger.vouchers_before(id.saturating_add(1), 1).await?;
    if latest.first().is_none_or(|voucher| voucher.id != id) {
        return Err(ActError::Unknown);
    }
    desk.note(REVOKE, &id.to_string(), &json!({})).await?;
    match ledger.revoke_vouchers(Which::Id(id)).await? {
        0 => Err(ActError::Ended),
        _ => Ok(()),
    }
}

/// Takes all back that are open and have this note. Returns how many.
pub async fn revoke_noted(desk: Desk<'_>, ledger: &Ledger, note: &str) -> Result<usize, ActError> {
    desk.note(REVOKE, "", &json!({ "note": note })).await?;
    match ledger.revoke_vouchers(Which::Note(note)).await? {
        0 => Err(ActError::Unknown),
        count => Ok(count),
    }
}

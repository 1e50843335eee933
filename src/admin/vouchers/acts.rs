//! What the operator can do with vouchers, one function a verb. Page, call and command do it by these, and the trail
//! has it in the same words.

use serde_json::json;

use crate::admin::proof::{self, Unproven};
use crate::admin::trail::{self, Act};
use crate::audit::Latest;
use crate::ledger::Ledger;
use crate::ledger::vouchers::Funds;
use crate::ledger::vouchers::repo::Which;
use crate::payment::vouchers::{BatchOrder, IssueError, Issued};
use crate::store::StoreError;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
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
pub(crate) async fn issue(
    ledger: &Ledger,
    last: Option<&Latest>,
    actor: &str,
    wanted: &BatchOrder,
    issuing: impl Future<Output = Result<Vec<Issued>, IssueError>>,
) -> Result<Vec<Issued>, ActError> {
    proof::prove(ledger, last).await?;
    let detail = json!({
        "count": wanted.count, "msat_each": wanted.amount.get(), "note": wanted.note,
        "expires_ms": wanted.expires_ms, "profile": wanted.profile, "found": wanted.funds == Funds::Found,
    });
    let act = Act { action: "vouchers.issue", subject: &wanted.batch };
    trail::record(ledger.store(), actor, act, &detail, ledger.clock().now_ms()).await?;
    Ok(issuing.await?)
}

/// Takes one back that is open.
pub(crate) async fn revoke(ledger: &Ledger, actor: &str, id: i64) -> Result<(), ActError> {
    let latest = ledger.vouchers_before(id.saturating_add(1), 1).await?;
    if latest.first().is_none_or(|voucher| voucher.id != id) {
        return Err(ActError::Unknown);
    }
    let act = Act { action: "vouchers.revoke", subject: &id.to_string() };
    trail::record(ledger.store(), actor, act, &json!({}), ledger.clock().now_ms()).await?;
    match ledger.revoke_vouchers(Which::Id(id)).await? {
        0 => Err(ActError::Ended),
        _ => Ok(()),
    }
}

/// Takes all back that are open and have this note. Returns how many.
pub(crate) async fn revoke_noted(ledger: &Ledger, actor: &str, note: &str) -> Result<usize, ActError> {
    let act = Act { action: "vouchers.revoke", subject: "" };
    trail::record(ledger.store(), actor, act, &json!({ "note": note }), ledger.clock().now_ms()).await?;
    match ledger.revoke_vouchers(Which::Note(note)).await? {
        0 => Err(ActError::Unknown),
        count => Ok(count),
    }
}

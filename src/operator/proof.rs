//! Whether the books are right, before money is given away: by what there is here, and by what the mints said last.

use std::sync::Arc;

use crate::alerts::{self, Kind};
use crate::audit::{Auditor, Latest, Solvency};
use crate::ledger::Ledger;
use crate::pages::format;
use crate::store::StoreError;

/// Why nothing is given away.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// The proof of that time, in ms, did not come out.
    #[error("the books were not proven at {}", format::utc(*.0))]
    At(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lets pass when the books are right. `last` is the last proof of this process. A verb beside a node has none, and
/// asks no mint: it goes by the alarm that the node's last proof has left in the database.
///
/// # Errors
/// See [`Unproven`].
pub async fn prove(ledger: &Ledger, last: Option<&Latest>) -> Result<(), Unproven> {
    let auditor = Auditor {
        reader: ledger.store().reader(),
        clock: Arc::clone(ledger.clock()),
        inspector: None,
        ledger: Some(ledger.clone()),
        patience: ledger.patience(),
        most_asked: 0,
    };
    let now = auditor.prove().await?;
    let told = match last {
        Some(last) => last.lack().map(|lack| lack.at_ms),
        None => alarm(ledger).await?,
    };
    if let Some(at_ms) = told {
        return Err(Unproven::At(at_ms));
    }
    let last = last.and_then(Latest::get);
    let off = [Some(&now), last.as_deref()]
        .into_iter()
        .flatten()
        .find(|report| matches!(report.verdict(), Solvency::Faulty | Solvency::Short));
    off.map_or(Ok(()), |report| Err(Unproven::At(report.at_ms)))
}

/// Since when a node says that the books are not right.
async fn alarm(ledger: &Ledger) -> Result<Option<i64>, StoreError> {
    let open = alerts::open(ledger.store()).await?;
    Ok(open.iter().find(|one| matches!(one.kind, Kind::Books | Kind::Insolvent)).map(|one| one.since_ms))
}

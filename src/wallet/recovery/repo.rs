//! The statements of recoveries.

use sqlx::{AnyConnection, Row};

use super::Recovered;
use crate::ledger::AccountId;
use crate::store::{StoreError, Tx};

/// Id and reason of the recovery that is due.
pub(super) async fn pending(connection: &mut AnyConnection) -> Result<Option<(String, String)>, StoreError> {
    let row =
        sqlx::query("SELECT id, reason FROM recoveries WHERE ended_at IS NULL").fetch_optional(connection).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Takes a recovery for `owner`, unless somebody else is at it. Returns whether it is taken.
pub(super) async fn claim(tx: &mut Tx, id: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool, StoreError> {
    let claimed = sqlx::query(
        "UPDATE recoveries SET owner = $1, due_at = $2 \
         WHERE id = $3 AND ended_at IS NULL AND (owner = $4 OR due_at < $5)",
    )
    .bind(owner)
    .bind(until_ms)
    .bind(id)
    .bind(owner)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    Ok(claimed.rows_affected() == 1)
}

/// Ends a recovery. Returns whether it had not ended before.
pub(super) async fn end(tx: &mut Tx, id: &str, report: &str, now_ms: i64) -> Result<bool, StoreError> {
    let ended = sqlx::query("UPDATE recoveries SET ended_at = $1, report = $2 WHERE id = $3 AND ended_at IS NULL")
        .bind(now_ms)
        .bind(report)
        .bind(id)
        .execute(tx.hand())
        .await?;
    Ok(ended.rows_affected() == 1)
}

/// The recovery that ended last.
pub(super) async fn last(connection: &mut AnyConnection) -> Result<Option<Recovered>, StoreError> {
    let row = sqlx::query("SELECT report FROM recoveries WHERE ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT 1");
    let Some(row) = row.fetch_optional(connection).await? else { return Ok(None) };
    let report: String = row.try_get(0)?;
    let bad = |_| StoreError::Inconsistent { table: "recoveries", what: "a report that cannot be read".into() };
    serde_json::from_str(&report).map(Some).map_err(bad)
}

/// Account, mint, unit and msat of all ecash that the ledger knows.
pub(super) async fn ecash(tx: &mut Tx) -> Result<Vec<(AccountId, String, String, i64)>, StoreError> {
    let rows =
        sqlx::query("SELECT id, mint, unit, -posted FROM accounts WHERE kind = 'mint'").fetch_all(tx.hand()).await?;
    let row =
        |row: &sqlx::any::AnyRow| Ok((AccountId(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    rows.iter().map(row).collect()
}

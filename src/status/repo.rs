//! The statements of the status page. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row as _;

use super::Tally;
use crate::store::{Durability, Store, StoreError};

/// How requests to one model went in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub model: String,
    pub slot: u32,
    pub tally: Tally,
}

/// Adds to what is there, of this process and others: all of it, or nothing. Whoever tries again after a commit whose
/// answer was lost may count twice; rows in which requests have no name of their own cannot tell.
pub(super) async fn add(store: &Store, rows: &[Row]) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    for Row { model, slot, tally } in rows {
        sqlx::query(
            "INSERT INTO model_traffic (model, slot, served, failed) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (model, slot) DO UPDATE SET served = model_traffic.served + excluded.served, \
             failed = model_traffic.failed + excluded.failed",
        )
        .bind(model)
        .bind(i64::from(*slot))
        .bind(i64::try_from(tally.served).unwrap_or(i64::MAX))
        .bind(i64::try_from(tally.failed).unwrap_or(i64::MAX))
        .execute(tx.hand())
        .await?;
    }
    tx.commit().await
}

/// What is there of this slot and later ones.
pub(super) async fn since(store: &Store, slot: u32) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query("SELECT model, slot, served, failed FROM model_traffic WHERE slot >= $1")
        .bind(i64::from(slot))
        .fetch_all(store.read())
        .await?;
    let number = |value: i64| {
        u64::try_from(value).map_err(|_| StoreError::Inconsistent { table: "model_traffic", what: value.to_string() })
    };
    let read = rows.iter().map(|row| {
        let slot: i64 = row.try_get(1)?;
        let tally = Tally { served: number(row.try_get(2)?)?, failed: number(row.try_get(3)?)? };
        Ok(Row { model: row.try_get(0)?, slot: u32::try_from(slot).unwrap_or(u32::MAX), tally })
    });
    read.collect()
}

/// Forgets what was before this slot.
pub(super) async fn prune(store: &Store, before: u32) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    sqlx::query("DELETE FROM model_traffic WHERE slot < $1").bind(i64::from(before)).execute(tx.hand()).await?;
    tx.commit().await
}

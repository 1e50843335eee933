//! The statements of the retention. All of them run on SQLite and PostgreSQL alike.

use sqlx::{AssertSqlSafe, Row as _};

use crate::store::{Durability, Store, StoreError};

/// Requests that are looked at in one transaction, and those of the same moment.
const BATCH: i64 = 5_000;

fn failed(only_failed: bool) -> &'static str {
    if only_failed { " AND charged = 0" } else { "" }
}

/// How many requests of that time are known.
pub(super) async fn count(store: &Store, from_ms: i64, before_ms: i64, only_failed: bool) -> Result<u64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM outlays WHERE created_at >= $1 AND created_at < $2{}", failed(only_failed));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(from_ms).bind(before_ms).fetch_one(store.read()).await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
}

/// The time of the last of the next requests of that time; `None`: there are none.
pub(super) async fn batch_end(store: &Store, from_ms: i64, before_ms: i64) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query(
        "SELECT MAX(created_at) FROM (SELECT created_at FROM outlays WHERE created_at >= $1 AND created_at < $2 \
         ORDER BY created_at LIMIT $3) AS batch",
    )
    .bind(from_ms)
    .bind(before_ms)
    .bind(BATCH)
    .fetch_one(store.read())
    .await?;
    Ok(row.try_get(0)?)
}

/// Forgets the requests from that time to that one. Returns how many.
pub(super) async fn forget(store: &Store, (from_ms, to_ms): (i64, i64), only_failed: bool) -> Result<u64, StoreError> {
    let sql = format!("DELETE FROM outlays WHERE created_at >= $1 AND created_at <= $2{}", failed(only_failed));
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    let gone = sqlx::query(AssertSqlSafe(sql)).bind(from_ms).bind(to_ms).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(gone.rows_affected())
}

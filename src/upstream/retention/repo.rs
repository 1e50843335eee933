//! The statements of the retention. All of them run on SQLite and PostgreSQL alike.

use sqlx::{AssertSqlSafe, Row as _};

use crate::store::{Durability, Store, StoreError};

/// Requests that are looked at in one transaction.
const BATCH: i64 = 5_000;

fn failed(only_failed: bool) -> &'static str {
    if only_failed { " AND charged = 0" } else { "" }
}

/// How many requests with such ids are known.
pub(super) async fn count(store: &Store, from: i64, below: i64, only_failed: bool) -> Result<u64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM outlays WHERE id >= $1 AND id < $2{}", failed(only_failed));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(from).bind(below).fetch_one(store.read()).await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
}

/// The last id of the next requests with such ids; `None`: there are none.
pub(super) async fn batch_end(store: &Store, from: i64, below: i64) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query(
        "SELECT MAX(id) FROM (SELECT id FROM outlays WHERE id >= $1 AND id < $2 \
         ORDER BY id LIMIT $3) AS batch",
    )
    .bind(from)
    .bind(below)
    .bind(BATCH)
    .fetch_one(store.read())
    .await?;
    Ok(row.try_get(0)?)
}

/// Forgets the requests from that id to that one. Returns how many.
pub(super) async fn forget(store: &Store, (from, to): (i64, i64), only_failed: bool) -> Result<u64, StoreError> {
    let sql = format!("DELETE FROM outlays WHERE id >= $1 AND id <= $2{}", failed(only_failed));
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    let gone = sqlx::query(AssertSqlSafe(sql)).bind(from).bind(to).execute(tx.hand()).await?;
    tx.commit().await?;
    Ok(gone.rows_affected())
}

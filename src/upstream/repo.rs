//! The statements of the pool. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row as _;

use super::outlay::Outlay;
use crate::store::{Durability, Store, StoreError};

/// A stored upstream.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub name: String,
    pub from_environment: bool,
    pub spec: String,
    pub sealed: String,
}

/// All stored upstreams, in the order in which they were described.
pub(super) async fn upstreams(store: &Store) -> Result<Vec<Stored>, StoreError> {
    let rows = sqlx::query("SELECT name, origin, spec, sealed FROM upstreams ORDER BY position, name")
        .fetch_all(store.read())
        .await?;
    let stored = rows.iter().map(|row| {
        Ok(Stored {
            name: row.try_get(0)?,
            from_environment: row.try_get::<String, _>(1)? == "environment",
            spec: row.try_get(2)?,
            sealed: row.try_get(3)?,
        })
    });
    stored.collect()
}

/// Makes these the ones that the environment describes.
pub(super) async fn replace_environment(store: &Store, rows: &[Stored], now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM upstreams WHERE origin = 'environment'").execute(&mut *tx).await?;
    for (position, row) in (0_i64..).zip(rows) {
        sqlx::query(
            "INSERT INTO upstreams (name, origin, position, spec, sealed, updated_at) \
             VALUES ($1, 'environment', $2, $3, $4, $5)",
        )
        .bind(&row.name)
        .bind(position)
        .bind(&row.spec)
        .bind(&row.sealed)
        .bind(now_ms)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}

/// Writes what requests cost, and adds it to the sums.
pub(super) async fn write_outlays(store: &Store, batch: &[Outlay]) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    for outlay in batch {
        let nano_usd = outlay.nano_usd();
        sqlx::query(
            "INSERT INTO outlays (request, upstream, model, nano_usd, msat, charged, attempts, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (request) DO NOTHING",
        )
        .bind(&outlay.request)
        .bind(&*outlay.upstream)
        .bind(&outlay.model)
        .bind(nano_usd)
        .bind(outlay.msat.and_then(|msat| i64::try_from(msat).ok()))
        .bind(i64::try_from(outlay.charged).unwrap_or(i64::MAX))
        .bind(&outlay.attempts)
        .bind(outlay.at_ms)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO upstream_days (upstream, day, requests, nano_usd) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (upstream, day) DO UPDATE SET requests = upstream_days.requests + 1, \
             nano_usd = upstream_days.nano_usd + excluded.nano_usd",
        )
        .bind(&*outlay.upstream)
        .bind(outlay.day())
        .bind(nano_usd.unwrap_or(0))
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}

/// What requests since then cost at an upstream, and what clients were charged for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Margin {
    pub upstream: String,
    pub requests: i64,
    /// What is known of it.
    pub cost_msat: i64,
    pub charged_msat: i64,
}

/// The margins at all upstreams since then.
///
/// # Errors
/// When the database does not answer.
pub async fn margins(store: &Store, since_ms: i64) -> Result<Vec<Margin>, StoreError> {
    let rows = sqlx::query(
        "SELECT upstream, COUNT(*), CAST(COALESCE(SUM(msat), 0) AS BIGINT), CAST(SUM(charged) AS BIGINT) \
         FROM outlays WHERE created_at > $1 GROUP BY upstream",
    )
    .bind(since_ms)
    .fetch_all(store.read())
    .await?;
    let margin = |row: &sqlx::any::AnyRow| {
        let (upstream, requests) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Margin { upstream, requests, cost_msat: row.try_get(2)?, charged_msat: row.try_get(3)? })
    };
    rows.iter().map(margin).collect()
}

/// What was spent at each upstream on this day, and since the first of its month, in nanodollars.
pub(super) async fn sums(store: &Store, day: i64, first: i64) -> Result<Vec<(String, i64, i64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT upstream, CAST(SUM(CASE WHEN day = $1 THEN nano_usd ELSE 0 END) AS BIGINT), \
         CAST(SUM(nano_usd) AS BIGINT) FROM upstream_days WHERE day >= $2 GROUP BY upstream",
    )
    .bind(day)
    .bind(first)
    .fetch_all(store.read())
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

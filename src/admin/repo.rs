//! The statements behind the pages. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row;

use crate::store::{Durability, Store, StoreError};

/// A session to be stored.
#[derive(Clone, Copy)]
pub(super) struct NewSession<'a> {
    pub id_hash: &'a str,
    pub csrf: &'a str,
    pub expires_at: i64,
}

/// Stores a session; removes the one it replaces, and all that have expired.
pub(super) async fn open_session(
    store: &Store,
    new: NewSession<'_>,
    replaced: Option<&str>,
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM sessions WHERE expires_at <= $1 OR id_hash = $2")
        .bind(now_ms)
        .bind(replaced.unwrap_or_default())
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO sessions (id_hash, csrf, expires_at) VALUES ($1, $2, $3)")
        .bind(new.id_hash)
        .bind(new.csrf)
        .bind(new.expires_at)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// The form token of a session that has not expired.
pub(super) async fn session_csrf(store: &Store, id_hash: &str, now_ms: i64) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT csrf FROM sessions WHERE id_hash = $1 AND expires_at > $2")
        .bind(id_hash)
        .bind(now_ms)
        .fetch_optional(store.read())
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

pub(super) async fn close_session(store: &Store, id_hash: &str) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM sessions WHERE id_hash = $1").bind(id_hash).execute(&mut *tx).await?;
    tx.commit().await
}

/// Operations at mints whose outcome is not known yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unfinished {
    pub count: i64,
    pub oldest_ms: Option<i64>,
}

pub(super) async fn unfinished(store: &Store) -> Result<Unfinished, StoreError> {
    let row =
        sqlx::query("SELECT COUNT(*), MIN(created_at) FROM operations WHERE state IN ('planned', 'acting', 'unknown')")
            .fetch_one(store.read())
            .await?;
    Ok(Unfinished { count: row.try_get(0)?, oldest_ms: row.try_get(1)? })
}

/// What was charged, in msat: one transfer for each request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charges {
    pub recent_requests: i64,
    pub recent_msat: i64,
    pub requests: i64,
    pub msat: i64,
}

pub(super) async fn charges(store: &Store, since_ms: i64) -> Result<Charges, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT), \
         CAST(COALESCE(SUM(recent), 0) AS BIGINT), CAST(COALESCE(SUM(recent * amount), 0) AS BIGINT) \
         FROM (SELECT amount, CASE WHEN created_at > $1 THEN 1 ELSE 0 END AS recent \
         FROM transfers WHERE kind = 'charge') AS charges",
    )
    .bind(since_ms)
    .fetch_one(store.read())
    .await?;
    Ok(Charges {
        requests: row.try_get(0)?,
        msat: row.try_get(1)?,
        recent_requests: row.try_get(2)?,
        recent_msat: row.try_get(3)?,
    })
}

/// A client's key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The first digits of its hash.
    pub short_hash: String,
    pub posted: i64,
    pub held: i64,
    pub spent: i64,
    pub requests: i64,
    pub created_ms: i64,
}

pub(super) async fn largest_keys(store: &Store, limit: i64) -> Result<Vec<Key>, StoreError> {
    let rows = sqlx::query(
        "SELECT SUBSTR(key_hash, 1, 8), posted, held, spent, requests, created_at FROM accounts \
         WHERE kind = 'key' AND key_hash IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM vouchers v WHERE v.account = accounts.id AND (v.redeemed_by IS NULL OR v.redeemed_by <> v.account)) \
         ORDER BY posted DESC, id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(store.read())
    .await?;
    let key = |row: &sqlx::any::AnyRow| {
        Ok(Key {
            short_hash: row.try_get(0)?,
            posted: row.try_get(1)?,
            held: row.try_get(2)?,
            spent: row.try_get(3)?,
            requests: row.try_get(4)?,
            created_ms: row.try_get(5)?,
        })
    };
    rows.iter().map(key).collect()
}

pub(super) async fn count_keys(store: &Store) -> Result<i64, StoreError> {
    // An account of a voucher is a key's once the voucher has made that key.
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM accounts WHERE kind = 'key') \
         - (SELECT COUNT(*) FROM vouchers WHERE redeemed_by IS NULL OR redeemed_by <> account)",
    )
    .fetch_one(store.read())
    .await?;
    Ok(row.try_get(0)?)
}

/// Change that nobody claimed and that became income, ever, in msat.
pub(super) async fn taken_back(store: &Store) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM transfers WHERE kind = 'unclaimed'")
        .fetch_one(store.read())
        .await?;
    Ok(row.try_get(0)?)
}

/// A request for which money was set aside.
pub(super) struct Request {
    pub id: String,
    pub is_open: bool,
    pub held: i64,
    pub charged: i64,
    pub created_ms: i64,
    /// See [`crate::ledger::Hold::noting`].
    pub record: String,
    /// The first digits of the hash of the key.
    pub key: String,
}

/// The latest requests, newest first.
pub(super) async fn latest_requests(store: &Store, limit: i64) -> Result<Vec<Request>, StoreError> {
    let rows = sqlx::query(
        "SELECT h.request, CASE WHEN h.state = 'open' THEN 1 ELSE 0 END, h.amount, h.charged, h.created_at, h.receipt, \
         COALESCE(SUBSTR(a.key_hash, 1, 8), '') \
         FROM (SELECT * FROM holds ORDER BY id DESC LIMIT $1) h JOIN accounts a ON a.id = COALESCE(h.spender, h.account) \
         ORDER BY h.id DESC",
    )
    .bind(limit)
    .fetch_all(store.read())
    .await?;
    let request = |row: &sqlx::any::AnyRow| {
        Ok(Request {
            id: row.try_get(0)?,
            is_open: row.try_get::<i64, _>(1)? != 0,
            held: row.try_get(2)?,
            charged: row.try_get(3)?,
            created_ms: row.try_get(4)?,
            record: row.try_get(5)?,
            key: row.try_get(6)?,
        })
    };
    rows.iter().map(request).collect()
}

/// What a request cost at the upstreams, as long as that is kept.
pub(super) struct Outlay {
    pub upstream: String,
    pub model: String,
    pub msat: Option<i64>,
    /// JSON.
    pub attempts: String,
}

pub(super) async fn outlay(store: &Store, request: &str) -> Result<Option<Outlay>, StoreError> {
    let row = sqlx::query(
        "SELECT o.upstream, o.model, o.msat, o.attempts FROM holds h JOIN outlays o ON o.id = h.id WHERE h.request = $1",
    )
    .bind(request);
    let outlay = |row: sqlx::any::AnyRow| {
        Ok(Outlay {
            upstream: row.try_get(0)?,
            model: row.try_get(1)?,
            msat: row.try_get(2)?,
            attempts: row.try_get(3)?,
        })
    };
    row.fetch_optional(store.read()).await?.map(outlay).transpose()
}

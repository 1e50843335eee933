//! The statements behind the pages. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row;

use super::operator::{Actor, PASSWORD};
use super::session::Via;
use crate::store::{Durability, Store, StoreError};

/// A session to be stored.
#[derive(Clone, Copy)]
pub(super) struct NewSession<'a> {
    pub id_hash: &'a str,
    pub csrf: &'a str,
    pub actor: &'a str,
    pub via: Via,
    /// In ms.
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
        .execute(tx.hand())
        .await?;
    let insert =
        "INSERT INTO sessions (id_hash, csrf, expires_at, actor, via, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
    sqlx::query(insert)
        .bind(new.id_hash)
        .bind(new.csrf)
        .bind(new.expires_at)
        .bind(new.actor)
        .bind(new.via.as_str())
        .bind(now_ms)
        .execute(tx.hand())
        .await?;
    tx.commit().await
}

/// A session that is stored.
pub(super) struct FoundSession {
    pub csrf: String,
    pub actor: Actor,
}

/// The session with this hash that was opened this way, unless it has expired.
pub(super) async fn session(
    store: &Store,
    id_hash: &str,
    via: Via,
    now_ms: i64,
) -> Result<Option<FoundSession>, StoreError> {
    let row = sqlx::query("SELECT csrf, actor FROM sessions WHERE id_hash = $1 AND via = $2 AND expires_at > $3")
        .bind(id_hash)
        .bind(via.as_str())
        .bind(now_ms)
        .fetch_optional(store.read())
        .await?;
    row.map(|row| Ok(FoundSession { csrf: row.try_get(0)?, actor: Actor::new(row.try_get(1)?) })).transpose()
}

/// A token of a program.
pub(super) struct FoundToken {
    pub name: String,
    pub scopes: String,
    pub used_ms: Option<i64>,
    pub ends_ms: Option<i64>,
}

/// The token with this hash, unless it has expired.
pub(super) async fn token(store: &Store, hash: &str, now_ms: i64) -> Result<Option<FoundToken>, StoreError> {
    let row = sqlx::query(
        "SELECT name, scopes, used_at, expires_at FROM admin_tokens \
         WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(hash)
    .bind(now_ms)
    .fetch_optional(store.read())
    .await?;
    row.map(|row| {
        Ok(FoundToken {
            name: row.try_get(0)?,
            scopes: row.try_get(1)?,
            used_ms: row.try_get(2)?,
            ends_ms: row.try_get(3)?,
        })
    })
    .transpose()
}

/// Stores by what the password of the environment is known again, and ends the sessions that another one began, both
/// or neither.
pub(super) async fn put_configured(store: &Store, hash: &str, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    tx.set_setting(super::password::CONFIGURED, hash, now_ms).await?;
    sqlx::query("DELETE FROM sessions WHERE actor = $1").bind(PASSWORD).execute(tx.hand()).await?;
    tx.commit().await
}

pub(super) async fn close_session(store: &Store, id_hash: &str) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM sessions WHERE id_hash = $1").bind(id_hash).execute(tx.hand()).await?;
    tx.commit().await
}

/// What was earned and is there, and what vouchers promise of what was: from the few accounts of the house, and from
/// the vouchers.
pub(super) async fn earned_and_promised(store: &Store) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT CAST(COALESCE(SUM(posted), 0) AS BIGINT) FROM accounts \
         WHERE key_hash IS NULL AND kind IN ('income', 'mint_fees')), \
         (SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM vouchers WHERE state = 'open')",
    )
    .fetch_one(store.read())
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The first digits of the hash of a key.
pub(super) async fn short_hash(store: &Store, account: i64) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT COALESCE(SUBSTR(key_hash, 1, 8), '') FROM accounts WHERE id = $1").bind(account);
    row.fetch_optional(store.read()).await?.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// What a request cost at the upstreams, as long as that is kept.
pub(crate) struct Outlay {
    pub upstream: String,
    pub model: String,
    /// JSON.
    pub attempts: String,
}

pub(crate) async fn outlay(store: &Store, request: &str) -> Result<Option<Outlay>, StoreError> {
    let row = sqlx::query(
        "SELECT o.upstream, o.model, o.attempts FROM holds h JOIN outlays o ON o.id = h.id WHERE h.request = $1",
    )
    .bind(request);
    let outlay = |row: sqlx::any::AnyRow| {
        Ok(Outlay { upstream: row.try_get(0)?, model: row.try_get(1)?, attempts: row.try_get(2)? })
    };
    row.fetch_optional(store.read()).await?.map(outlay).transpose()
}

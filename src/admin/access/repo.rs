//! The statements behind sessions, tokens and the password. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::tokens::Token;
use crate::admin::operator::Actor;
use crate::store::{Durability, Store, StoreError};

/// Most rows that are ever shown.
const MOST: i64 = 1_000;

/// A session that is open.
pub(super) struct OpenSession {
    pub id_hash: String,
    pub actor: Actor,
    pub via: String,
    pub created_ms: i64,
    pub expires_ms: i64,
}

pub(super) async fn sessions(store: &Store, now_ms: i64) -> Result<Vec<OpenSession>, StoreError> {
    let rows = sqlx::query(
        "SELECT id_hash, actor, via, created_at, expires_at FROM sessions WHERE expires_at > $1 \
         ORDER BY created_at DESC, id_hash LIMIT $2",
    )
    .bind(now_ms)
    .bind(MOST)
    .fetch_all(store.read())
    .await?;
    let session = |row: &AnyRow| {
        Ok(OpenSession {
            id_hash: row.try_get(0)?,
            actor: Actor::new(row.try_get(1)?),
            via: row.try_get(2)?,
            created_ms: row.try_get(3)?,
            expires_ms: row.try_get(4)?,
        })
    };
    rows.iter().map(session).collect()
}

/// Ends all sessions, but for the one that is to be kept.
pub(super) async fn close_sessions(store: &Store, kept: Option<&str>) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM sessions WHERE id_hash <> $1").bind(kept.unwrap_or_default()).execute(tx.hand()).await?;
    tx.commit().await
}

/// Stores a hash of the password, and ends all sessions but for the one that is to be kept, both or neither.
pub(super) async fn replace_password(
    store: &Store,
    hash: &str,
    kept: Option<&str>,
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    tx.set_setting(crate::admin::password::SETTING, hash, now_ms).await?;
    sqlx::query("DELETE FROM sessions WHERE id_hash <> $1").bind(kept.unwrap_or_default()).execute(tx.hand()).await?;
    tx.commit().await
}

/// Remembers a signed login for as long as it could be used again. `false`: it was used before.
pub(super) async fn use_event(store: &Store, id: &str, expires_ms: i64, now_ms: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("DELETE FROM login_events WHERE expires_at <= $1").bind(now_ms).execute(tx.hand()).await?;
    let insert = "INSERT INTO login_events (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    let stored = sqlx::query(insert).bind(id).bind(expires_ms).execute(tx.hand()).await?.rows_affected();
    tx.commit().await?;
    Ok(stored == 1)
}

pub(super) async fn tokens(store: &Store) -> Result<Vec<Token>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, name, scopes, created_at, expires_at, used_at FROM admin_tokens ORDER BY created_at, id LIMIT $1",
    )
    .bind(MOST)
    .fetch_all(store.read())
    .await?;
    let token = |row: &AnyRow| {
        let scopes: String = row.try_get(2)?;
        Ok(Token {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            scopes: scopes.split_whitespace().map(str::to_owned).collect(),
            created_at: row.try_get(3)?,
            expires_at: row.try_get(4)?,
            last_used_at: row.try_get(5)?,
        })
    };
    rows.iter().map(token).collect()
}

/// Stores a token, unless there are as many as there may be. `false`: there are.
pub(super) async fn add_token(store: &Store, token: &Token, hash: &str, most: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let stored = sqlx::query(
        "INSERT INTO admin_tokens (id, token_hash, name, scopes, created_at, expires_at) \
         SELECT $1, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT) \
         WHERE (SELECT COUNT(*) FROM admin_tokens) < CAST($7 AS BIGINT)",
    )
    .bind(&token.id)
    .bind(hash)
    .bind(&token.name)
    .bind(token.scopes.join(" "))
    .bind(token.created_at)
    .bind(token.expires_at)
    .bind(most)
    .execute(tx.hand())
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(stored == 1)
}

/// Removes a token. Returns its name, if there was one.
pub(super) async fn remove_token(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let row = sqlx::query("DELETE FROM admin_tokens WHERE id = $1 RETURNING name").bind(id);
    let row = row.fetch_optional(tx.hand()).await?;
    tx.commit().await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Writes down that a token is used.
pub(super) async fn note_use(store: &Store, hash: &str, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::ProcessSafe).await?;
    let update = "UPDATE admin_tokens SET used_at = $1 WHERE token_hash = $2";
    sqlx::query(update).bind(now_ms).bind(hash).execute(tx.hand()).await?;
    tx.commit().await
}

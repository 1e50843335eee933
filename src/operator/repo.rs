//! The statement that writes the trail. It runs on SQLite and PostgreSQL alike.

use crate::store::{Durability, Store, StoreError};

/// An act, as it is written down.
pub(super) struct Noted<'a> {
    pub actor: &'a str,
    pub action: &'static str,
    pub subject: &'a str,
    /// JSON.
    pub detail: &'a str,
}

/// Adds to the trail.
pub(super) async fn note(store: &Store, noted: Noted<'_>, now_ms: i64) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    sqlx::query("INSERT INTO admin_trail (id, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(now_ms)
        .bind(noted.actor)
        .bind(noted.action)
        .bind(noted.subject)
        .bind(noted.detail)
        .execute(tx.hand())
        .await?;
    tx.commit().await
}

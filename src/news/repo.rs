//! The statements of announcements. All of them run on SQLite and PostgreSQL alike.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Announcement, Level, Text};
use crate::store::{Durability, Store, StoreError};

pub(super) async fn shown(store: &Store, now_ms: i64, limit: i64) -> Result<Vec<Announcement>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, title, body, level, starts_at, ends_at, updated_at FROM announcements \
         WHERE starts_at <= $1 AND (ends_at IS NULL OR ends_at > $2) \
         ORDER BY CASE level WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, starts_at DESC, id DESC LIMIT $3",
    )
    .bind(now_ms)
    .bind(now_ms)
    .bind(limit)
    .fetch_all(store.read())
    .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn all(store: &Store, limit: i64) -> Result<Vec<Announcement>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, title, body, level, starts_at, ends_at, updated_at FROM announcements ORDER BY id DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(store.read())
    .await?;
    rows.iter().map(read).collect()
}

/// Stores a new one, if there are fewer than `most`. Returns whether it is stored.
pub(super) async fn insert(store: &Store, id: &str, text: &Text, now_ms: i64, most: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let there: i64 = sqlx::query("SELECT COUNT(*) FROM announcements").fetch_one(tx.hand()).await?.try_get(0)?;
    if there >= most {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO announcements (id, title, body, level, starts_at, ends_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id)
    .bind(text.title.trim())
    .bind(&text.body)
    .bind(text.level.as_str())
    .bind(text.starts_ms)
    .bind(text.ends_ms)
    .bind(now_ms)
    .bind(now_ms)
    .execute(tx.hand())
    .await?;
    tx.commit().await?;
    Ok(true)
}

pub(super) async fn update(store: &Store, id: &str, text: &Text, now_ms: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let updated = sqlx::query(
        "UPDATE announcements SET title = $1, body = $2, level = $3, starts_at = $4, ends_at = $5, updated_at = $6 \
         WHERE id = $7",
    )
    .bind(text.title.trim())
    .bind(&text.body)
    .bind(text.level.as_str())
    .bind(text.starts_ms)
    .bind(text.ends_ms)
    .bind(now_ms)
    .bind(id)
    .execute(tx.hand())
    .await?;
    tx.commit().await?;
    Ok(updated.rows_affected() > 0)
}

pub(super) async fn remove(store: &Store, id: &str) -> Result<bool, StoreError> {
    let mut tx = store.begin(Durability::Full).await?;
    let removed = sqlx::query("DELETE FROM announcements WHERE id = $1").bind(id).execute(tx.hand()).await?;
    tx.commit().await?;
    Ok(removed.rows_affected() > 0)
}

fn read(row: &AnyRow) -> Result<Announcement, StoreError> {
    let level: String = row.try_get(3)?;
    Ok(Announcement {
        id: row.try_get(0)?,
        text: Text {
            title: row.try_get(1)?,
            body: row.try_get(2)?,
            level: Level::parse(&level).unwrap_or_default(),
            starts_ms: row.try_get(4)?,
            ends_ms: row.try_get(5)?,
        },
        updated_ms: row.try_get(6)?,
    })
}

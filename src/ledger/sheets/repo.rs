//! The statements of price sheets. All of them run on SQLite and PostgreSQL alike.

use sqlx::{AnyExecutor, Row as _};

use super::Sheet;
use crate::store::{Store, StoreError};

/// Stores a sheet, unless it is there.
pub(in crate::ledger) async fn insert(
    executor: impl AnyExecutor<'_>,
    sheet: &Sheet,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO price_sheets (id, content, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
        .bind(sheet.id())
        .bind(sheet.content())
        .bind(now_ms)
        .execute(executor)
        .await?;
    Ok(())
}

pub(super) async fn find(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT content FROM price_sheets WHERE id = $1").bind(id).fetch_optional(store.read());
    row.await?.map(|row| Ok(row.try_get(0)?)).transpose()
}
